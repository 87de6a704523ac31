//! Problem documents (RFC 7807) as CAs really send them: any member may be missing, odd or hostile.

use serde::Deserialize;
use serde_json::Value;

use super::json::{self, each, lenient};
use crate::domain::failure::Subproblem;
use crate::domain::failure::code::{self, Code};
use crate::domain::text::foreign_words;

/// Characters of the CA's words that are kept.
const LONGEST_TEXT: usize = 1_000;
/// Characters of a problem type that are kept.
const LONGEST_TYPE: usize = 300;
/// Sub-problems that are kept: a certificate has at most as many names.
const MOST_SUBPROBLEMS: usize = 100;

/// RFC 7807 with ACME's additions (RFC 8555, section 6.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Problem {
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
pub(crate) struct Part {
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
    /// Reads the problem document in the body of an error answer.
    ///
    /// A document counts if its type is ACME's, or if the media type says that it is a problem. Any
    /// other body is some front end's text and is shown to nobody.
    pub(crate) fn read(content_type: Option<&str>, body: &[u8]) -> Option<Self> {
        let problem: Self = json::read(body).ok()?;
        let declared = content_type == Some("application/problem+json");
        let speaks = problem.kind.is_some() || problem.detail.is_some();
        (problem.name().is_some() || (declared && speaks)).then_some(problem)
    }

    /// The error that an object carries; some CAs write no more than words there.
    pub(crate) fn within(value: Value) -> Option<Self> {
        match value {
            Value::String(words) => Some(Self { detail: Some(words), ..Self::default() }),
            object @ Value::Object(_) => serde_json::from_value(object).ok(),
            _ => None,
        }
    }

    /// The type without its URN, such as `badNonce`.
    pub(crate) fn name(&self) -> Option<&str> {
        self.kind.as_deref().and_then(name_of)
    }

    /// The CA's words, fit to be shown.
    pub(crate) fn words(&self) -> Option<String> {
        let text = self.detail.as_deref().or(self.title.as_deref())?;
        Some(clean(text, LONGEST_TEXT)).filter(|text| !text.is_empty())
    }

    /// The sub-problems, as a failure carries them.
    pub(crate) fn parts(&self) -> Vec<Subproblem> {
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
pub(crate) fn name_of(kind: &str) -> Option<&str> {
    kind.strip_prefix("urn:ietf:params:acme:error:").or(kind.strip_prefix("urn:acme:error:"))
}

/// Text without strange characters and of bounded length.
pub(crate) fn clean(text: &str, longest: usize) -> String {
    foreign_words(text, longest).unwrap_or_default()
}

/// The types of RFC 8555 (6.7), RFC 9773 (7.4), the profiles draft and those that CAs made up.
const TYPES: &[(&str, Code)] = &[
    ("accountDoesNotExist", code::ACME_ACCOUNT_DOES_NOT_EXIST),
    ("alreadyReplaced", code::ACME_ALREADY_REPLACED),
    ("alreadyRevoked", code::ACME_ALREADY_REVOKED),
    ("badCSR", code::ACME_BAD_CSR),
    ("badNonce", code::ACME_BAD_NONCE),
    ("badPublicKey", code::ACME_BAD_PUBLIC_KEY),
    ("badRevocationReason", code::ACME_BAD_REVOCATION_REASON),
    ("badSignatureAlgorithm", code::ACME_BAD_SIGNATURE_ALGORITHM),
    ("caa", code::ACME_CAA),
    ("conflict", code::ACME_CONFLICT),
    ("connection", code::ACME_CONNECTION),
    ("dns", code::ACME_DNS),
    ("dnssec", code::ACME_DNSSEC),
    ("externalAccountRequired", code::ACME_EXTERNAL_ACCOUNT_REQUIRED),
    ("incorrectResponse", code::ACME_INCORRECT_RESPONSE),
    ("invalidContact", code::ACME_INVALID_CONTACT),
    ("invalidProfile", code::ACME_INVALID_PROFILE),
    ("malformed", code::ACME_MALFORMED),
    ("orderNotReady", code::ACME_ORDER_NOT_READY),
    ("rateLimited", code::ACME_RATE_LIMITED),
    ("rejectedIdentifier", code::ACME_REJECTED_IDENTIFIER),
    ("serverInternal", code::ACME_SERVER_INTERNAL),
    ("tls", code::ACME_TLS),
    ("unauthorized", code::ACME_UNAUTHORIZED),
    ("unsupportedContact", code::ACME_UNSUPPORTED_CONTACT),
    ("unsupportedIdentifier", code::ACME_UNSUPPORTED_IDENTIFIER),
    ("userActionRequired", code::ACME_USER_ACTION_REQUIRED),
];

/// The code of a problem type, named without its URN.
pub(crate) fn code_of(name: &str) -> Option<Code> {
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content_type: &str, body: &[u8]) -> Option<Problem> {
        Problem::read(Some(content_type), body)
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
