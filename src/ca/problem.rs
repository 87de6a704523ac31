//! Problem documents as CAs really send them: anything may be missing, odd or hostile.

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use super::json::{self, each, lenient};
use super::recorder::Exchange;
use crate::domain::failure::Subproblem;
use crate::domain::text::foreign_words;

/// The CA's words are cut after this many characters.
const LONGEST_TEXT: usize = 1_000;
/// Types of problems are shorter.
const LONGEST_TYPE: usize = 300;
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
    #[serde(default, deserialize_with = "each")]
    pub subproblems: Vec<Part>,
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
    /// The problem document that an error answer carries: one by its type, or by the media type.
    /// Anything else is somebody else's text, such as a front end's, and shown to nobody.
    pub(super) fn of(exchange: &Exchange) -> Option<Self> {
        let problem: Self = json::read(&exchange.body).ok()?;
        let declared = exchange.content_type.as_deref() == Some("application/problem+json");
        let speaks = problem.kind.is_some() || problem.detail.is_some();
        (problem.name().is_some() || (declared && speaks)).then_some(problem)
    }

    /// The error that an object carries; some CAs write no more than words there.
    pub(super) fn within(value: Value) -> Option<Self> {
        match value {
            Value::String(words) => Some(Self { detail: Some(words), ..Self::default() }),
            object @ Value::Object(_) => serde_json::from_value(object).ok(),
            _ => None,
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
        let parts = self.subproblems.iter().take(MOST_SUBPROBLEMS);
        parts
            .map(|part| Subproblem {
                identifier: part.identifier.as_ref().map(|it| clean(&it.value, LONGEST_TEXT)),
                acme_type: part.kind.as_deref().map(|kind| clean(kind, LONGEST_TYPE)),
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

/// What is wrong with a JSON document, without a word of what stands in it.
pub(super) fn outline(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io | Category::Eof => "it ends too early",
        Category::Syntax => "it is not JSON",
        Category::Data => "a member is missing, or of another kind than expected",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::CONTENT_TYPE;
    use http::{HeaderMap, HeaderValue};
    use time::OffsetDateTime;

    use super::*;

    fn answer(content_type: &'static str, body: &'static [u8]) -> Option<Problem> {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let (url, body) = ("https://ca.example/x".to_owned(), Bytes::from_static(body));
        Problem::of(&Exchange::new(url, 403, &headers, body, OffsetDateTime::UNIX_EPOCH))
    }

    #[test]
    fn only_a_problem_document_is_the_cas_own_words() {
        let typed = br#"{"type":"urn:ietf:params:acme:error:caa","detail":"no"}"#;
        for kind in ["application/json", "application/problem+json; charset=utf-8", ""] {
            assert_eq!(answer(kind, typed).unwrap().words().unwrap(), "no", "{kind}");
        }
        let untyped = br#"{"detail":"s3cret"}"#;
        assert!(answer("application/problem+json", untyped).is_some());
        assert_eq!(answer("application/json", untyped), None, "any service may answer so");
        let html = b"<html>\r\n<title>s3cret</title>";
        for kind in ["text/html", "application/problem+json"] {
            assert_eq!(answer(kind, html), None);
        }
    }

    #[test]
    fn text_is_shown_without_what_turns_or_hides_it() {
        assert_eq!(clean("a\u{202e}b\r\n\u{1b}[31mc\u{200b}\u{feff}", 100), "ab [31mc");
    }

    #[test]
    fn what_is_wrong_with_a_document_is_told_without_its_contents() {
        let error = serde_json::from_str::<u8>("\"s3cret\"").unwrap_err();
        assert!(error.to_string().contains("s3cret"), "the library's words do show it");
        assert!(!outline(&error).contains("s3cret"));
    }

    #[test]
    fn an_odd_member_does_not_cost_the_rest() {
        let body = br#"{"type":"urn:ietf:params:acme:error:caa","detail":7,"status":"403","subproblems":
            [{"type":"urn:ietf:params:acme:error:caa","detail":"no","identifier":{"type":"onion","value":"a.example"}}]}"#;

        let problem = answer("application/problem+json", body).unwrap();

        assert_eq!(problem.name(), Some("caa"));
        assert_eq!(problem.words(), None);
        assert_eq!(problem.parts()[0].identifier.as_deref(), Some("a.example"));
    }

    #[test]
    fn an_odd_part_does_not_cost_the_others() {
        let body = br#"{"type":"urn:ietf:params:acme:error:compound","detail":"two","subproblems":
            [null, "no", {"type": 5, "identifier": null, "detail": null}, {"detail": "no", "identifier": {"value": "a.example"}}]}"#;

        let parts = answer("application/problem+json", body).unwrap().parts();

        assert_eq!(parts.len(), 2, "{parts:?}");
        assert_eq!(parts[1].identifier.as_deref(), Some("a.example"));
        for odd in ["null", "5", "{}", r#""text""#] {
            let body =
                format!(r#"{{"type":"urn:ietf:params:acme:error:caa","subproblems":{odd}}}"#);
            let problem: Problem = json::read(body.as_bytes()).unwrap();
            assert_eq!((problem.name(), problem.parts()), (Some("caa"), Vec::new()), "{odd}");
        }
    }
}
