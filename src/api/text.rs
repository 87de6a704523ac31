//! Text that comes in: nothing is made of it before it was looked at here.
//!
//! Bodies are looked at by the extractors, paths, queries and headers by a layer around all routes.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use url::form_urlencoded;

use super::certificates::keystores::KEYSTORE_PASSWORD;
use super::extract::escaped;
use super::problem::{ApiError, Faults};
use crate::domain::text::{Lines, refuse};

/// Headers whose values are used or kept.
const HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    HeaderName::from_static("idempotency-key"),
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("prefer"),
    KEYSTORE_PASSWORD,
];

/// Refuses requests with strange characters before their body.
pub(crate) async fn check_head(request: Request, next: Next) -> Response {
    let checked = uri(request.uri()).and_then(|()| headers(request.headers()));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn uri(uri: &Uri) -> Result<(), ApiError> {
    // A path is encoded like the parts of a query, and has none of their separators that could hide anything.
    for (text, _) in form_urlencoded::parse(uri.path().replace(['&', '='], "/").as_bytes()) {
        refuse(&text, Lines::One)
            .map_err(|strange| ApiError::malformed(format!("The path {strange}.")))?;
    }
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        refuse(&name, Lines::One).map_err(|strange| {
            ApiError::malformed(format!("The name of a parameter of the query {strange}."))
        })?;
        refuse(&value, Lines::One)
            .map_err(|strange| ApiError::malformed(format!("`{name}` in the query {strange}.")))?;
    }
    Ok(())
}

fn headers(given: &HeaderMap) -> Result<(), ApiError> {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
    for name in &HEADERS {
        if !given.get_all(name).iter().all(|value| value.as_bytes().iter().all(is_plain)) {
            let detail = format!("The header `{name}` has printable ASCII characters only.");
            return Err(ApiError::malformed(detail));
        }
    }
    Ok(())
}

/// Notes every text of a JSON value, and every key, that has a strange character.
pub(crate) fn check(value: &Value, faults: &mut Faults) {
    walk(value, &mut String::new(), faults);
}

fn walk(value: &Value, pointer: &mut String, faults: &mut Faults) {
    match value {
        Value::String(text) => {
            if let Some(lines) = lines_at(pointer)
                && let Err(strange) = refuse(text, lines)
            {
                faults.invalid(&*pointer, strange.to_string());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(&index.to_string(), item, pointer, faults);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                match refuse(key, Lines::One) {
                    Ok(()) => below(&escaped(key), value, pointer, faults),
                    // It is no name that could be shown.
                    Err(strange) => faults.invalid(&*pointer, format!("a key {strange}")),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn below(token: &str, value: &Value, pointer: &mut String, faults: &mut Faults) {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    walk(value, pointer, faults);
    pointer.truncate(length);
}

/// How many lines a text may have, by where it stands in a request or a manifest; `None` where it
/// need not be text at all.
fn lines_at(pointer: &str) -> Option<Lines> {
    if pointer.starts_with("/data/") || pointer.starts_with("/stringData/") {
        return None;
    }
    // PEM, and base64 as people break it.
    let many = ["/csr", "/acme/caBundle"];
    let pointer = pointer.strip_prefix("/spec").unwrap_or(pointer);
    Some(if many.contains(&pointer) { Lines::Many } else { Lines::One })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_strange_text_and_key_is_pointed_at() {
        let value = json!({
            "a": "fine", "b/c": ["x", "y\0z", {"d": "\u{202E}", "e\u{1b}": "hidden\0"}], "csr": "one\ntwo",
            "stringData": {"token": "\0", "bad\nkey": ""}, "spec": {"csr": "a\tb", "name": "a\tb"}
        });
        let mut faults = Faults::default();
        check(&value, &mut faults);

        let found: Vec<&str> = faults.iter().map(|fault| &*fault.pointer).collect();
        assert_eq!(found, ["/b~1c/1", "/b~1c/2/d", "/b~1c/2", "/spec/name", "/stringData"]);
        assert!(faults.iter().all(|fault| !fault.detail.contains('\u{202E}')));
    }

    #[test]
    fn paths_and_queries_are_looked_at_as_they_are_decoded() {
        for bad in ["/a%00", "/a&b=%1b", "/?a=%0A", "/?a%7F=b", "/?a=%E2%80%AE", "/a?b=c&d=%C2%85"]
        {
            let refused = uri(&bad.parse().unwrap());
            assert!(matches!(refused, Err(ApiError::Because(..))), "{bad}");
        }
        for good in ["/", "/a%20b?c=d+e%2Ff", "/?namespace=b%C3%BCcher", "/?a=%FF"] {
            uri(&good.parse().unwrap()).unwrap();
        }
    }
}
