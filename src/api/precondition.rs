//! `ETag`, `If-None-Match` and `If-Match` (RFC 9110, section 13).

use std::convert::Infallible;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::{ApiError, Code};

/// The client's `If-Match` and `If-None-Match`.
pub(crate) struct Precondition {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

enum Tags {
    Any,
    These(Vec<String>),
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            if_match: tags(&parts.headers, &header::IF_MATCH),
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH),
        })
    }
}

impl Precondition {
    /// Refuses a change to another state of the resource than the client knows.
    pub(crate) fn must_match<T: Serialize>(&self, present: &T) -> Result<(), ApiError> {
        let holds = match &self.if_match {
            None | Some(Tags::Any) => true,
            Some(Tags::These(tags)) => tags.contains(&tag(&json(present)?)),
        };
        if holds {
            return Ok(());
        }
        let detail = "The resource is not what `If-Match` says. Read it again.";
        Err(ApiError::Because(Code::PreconditionFailed, detail.to_owned()))
    }

    /// True if the client has the representation with this tag already.
    pub(crate) fn knows(&self, tag: &str) -> bool {
        match &self.if_none_match {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::These(tags)) => {
                tags.iter().any(|known| known.strip_prefix("W/").unwrap_or(known) == tag)
            }
        }
    }

    /// Answers with the resource, or with 304 where the client has it already.
    pub(crate) fn show<T: Serialize>(&self, view: &T) -> Result<Response, ApiError> {
        let body = json(view)?;
        let tag = tag(&body);
        Ok(self.tagged(body, tag))
    }

    /// Answers with more than the resource: `more` has parts that change by themselves, but the tag stays that
    /// of the resource, which is what `If-Match` is about.
    pub(crate) fn show_with<T: Serialize>(&self, view: &T, more: &T) -> Result<Response, ApiError> {
        Ok(self.tagged(json(more)?, tag(&json(view)?)))
    }

    fn tagged(&self, body: Vec<u8>, tag: String) -> Response {
        if self.knows(&tag) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
        }
        let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, tag)];
        (StatusCode::OK, headers, body).into_response()
    }
}

/// An answer in JSON with its tag.
pub(crate) fn answer(status: StatusCode, body: Vec<u8>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, tag(&body))];
    (status, headers, body).into_response()
}

/// An answer in JSON that shows no resource, and so has no tag.
pub(crate) fn untagged(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A view as JSON text.
pub(crate) fn json<T: Serialize>(view: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(view).map_err(|error| ApiError::Inside(Box::new(error)))
}

/// The strong tag of a representation.
pub(crate) fn tag(representation: &[u8]) -> String {
    let hash = digest(&SHA256, representation);
    let (first, _) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 16], &[]));
    format!("\"{:032x}\"", u128::from_be_bytes(*first))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Tags> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&lines.join(&b',')).into_owned();
    let tags: Vec<_> = text.split(',').map(|tag| tag.trim().to_owned()).collect();
    Some(if tags.iter().any(|tag| tag == "*") { Tags::Any } else { Tags::These(tags) })
}
