//! Problem documents as CAs really send them: anything may be missing, odd or hostile.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::domain::failure::Subproblem;
use crate::domain::text::foreign_words;

/// The CA's words are cut after this many characters.
const LONGEST_TEXT: usize = 1_000;
/// Bodies that are no problem documents are quoted up to here.
const LONGEST_QUOTE: usize = 300;
/// More sub-problems than a certificate can have names are not kept.
const MOST_SUBPROBLEMS: usize = 100;

/// RFC 7807 with ACME's additions (RFC 8555, section 6.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Problem {
    /// `urn:ietf:params:acme:error:…`
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub title: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub detail: Option<String>,
    /// A URL for a person, with `userActionRequired`.
    #[serde(default, deserialize_with = "lenient")]
    pub instance: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub subproblems: Option<Vec<Part>>,
}

/// One identifier's share of a problem (RFC 8555, section 6.7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Part {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    detail: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    identifier: Option<Identifier>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Identifier {
    value: String,
}

impl Problem {
    /// Reads the body of an error answer; what is no problem document becomes the detail of one.
    pub(super) fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Self>(body) {
            Ok(problem) if problem.kind.is_some() || problem.detail.is_some() => problem,
            _ => Self { detail: quote(body), ..Self::default() },
        }
    }

    /// The type without its URN, such as `badNonce`.
    pub(super) fn name(&self) -> Option<&str> {
        self.kind.as_deref().and_then(name_of)
    }

    /// The CA's words, fit to be shown.
    pub(super) fn words(&self) -> Option<String> {
        let text = self.detail.as_deref().or(self.title.as_deref())?;
        Some(clean(text, LONGEST_TEXT)).filter(|text| !text.is_empty())
    }

    /// The sub-problems, as a failure carries them.
    pub(super) fn parts(&self) -> Vec<Subproblem> {
        let parts = self.subproblems.iter().flatten().take(MOST_SUBPROBLEMS);
        parts
            .map(|part| Subproblem {
                identifier: part.identifier.as_ref().map(|it| clean(&it.value, LONGEST_TEXT)),
                acme_type: part.kind.as_deref().map(|kind| clean(kind, LONGEST_QUOTE)),
                detail: clean(part.detail.as_deref().unwrap_or_default(), LONGEST_TEXT),
            })
            .collect()
    }
}

/// `badNonce` of `urn:ietf:params:acme:error:badNonce`, also in the URN's older spelling.
pub(super) fn name_of(kind: &str) -> Option<&str> {
    kind.strip_prefix("urn:ietf:params:acme:error:").or(kind.strip_prefix("urn:acme:error:"))
}

/// Text without strange characters and of bounded length.
pub(super) fn clean(text: &str, longest: usize) -> String {
    foreign_words(text, longest).unwrap_or_default()
}

fn quote(body: &[u8]) -> Option<String> {
    let text = clean(&String::from_utf8_lossy(body), LONGEST_QUOTE);
    (!text.is_empty()).then_some(text)
}

/// A member of an unexpected shape counts as absent: the rest of the document is still worth having.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_html_becomes_the_detail() {
        let problem = Problem::from_body(b"<html>\r\n<title>502 Bad Gateway</title>\x1b[31m");

        assert_eq!(problem.name(), None);
        assert_eq!(problem.words().unwrap(), "<html> <title>502 Bad Gateway</title>[31m");
    }

    #[test]
    fn an_odd_member_does_not_cost_the_rest() {
        let body = br#"{"type":"urn:ietf:params:acme:error:caa","detail":7,"status":"403","subproblems":
            [{"type":"urn:ietf:params:acme:error:caa","detail":"no","identifier":{"type":"onion","value":"a.example"}}]}"#;

        let problem = Problem::from_body(body);

        assert_eq!(problem.name(), Some("caa"));
        assert_eq!(problem.words(), None);
        assert_eq!(problem.parts()[0].identifier.as_deref(), Some("a.example"));
    }
}
