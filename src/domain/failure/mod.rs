//! Failures and their classes.
//!
//! Everything that an ACME server, a DNS provider or the network can do ends in one [`Failure`].
//! Its [`Class`] decides what happens next; the rest is for the person who reads it.

pub mod code;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::text::foreign_words;
use super::throttle::Scope;
use super::words::words;
pub use code::Code;

/// Longest title, with foreign names in it.
const LONGEST_TITLE: usize = 500;
/// The other side's words, cut, and our advice.
const LONGEST_DETAIL: usize = 2_000;

words! {
    /// Which policy applies to a failure.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub serde enum Class {
        /// The CA does not know yet what it has just handed out: the same URL again, within seconds.
        Consistency = "consistency",
        /// Asked to come back later: parked until then, no failed attempt.
        Throttle = "throttle",
        /// No usable answer: again soon, after reading back what may have happened.
        Transient = "transient",
        /// The CA did not find the proof, or sent what cannot be used: this order is over, and another one at
        /// once would end like it.
        Validation = "validation",
        /// The CA's state differs from ours: read it back and go on from there.
        Conflict = "conflict",
        /// What we hold is over at the CA (expired, forgotten): a fresh order, at once.
        Gone = "gone",
        /// Nothing will change until a person changes something.
        Blocked = "blocked",
    }
}

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which policy applies.
    pub class: Class,
    /// Stable and machine-readable, such as `acme_rate_limited` or `cloudflare_zone_not_found`.
    pub code: String,
    /// One sentence for a person: what failed.
    pub title: String,
    /// The other side's own words, and what to do where that is known.
    pub detail: String,
    /// `urn:ietf:params:acme:error:…`, where an ACME server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme_type: Option<String>,
    /// The HTTP status of the answer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Not before this moment, as the other side asked (`Retry-After`).
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_at: Option<OffsetDateTime>,
    /// Who waits with it, where a CA's limit says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What was wrong with which identifier (RFC 8555, section 6.7.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subproblems: Vec<Subproblem>,
    /// A page of the other side's where a person can do something about it: unpause an account,
    /// agree to new terms of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// A failure's part that concerns one identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subproblem {
    /// The name that it is about, where the CA said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// `urn:ietf:params:acme:error:…`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme_type: Option<String>,
    /// The CA's words.
    pub detail: String,
}

impl Failure {
    /// A failure of this code; `detail` says why, and the code's advice follows it.
    ///
    /// The detail may quote others: it is cleaned and cut here, so that nobody can forget to.
    pub fn of(code: Code, detail: impl Into<String>) -> Self {
        Self {
            class: code.class,
            code: code.text.to_owned(),
            title: code.title.to_owned(),
            detail: clean(&advised(detail.into(), code.advice), LONGEST_DETAIL),
            acme_type: None,
            http_status: None,
            retry_at: None,
            scope: None,
            subproblems: Vec::new(),
            instance: None,
        }
    }

    /// A call that was cut off after `limit`.
    pub fn timed_out(title: &str, limit: std::time::Duration) -> Self {
        let detail = format!("No answer within {} s.", limit.as_secs());
        Self::of(code::STEP_TIMED_OUT, detail).titled(title)
    }

    /// Replaces the title, to name its subject; it may quote others.
    #[must_use]
    pub fn titled(self, title: impl AsRef<str>) -> Self {
        Self { title: clean(title.as_ref(), LONGEST_TITLE), ..self }
    }

    /// Whether it has this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code.text
    }

    /// The code's row in the table; `None` for a failure that another version has stored.
    pub fn known_code(&self) -> Option<Code> {
        Code::find(&self.code)
    }

    /// Whether the other side has received the request and refuses it.
    pub fn is_refusal(&self) -> bool {
        self.class == Class::Blocked || self.is(code::ACME_REFUSED)
    }

    /// Adds the HTTP status of the answer.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { http_status: Some(status), ..self }
    }

    /// Whether the CA may have done what it was asked for, though nothing usable came back. A front end
    /// that says that nobody is there is believed.
    pub fn may_have_been_heard(&self) -> bool {
        matches!(
            self.known_code(),
            Some(
                code::ACME_UNREADABLE_ANSWER
                    | code::ACME_ANSWER_TOO_LARGE
                    | code::ACME_CONNECTION_LOST
                    | code::ACME_TIMEOUT
                    | code::STEP_TIMED_OUT
            )
        )
    }

    /// Sets the earliest time of the next try.
    #[must_use]
    pub fn not_before(self, at: Option<OffsetDateTime>) -> Self {
        Self { retry_at: at, ..self }
    }
}

/// Foreign words, cleaned and cut; empty if nothing readable is left.
fn clean(words: &str, most: usize) -> String {
    foreign_words(words, most).unwrap_or_default()
}

/// The words with the advice after them.
fn advised(words: String, advice: &str) -> String {
    match advice {
        "" => words,
        advice if words.is_empty() => advice.to_owned(),
        advice if words.ends_with(['.', '!', '?']) => format!("{words} {advice}"),
        advice => format!("{words}. {advice}"),
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title.trim_end_matches('.'), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_quotes_others_quotes_them_cleaned_and_cut() {
        let words = format!("\u{1b}[31mno\0\r\nroom\u{202E} {}", "x".repeat(1_000_000));
        let failure = Failure::of(code::ACME_DNS, &words).titled(&words);

        for text in [&failure.title, &failure.detail] {
            assert!(text.starts_with("[31mno room xxx") && text.ends_with("x…"), "{text}");
            assert!(text.chars().count() <= LONGEST_DETAIL);
        }
    }
}
