//! What really went over the wire during one operation.
//!
//! instant-acme hands on neither status, `Retry-After`, `Link` nor the whole body. The HTTP client
//! writes them down here, in a task-local, and whoever started the operation reads them afterwards.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, header};
use time::{Duration, OffsetDateTime};

use super::classify::{Call, Transport, is_bad_nonce};

/// Nobody is asked to wait longer than this, whatever `Retry-After` says.
const LONGEST_WAIT: Duration = Duration::days(1);

/// One answer of the CA.
#[derive(Debug, Clone)]
pub(in crate::ca) struct Exchange {
    pub url: String,
    pub status: u16,
    /// `Retry-After`, as a moment.
    pub retry_at: Option<OffsetDateTime>,
    pub links: Vec<Link>,
    pub location: Option<String>,
    /// The media type, in lower case and without parameters.
    pub content_type: Option<String>,
    pub body: Bytes,
}

impl Exchange {
    /// Takes from the headers what is worth keeping.
    pub(in crate::ca) fn new(
        url: String,
        status: u16,
        headers: &HeaderMap,
        body: Bytes,
        now: OffsetDateTime,
    ) -> Self {
        let location = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
        Self {
            status,
            retry_at: retry_at(headers, now),
            links: links(headers, &url),
            location: location.and_then(|location| absolute(&url, location)),
            content_type: media_type(headers),
            url,
            body,
        }
    }

    /// Whether the status says that it worked. Redirects do not count: none is followed.
    pub(in crate::ca) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What came, without a word of it: "HTTP 502 (text/html, 162 bytes)".
    pub(in crate::ca) fn outline(&self) -> String {
        let kind = self.content_type.as_deref().unwrap_or("no media type");
        format!("HTTP {} ({kind}, {} bytes)", self.status, self.body.len())
    }

    /// The target of the first link of the given relation.
    pub(in crate::ca) fn link(&self, relation: &str) -> Option<&str> {
        self.links.iter().find(|link| link.relation == relation).map(|link| link.url.as_str())
    }
}

/// A `Link` header's entry, its target made absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) struct Link {
    pub relation: String,
    pub url: String,
}

/// How the last request of an operation ended.
#[derive(Debug, Clone)]
pub(in crate::ca) struct Outcome {
    pub end: End,
    /// Whether it asked for nothing but a nonce: what it was wanted for was not sent.
    pub for_nonce: bool,
}

/// Whether there was an answer.
#[derive(Debug, Clone)]
pub(in crate::ca) enum End {
    Answered(Exchange),
    Failed(Transport),
}

/// What the HTTP client has to know of an operation, and what it says about it.
#[derive(Debug)]
struct Tape {
    call: Call,
    /// Whether the caller wants the body of a success for itself: instant-acme sees an empty order.
    is_raw: bool,
    last: Option<Outcome>,
}

tokio::task_local! {
    static TAPE: RefCell<Tape>;
}

/// Runs an operation and says how its last request ended; `None` when it needed no request.
pub(in crate::ca) async fn record<F: Future>(
    call: Call,
    is_raw: bool,
    operation: F,
) -> (F::Output, Option<Outcome>) {
    let tape = RefCell::new(Tape { call, is_raw, last: None });
    TAPE.scope(tape, async move {
        let output = operation.await;
        (output, TAPE.with(|tape| tape.borrow_mut().last.take()))
    })
    .await
}

/// Which call the running operation is.
pub(in crate::ca) fn call() -> Option<Call> {
    TAPE.try_with(|tape| tape.borrow().call).ok()
}

/// Whether the running operation wants to keep the body to itself.
pub(in crate::ca) fn is_raw() -> bool {
    TAPE.try_with(|tape| tape.borrow().is_raw).unwrap_or(false)
}

/// Whether the running operation's last request was refused for its nonce.
pub(in crate::ca) fn wants_other_nonce() -> bool {
    let refused = |tape: &RefCell<Tape>| match &tape.borrow().last {
        Some(Outcome { end: End::Answered(exchange), for_nonce: false }) => is_bad_nonce(exchange),
        _ => false,
    };
    TAPE.try_with(refused).unwrap_or(false)
}

/// Where the answer to the running operation's last request leads, if it is a redirect.
pub(in crate::ca) fn redirect() -> Option<String> {
    let target = |tape: &RefCell<Tape>| match &tape.borrow().last {
        Some(Outcome { end: End::Answered(exchange), .. })
            if matches!(exchange.status, 301 | 302 | 303 | 307 | 308) =>
        {
            exchange.location.clone()
        }
        _ => None,
    };
    TAPE.try_with(target).ok().flatten()
}

