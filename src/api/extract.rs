//! Extractors whose refusals are problem documents.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{
    DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequest, Request,
};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_path_to_error::Segment;

use super::problem::{ApiError, Code, Faults, FieldCode};
use super::text;

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A part of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub(crate) struct Query<T>(pub(crate) T);

impl From<PathRejection> for ApiError {
    fn from(_: PathRejection) -> Self {
        Self::Because(Code::NotFound, "There is nothing here: an identifier is a UUID.".into())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::malformed(format!("The query cannot be read. {}", rejection.body_text()))
    }
}

/// An answer in JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A request's body, read from JSON.
pub(crate) struct Body<T> {
    /// What it says.
    pub(crate) value: T,
    /// What identifies the request: method, path and body as they came.
    pub(crate) identity: Vec<u8>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (content, identity) = read(request, state, &["application/json"]).await?;
        Ok(Self { value: parse(&content)?, identity })
    }
}

/// A request whose body may be left out: then it has no content type either.
impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, ApiError> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// A merge patch (RFC 7396), not applied yet.
pub(crate) struct MergePatch(pub(crate) serde_json::Map<String, serde_json::Value>);

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let types = ["application/merge-patch+json", "application/json"];
        let (content, _) = read(request, state, &types).await?;
        match parse(&content)? {
            serde_json::Value::Object(patch) => Ok(Self(patch)),
            _ => Err(ApiError::field("", FieldCode::WrongType, "a merge patch is an object here")),
        }
    }
}

/// Manifests as text: YAML, or JSON, which is a kind of it.
pub(crate) struct Manifests(pub(crate) String);

/// More than one resource comes in one body, so that it may be larger than others.
const MOST_OF_MANIFESTS: usize = 1024 * 1024;

impl<S: Send + Sync> FromRequest<S> for Manifests {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        const TYPES: [&str; 4] =
            ["application/yaml", "application/json", "application/x-yaml", "text/yaml"];
        DefaultBodyLimit::max(MOST_OF_MANIFESTS).apply(&mut request);
        let (content, _) = read(request, state, &TYPES).await?;
        String::from_utf8(content.to_vec())
            .map(Self)
            .map_err(|_| ApiError::malformed("The body is not UTF-8."))
    }
}

async fn read<S: Send + Sync>(
    request: Request,
    state: &S,
    types: &[&str],
) -> Result<(Bytes, Vec<u8>), ApiError> {
    let given = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if !given.is_some_and(|given| types.iter().any(|known| known.eq_ignore_ascii_case(given))) {
        let detail = format!("Send the body with `Content-Type: {}`.", types[0]);
        return Err(ApiError::Because(Code::UnsupportedMediaType, detail));
    }
    let mut identity = identify(request.method(), request.uri().path());
    let bytes = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state))
        .await
        .map_err(|_| {
            let detail = "The body did not arrive within 30 seconds.";
            ApiError::Because(Code::RequestTimeout, detail.to_owned())
        })?
        .map_err(unreadable)?;
    identity.extend_from_slice(&bytes);
    Ok((bytes, identity))
}

fn identify(method: &Method, path: &str) -> Vec<u8> {
    format!("{method} {path}\n").into_bytes()
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::Because(
            Code::PayloadTooLarge,
            format!("A body may have {} bytes.", super::layers::MOST_BYTES),
        ),
        _ => ApiError::malformed("The body could not be read to its end."),
    }
}

/// Reads JSON text. What does not fit is refused with a pointer to it.
fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<T, ApiError> {
    // Looked at as a whole, before anything is made of its parts.
    let whole =
        serde_json::from_slice(content).map_err(|error| ApiError::malformed(not_json(&error)))?;
    let mut faults = Faults::default();
    text::check(&whole, &mut faults);
    faults.refuse()?;
    let mut deserializer = serde_json::Deserializer::from_slice(content);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| unfit(&error))?;
    deserializer.end().map_err(|error| ApiError::malformed(not_json(&error)))?;
    Ok(value)
}

/// Reads a JSON value. What does not fit is refused with a pointer to it.
pub(crate) fn from_value<'a, T: Deserialize<'a>>(
    value: impl Deserializer<'a, Error = serde_json::Error>,
) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| unfit(&error))
}

fn not_json(error: &serde_json::Error) -> String {
    format!("The body is not JSON, as of line {} column {}.", error.line(), error.column())
}

/// Never repeats a value: it may be a secret in the wrong place.
fn unfit(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let cause = error.inner();
    if cause.is_syntax() || cause.is_eof() || cause.is_io() {
        return ApiError::malformed(not_json(cause));
    }
    let mut pointer = pointer(error.path());
    let text = cause.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // serde has no structure for its errors, so its words are all there is to tell them apart by.
    let (code, detail) = if let Some(rest) = text.strip_prefix("missing field `") {
        let name = rest.trim_end_matches('`');
        pointer = format!("{pointer}/{}", escaped(name));
        (FieldCode::Required, "it has to be given".to_owned())
    } else if let Some(rest) = text.strip_prefix("unknown field `") {
        // The name itself may have anything in it.
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
    ApiError::field(pointer, code, detail)
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

/// A reference token of a JSON pointer.
pub(crate) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::api::problem::FieldError;

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
            let Err(ApiError::Invalid(errors)) = parse::<Thing>(text.as_bytes()) else {
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
                matches!(
                    parse::<Thing>(text.as_bytes()),
                    Err(ApiError::Because(Code::MalformedRequest, _))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_value() {
        let text = r#"{"dnsNames": "value-that-may-be-secret"}"#;
        let refusal = format!("{:?}", parse::<Thing>(text.as_bytes()).unwrap_err());

        assert!(!refusal.contains("value-that-may-be-secret"), "{refusal}");
    }
}
