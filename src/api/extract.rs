//! Extractors whose refusals are problem documents.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{
    DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequest, Request,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::problem::{ApiError, Code};
use crate::manifest::read::decode;
use crate::validation::{from_parameters, from_slice};

/// Bytes of a request's body at most.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

/// Time limit for the arrival of a body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A part of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        query(&parts.uri).map(Self)
    }
}

/// Reads the query of an address.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let query = uri.query().unwrap_or_default();
    from_parameters(form_urlencoded::parse(query.as_bytes())).map_err(ApiError::malformed)
}

impl From<PathRejection> for ApiError {
    fn from(_: PathRejection) -> Self {
        Self::Because(Code::NotFound, "There is nothing here: an identifier is a UUID.".into())
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
    /// The body as it came.
    pub(crate) content: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content = read(request, state, &["application/json"], MOST_BYTES).await?;
        Ok(Self { value: from_slice(&content)?, content })
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

/// Bytes of a body at most that holds several resources.
pub(crate) const MOST_OF_SEVERAL: usize = 1024 * 1024;

impl<S: Send + Sync> FromRequest<S> for Manifests {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        const TYPES: [&str; 4] =
            ["application/yaml", "application/json", "application/x-yaml", "text/yaml"];
        let content = read(request, state, &TYPES, MOST_OF_SEVERAL).await?;
        let text = decode(&content).map(Self);
        text.ok_or_else(|| ApiError::malformed("The body is neither UTF-8 nor UTF-16."))
    }
}

/// Reads a body of one of these types, and of so many bytes at most.
pub(super) async fn read<S: Send + Sync>(
    mut request: Request,
    state: &S,
    types: &[&str],
    most: usize,
) -> Result<Bytes, ApiError> {
    must_be_of(types, request.headers())?;
    must_not_be_encoded(request.headers())?;
    DefaultBodyLimit::max(most).apply(&mut request);
    tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state))
        .await
        .map_err(|_| {
            let detail = "The body did not arrive within 30 seconds. Send it again.";
            ApiError::Because(Code::RequestTimeout, detail.to_owned())
        })?
        .map_err(|rejection| unreadable(rejection, most))
}

fn must_be_of(types: &[&str], headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    if given.is_some_and(|given| types.iter().any(|known| known.eq_ignore_ascii_case(given))) {
        return Ok(());
    }
    let detail = format!("Send the body with `Content-Type: {}`.", types[0]);
    Err(ApiError::Because(Code::UnsupportedMediaType, detail))
}

/// Nothing is decompressed, so that a small body is never a large one.
fn must_not_be_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_plain = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"identity");
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(coding) = codings.find(|coding| !is_plain(coding.as_bytes())) else { return Ok(()) };
    let detail = format!(
        "The body is encoded (`Content-Encoding: {}`). Send it as it is, without that header.",
        String::from_utf8_lossy(coding.as_bytes())
    );
    Err(ApiError::Because(Code::UnsupportedMediaType, detail))
}

fn unreadable(rejection: BytesRejection, most: usize) -> ApiError {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("A body may have {most} bytes here. Send several smaller ones.");
            ApiError::Because(Code::PayloadTooLarge, detail)
        }
        _ => ApiError::malformed("The body could not be read to its end. Send it again."),
    }
}