/// Writes down how a request ended.
pub(in crate::ca) fn note(outcome: Outcome) {
    // Outside an operation nobody is interested.
    let _ = TAPE.try_with(|tape| tape.borrow_mut().last = Some(outcome));
}

fn retry_at(headers: &HeaderMap, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let value = value.trim().trim_matches('"').trim();
    let latest = now + LONGEST_WAIT;
    let seconds = whole_seconds(value);
    let wished = match seconds.parse::<u32>() {
        Ok(seconds) => now + Duration::seconds(i64::from(seconds)),
        // More digits than fit are still a number of seconds: a very large one.
        Err(_) if !seconds.is_empty() && seconds.bytes().all(|c| c.is_ascii_digit()) => latest,
        Err(_) => httpdate::parse_http_date(value).ok()?.into(),
    };
    Some(wished.clamp(now, latest))
}

/// Some front ends write `30.0` or `30s`.
fn whole_seconds(value: &str) -> &str {
    let (whole, rest) = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    let fraction = rest.strip_prefix('.').unwrap_or_default();
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|c| c.is_ascii_digit());
    if is_fraction || rest == "s" { whole } else { value }
}

/// A URL that the CA names, which may be relative to the one that was asked (RFC 9110, section 10.2.2).
///
/// Every URL that a CA returns comes through here; one that is absolute stays as it is written, for
/// it is signed in this form.
pub(in crate::ca) fn absolute(base: &str, named: &str) -> Option<String> {
    match url::Url::parse(named) {
        Ok(_) => Some(named.to_owned()),
        Err(_) => Some(url::Url::parse(base).ok()?.join(named).ok()?.into()),
    }
}

/// Others than those that look like one are not fit to be shown.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?.trim().to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/+.-".contains(c);
    (kind.len() <= 64 && !kind.is_empty() && kind.chars().all(plain)).then_some(kind)
}

fn links(headers: &HeaderMap, base: &str) -> Vec<Link> {
    let values = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|entry| {
            let (target, parameters) = entry.trim().strip_prefix('<')?.split_once('>')?;
            let relation = parameters.split(';').find_map(|p| p.trim().strip_prefix("rel="))?;
            let url = absolute(base, target)?;
            Some(Link { relation: relation.trim_matches('"').to_owned(), url })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    fn exchange(name: header::HeaderName, value: &'static str) -> Exchange {
        let headers = HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))]);
        Exchange::new("https://ca.example/acme/x".into(), 200, &headers, Bytes::new(), NOON)
    }

    #[test]
    fn retry_after_is_understood_as_seconds_and_as_a_date() {
        let cases = [
            ("90", Some(Duration::seconds(90))),
            ("Thu, 01 Jan 2026 12:00:30 GMT", Some(Duration::seconds(30))),
            ("Thu, 01 Jan 2026 11:00:00 GMT", Some(Duration::ZERO)),
            ("99999999999999", Some(LONGEST_WAIT)),
            ("\"90\"", Some(Duration::seconds(90))),
            ("90.0", Some(Duration::seconds(90))),
            ("90s", Some(Duration::seconds(90))),
            (" 90 ", Some(Duration::seconds(90))),
            ("90 minutes", None),
            ("1.2.3", None),
            ("soon", None),
            ("-5", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let found = exchange(header::RETRY_AFTER, value).retry_at;

            assert_eq!(found, expected.map(|wait| NOON + wait), "Retry-After: {value}");
        }
    }

    #[test]
    fn links_are_made_absolute() {
        let seen = exchange(
            header::LINK,
            r#"<https://ca.example/dir>;rel="index", </chain/1>; rel="alternate""#,
        );

        assert_eq!(seen.link("index"), Some("https://ca.example/dir"));
        assert_eq!(seen.link("alternate"), Some("https://ca.example/chain/1"));
    }

    #[test]
    fn a_relative_location_is_below_the_url_that_was_asked() {
        for (said, meant) in [
            ("/acme/order/7", "https://ca.example/acme/order/7"),
            ("order/7", "https://ca.example/acme/order/7"),
            ("//other.example/o/7", "https://other.example/o/7"),
            ("https://ca.example/o/7", "https://ca.example/o/7"),
            // It is signed as it is written: nothing is added to it.
            ("https://ca.example", "https://ca.example"),
        ] {
            let seen = exchange(header::LOCATION, said);

            assert_eq!(seen.location.as_deref(), Some(meant), "{said}");
        }
    }
}
