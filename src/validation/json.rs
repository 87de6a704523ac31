//! Reading JSON, and queries, with a JSON pointer to each fault.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fit::{Fit, Misfit, TWICE};
use super::{Faults, FieldCode, FieldError, Refusal, check_text, whole};

/// Parses JSON text. A value that does not fit is reported with its pointer.
pub(crate) fn from_slice<T: DeserializeOwned>(content: &[u8]) -> Result<T, Refusal> {
    let (whole, mut faults) = whole::parse(content).map_err(|error| not_json(&error))?;
    // All texts are checked before anything else is done with them.
    check_text(&whole, &mut faults);
    faults.refuse()?;
    from_value(&whole)
}

/// Parses a JSON value. A value that does not fit is reported with its pointer.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    T::deserialize(Fit::of_json(value)).map_err(|misfit| fault(&misfit).into())
}

/// Parses a value of a manifest, as leniently as Kubernetes reads them, and speaks of it in words of YAML.
pub(crate) fn from_manifest<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    T::deserialize(Fit::of_manifest(value)).map_err(|misfit| {
        let detail = match &*misfit.detail {
            "expected an object" => "expected a mapping",
            "expected an array" => "expected a list",
            "expected a string" => "expected a string; numbers and booleans need quotes to be one",
            other => other,
        };
        FieldError::new(&misfit.pointer(), misfit.code, detail)
    })
}

/// Parses the parameters of a query, or says of which one it cannot be done.
pub(crate) fn from_parameters<'q, T: DeserializeOwned>(
    parameters: impl Iterator<Item = (Cow<'q, str>, Cow<'q, str>)>,
) -> Result<T, String> {
    let mut given = Map::new();
    for (name, value) in parameters {
        if given.contains_key(&*name) {
            return Err(format!("`{name}` in the query: {TWICE}."));
        }
        given.insert(name.into_owned(), Value::String(value.into_owned()));
    }
    T::deserialize(Fit::of_texts(&Value::Object(given))).map_err(|misfit| {
        let (pointer, detail) = (misfit.pointer(), &misfit.detail);
        let name = pointer.trim_start_matches('/');
        match misfit.code {
            FieldCode::UnknownField => {
                let detail = detail.replacen("field", "parameter", 1);
                format!("`{name}` in the query: {detail}.")
            }
            _ => format!("`{name}` in the query: {detail}."),
        }
    })
}

fn not_json(error: &serde_json::Error) -> Refusal {
    let (line, column) = (error.line(), error.column());
    Refusal::Malformed(format!("The body is not JSON, as of line {line} column {column}."))
}

fn fault(misfit: &Misfit) -> Faults {
    Faults::one(misfit.pointer(), misfit.code, &misfit.detail)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Thing {
        dns_names: Vec<String>,
        inner: Option<BTreeMap<String, u8>>,
        key: Option<Key>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape is looked at")]
    struct Key {
        kind: Kind,
        size: u32,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        #[serde(rename = "RSA")]
        Rsa,
        #[serde(rename = "ECDSA")]
        Ecdsa,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        limit: Option<u32>,
        #[serde(default)]
        count: bool,
        id: Option<uuid::Uuid>,
    }

    fn query(text: &str) -> Result<Asked, String> {
        from_parameters(url::form_urlencoded::parse(text.as_bytes()))
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
            (r#"[["a"], null]"#, "", FieldCode::WrongType),
            (r#"{"dnsNames": [], "key": ["RSA", 3]}"#, "/key", FieldCode::WrongType),
            (
                r#"{"dnsNames": [], "key": {"kind": 3, "size": 2}}"#,
                "/key/kind",
                FieldCode::WrongType,
            ),
            (r#"{"dnsNames": [], "key": {"kind": "DSA"}}"#, "/key/kind", FieldCode::Invalid),
            (r#"{"dnsNames": [], "key": {"kind": "RSA"}}"#, "/key/size", FieldCode::Required),
            (r#"{"dnsNames": [], "dnsNames": []}"#, "/dnsNames", FieldCode::Invalid),
            (r#"{"dnsNames": [], "inner": {"~": 1, "~": 2}}"#, "/inner/~0", FieldCode::Invalid),
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
    fn what_was_expected_is_said_in_words_of_json() {
        for (text, detail) in [
            ("[]", "expected an object"),
            (r#"{"dnsNames": {}}"#, "expected an array"),
            (r#"{"dnsNames": [1]}"#, "expected a string"),
            (r#"{"dnsNames": [], "inner": []}"#, "expected an object"),
            (r#"{"dnsNames": [], "inner": {"a": -1}}"#, "expected a number from 0 to 255"),
            (r#"{"dnsNames": [], "inner": {"a": "1"}}"#, "expected a number from 0 to 255"),
            (r#"{"dnsNames": [], "key": {"size": 1.5}}"#, "expected a number from 0 to 4294967295"),
            (r#"{"dnsNames": [], "key": {"kind": "DSA"}}"#, "expected one of `RSA`, `ECDSA`"),
            (r#"{"dnsNames": [], "key": {"kind": 1}}"#, "expected one of `RSA`, `ECDSA`"),
        ] {
            let Err(Refusal::Invalid(errors)) = from_slice::<Thing>(text.as_bytes()) else {
                panic!("{text} was not refused as invalid");
            };
            let found: Vec<_> = errors.iter().map(|fault| &*fault.detail).collect();
            assert_eq!(found, [detail], "{text}");
        }
    }

    #[test]
    fn the_parameters_of_a_query_are_texts() {
        let id = "019ab000-0000-7000-8000-000000000000";
        assert_eq!(
            query(&format!("limit=7&count=true&id={id}")).unwrap(),
            Asked { limit: Some(7), count: true, id: Some(id.parse().unwrap()) }
        );
        assert_eq!(query("").unwrap(), Asked { limit: None, count: false, id: None });
        for (text, refusal) in [
            ("limit=many", "`limit` in the query: expected a number from 0 to 4294967295."),
            ("limit=-1", "`limit` in the query: expected a number from 0 to 4294967295."),
            ("count=yes", "`count` in the query: expected true or false."),
            ("id=7", "`id` in the query: expected a UUID."),
            ("limit=1&limit=2", "`limit` in the query: it is given twice."),
            (
                "colour=red",
                "`colour` in the query: there is no such parameter; expected one of `limit`, `count`, `id`.",
            ),
        ] {
            assert_eq!(query(text).unwrap_err(), refusal, "{text}");
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
