//! Requests that may be sent twice: `Idempotency-Key`.
//!
//! The answer is stored in the transaction that does what was asked, before anything else in it,
//! so that of two requests with one key the later waits for the earlier. Refusals are not stored.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use time::Duration;

use super::AppState;
use super::auth::Principal;
use super::headers::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
use super::precondition;
use super::problem::{ApiError, Code};
use crate::domain::audit::Call;
use crate::domain::id::PrincipalId;
use crate::domain::principal::PrincipalRef;
use crate::storage::idempotency_keys;
use crate::storage::idempotency_keys::Answered;
use crate::storage::{Scope, Tx};

/// Time for which an answer is kept.
const KEPT_FOR: Duration = Duration::hours(24);

/// The client's name for a request, if it gave one.
pub(crate) struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(given) = parts.headers.get(&IDEMPOTENCY_KEY) else { return Ok(Self(None)) };
        match given.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) => Ok(Self(Some(key.to_owned()))),
            _ => Err(ApiError::malformed("`Idempotency-Key` has 1 to 255 visible characters.")),
        }
    }
}

/// A request that may have been answered before.
pub(crate) struct Attempt {
    caller: PrincipalId,
    /// For the audit log.
    author: (PrincipalRef, Arc<Call>),
    scope: Scope,
    key: Option<String>,
    hash: Vec<u8>,
}

/// The part of a stored answer that decides who may see it.
#[derive(Deserialize)]
struct Shown {
    namespace: Option<String>,
}

impl IdempotencyKey {
    /// The caller's request with this method, path and body.
    pub(crate) fn attempt(self, caller: &Principal, identity: &[u8]) -> Attempt {
        let hash = digest(&SHA256, &[&*caller.pepper, identity].concat()).as_ref().to_vec();
        let author = caller.author();
        Attempt {
            caller: caller.subject.id(),
            author,
            scope: caller.scope.clone(),
            key: self.0,
            hash,
        }
    }
}

impl Attempt {
    /// Begins the transaction of the request.
    pub(crate) fn begin(&self, app: &AppState) -> Tx {
        app.begin_for(self.author.clone())
    }

    /// The answer that was given before, if there is one.
    pub(crate) async fn replay(&self, app: &AppState) -> Result<Option<Response>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        let kept_since = app.now() - KEPT_FOR;
        let mut tx = app.db.read().await?;
        match idempotency_keys::find(&mut tx, self.caller, key, kept_since).await? {
            None => Ok(None),
            Some(known) if known.request_hash == self.hash => {
                self.must_cover(&known)?;
                replayed(known).map(Some)
            }
            Some(_) => Err(ApiError::Because(
                Code::IdempotencyKeyReused,
                "The same Idempotency-Key came with another request. Use a new key.".to_owned(),
            )),
        }
    }

    /// Refuses to replay an answer that the caller may not see any more.
    fn must_cover(&self, known: &Answered) -> Result<(), ApiError> {
        let shown: Shown =
            serde_json::from_str(&known.body).map_err(|error| ApiError::Inside(Box::new(error)))?;
        match shown.namespace {
            Some(namespace) if !self.scope.covers(&namespace) => {
                let detail =
                    format!("The API key may not act in the namespace `{namespace}` any more.");
                Err(ApiError::Because(Code::PermissionDenied, detail))
            }
            _ => Ok(()),
        }
    }

    /// Stores the answer, as the first statement of the transaction. Waits for a request with the
    /// same key that is under way; refused when that one was done.
    pub(crate) async fn remember(
        &self,
        app: &AppState,
        tx: &mut Tx,
        location: &str,
        body: &[u8],
    ) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        let answered = Answered {
            request_hash: self.hash.clone(),
            status: StatusCode::ACCEPTED.as_u16().into(),
            location: location.to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
        };
        let now = app.now();
        let kept_since = now - KEPT_FOR;
        let stored = idempotency_keys::insert(tx, self.caller, key, &answered, now, kept_since);
        stored.await.map_err(|error| ApiError::from(error).or_if_taken(in_flight))
    }

    /// Does `work` unless the request was answered before; then replays that answer.
    pub(crate) async fn once<F>(
        &self,
        app: &AppState,
        work: impl FnOnce() -> F,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<Response, ApiError>>,
    {
        if let Some(response) = self.replay(app).await? {
            return Ok(response);
        }
        match work().await {
            // The earlier request is done by now, or has failed; it may have created what is
            // in the way of this one.
            Err(error @ ApiError::Because(Code::IdempotencyInFlight | Code::AlreadyExists, _)) => {
                self.replay(app).await?.ok_or(error)
            }
            done => done,
        }
    }
}

fn in_flight() -> ApiError {
    let detail = "A request with the same Idempotency-Key is being worked on. Send it again.";
    ApiError::Because(Code::IdempotencyInFlight, detail.to_owned())
}

/// 202 with the `Location` of the resource.
pub(crate) fn accepted(location: String, body: Vec<u8>) -> Response {
    let answer = precondition::answer(StatusCode::ACCEPTED, body);
    ([(header::LOCATION, location)], answer).into_response()
}

fn replayed(known: Answered) -> Result<Response, ApiError> {
    let status = u16::try_from(known.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| ApiError::Inside("a stored answer has no status".into()))?;
    let answer = precondition::answer(status, known.body.into_bytes());
    let headers = [(header::LOCATION, known.location), (IDEMPOTENCY_REPLAYED, "true".to_owned())];
    Ok((headers, answer).into_response())
}
