//! Reading JSON, with a JSON pointer to each fault.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;

use super::{Faults, FieldCode, Refusal, check_text, escaped};

/// Parses JSON text. A value that does not fit is reported with its pointer.
pub(crate) fn from_slice<T: DeserializeOwned>(content: &[u8]) -> Result<T, Refusal> {
    // All texts are checked before anything else is done with them.
    let whole =
        serde_json::from_slice(content).map_err(|error| Refusal::Malformed(not_json(&error)))?;
    let mut faults = Faults::default();
    check_text(&whole, &mut faults);
    faults.refuse()?;
    let mut deserializer = serde_json::Deserializer::from_slice(content);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| unfit(&error))?;
    deserializer.end().map_err(|error| Refusal::Malformed(not_json(&error)))?;
    Ok(value)
}

/// Parses a JSON value. A value that does not fit is reported with its pointer.
pub(crate) fn from_value<'a, T: Deserialize<'a>>(
    value: impl Deserializer<'a, Error = serde_json::Error>,
) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|error| unfit(&error))
}

fn not_json(error: &serde_json::Error) -> String {
    format!("The body is not JSON, as of line {} column {}.", error.line(), error.column())
}

/// The fault never repeats a value, which may be a secret in the wrong place.
fn unfit(error: &serde_path_to_error::Error<serde_json::Error>) -> Refusal {
    let cause = error.inner();
    if cause.is_syntax() || cause.is_eof() || cause.is_io() {
        return Refusal::Malformed(not_json(cause));
    }
    let mut pointer = pointer(error.path());
    let text = cause.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // serde's errors have no structure, so they are told apart by their texts.
    let (code, detail) = if let Some(rest) = text.strip_prefix("missing field `") {
        let name = rest.trim_end_matches('`');
        pointer = format!("{pointer}/{}", escaped(name));
        (FieldCode::Required, "it has to be given".to_owned())
    } else if let Some(rest) = text.strip_prefix("unknown field `") {
        // The name itself may contain anything, so the text is split from its end.
        let known = rest.rsplit_once("`, expected ").map(|(_, known)| known);
        let known = known.map_or_else(String::new, |known| format!("expected {known}"));
        (FieldCode::UnknownField, format!("there is no such field; {known}"))
    } else if text.starts_with("duplicate field") {
        (FieldCode::Invalid, "it is given twice".to_owned())
    } else {
        let code = if text.starts_with("invalid type") {
            FieldCode::WrongType
        } else {
            FieldCode::Invalid
        };
        let expected = text.rsplit_once(", expected ").map(|(_, expected)| expected);
        (code, format!("expected {}", expected.unwrap_or("another value")))
    };
    Faults::one(pointer, code, detail).into()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escaped(key)),
            Segment::Enum { variant } => format!("/{}", escaped(variant)),
            Segment::Unknown => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::validation::FieldError;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Thing {
        dns_names: Vec<String>,
        inner: Option<BTreeMap<String, u8>>,
    }

    #[test]
    fn what_does_not_fit_is_pointed_at() {
        for (text, at, code) in [
            (r#"{"dnsNames": [], "colour": 1}"#, "/colour", FieldCode::UnknownField),
            (r#"{"dnsNames": ["a", 7]}"#, "/dnsNames/1", FieldCode::WrongType),
            (r#"{"dnsNames": "a"}"#, "/dnsNames", FieldCode::WrongType),
            ("{}", "/dnsNames", FieldCode::Required),
            (r#"{"dnsNames": [], "inner": {"a/b": 900}}"#, "/inner/a~1b", FieldCode::Invalid),
            ("7", "", FieldCode::WrongType),
        ] {
            let Err(Refusal::Invalid(errors)) = from_slice::<Thing>(text.as_bytes()) else {
                panic!("{text} was not refused as invalid");
            };
            let found: Vec<_> =
                errors.iter().map(|FieldError { pointer, code, .. }| (&**pointer, *code)).collect();
            assert_eq!(found, [(at, code)], "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for text in ["", "{", "{\"dnsNames\": []} x", "{'a': 1}", "nonsense"] {
            assert!(
                matches!(from_slice::<Thing>(text.as_bytes()), Err(Refusal::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_value() {
        let text = r#"{"dnsNames": "value-that-may-be-secret"}"#;
        let refusal = format!("{:?}", from_slice::<Thing>(text.as_bytes()).unwrap_err());

        assert!(!refusal.contains("value-that-may-be-secret"), "{refusal}");
    }
}
