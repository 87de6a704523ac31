//! Extractors whose refusals are problem documents.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{
    DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequest, Request,
};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::{ApiError, Code};
use crate::validation::from_slice;

/// Bytes of a request's body at most.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

/// Time limit for the arrival of a body.
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
    /// The parsed body.
    pub(crate) value: T,
    /// Method, path and body as they came, which identify the request.
    pub(crate) identity: Vec<u8>,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (content, identity) = read(request, state, &["application/json"]).await?;
        Ok(Self { value: from_slice(&content)?, identity })
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

/// Manifests as text: YAML, or JSON, which is a kind of it.
pub(crate) struct Manifests(pub(crate) String);

/// Bytes of a body of manifests at most: larger than others, since it holds several resources.
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

/// Reads a body of one of these types; returns it, and what identifies the request.
pub(super) async fn read<S: Send + Sync>(
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
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::Because(Code::PayloadTooLarge, format!("A body may have {MOST_BYTES} bytes."))
        }
        _ => ApiError::malformed("The body could not be read to its end."),
    }
}
