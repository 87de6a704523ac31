//! Requests that may be sent twice: `Idempotency-Key`.
//!
//! That a request was answered is stored in the transaction that does what was asked, so that of two requests with one
//! key the later is refused by it, and answered like the earlier. Refusals are not stored. A replay shows the
//! resource as it is by then; only what has no place of its own is shown as it was.

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use time::Duration;

use super::auth::Principal;
use super::dry_run::DryRun;
use super::headers::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
use super::problem::{ApiError, Code};
use super::wait::Held;
use super::{AppState, precondition, present};
use crate::storage::idempotency_keys;
use crate::storage::idempotency_keys::Answered;
use crate::storage::{Scope, Tx};

/// Time for which an answer is kept.
const KEPT_FOR: Duration = Duration::hours(24);

/// Seconds after which whoever polls may look for what was accepted.
const LOOK_AFTER: &str = "2";

/// The client's name for a request, if it gave one, and what the request is.
pub(crate) struct IdempotencyKey {
    name: Option<String>,
    /// Method and address.
    request: String,
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let request = format!("{} {path}{query}\n", parts.method);
        let Some(given) = parts.headers.get(&IDEMPOTENCY_KEY) else {
            return Ok(Self { name: None, request });
        };
        match given.to_str() {
            Ok(name) if (1..=255).contains(&name.len()) => {
                Ok(Self { name: Some(name.to_owned()), request })
            }
            _ => Err(ApiError::malformed("`Idempotency-Key` has 1 to 255 visible characters.")),
        }
    }
}

/// A request that may have been answered before.
pub(crate) struct Attempt {
    who: Principal,
    key: Option<String>,
    /// Of the request, if it has a key.
    hash: Vec<u8>,
}

/// The parts of a stored answer that decide who may see it.
#[derive(Deserialize)]
struct Shown {
    namespace: Option<String>,
    /// Of manifests.
    #[serde(default)]
    results: Vec<Shown>,
}

impl IdempotencyKey {
    /// The caller's request with this body. One that is only tried is done as often as it comes.
    pub(crate) fn attempt(self, caller: &Principal, body: &[u8], dry: DryRun) -> Attempt {
        let key = self.name.filter(|_| !dry.is_wanted());
        let whole = || [&*caller.pepper, self.request.as_bytes(), body].concat();
        let hash = key.as_ref().map(|_| digest(&SHA256, &whole()).as_ref().to_vec());
        Attempt { who: caller.clone(), key, hash: hash.unwrap_or_default() }
    }
}

impl Attempt {
    /// Begins the transaction of the request.
    pub(crate) fn begin(&self, app: &AppState) -> Tx {
        app.begin(&self.who)
    }

    /// Stores that this request came for several things, each of which is remembered by itself. Refuses another one
    /// under the same key.
    pub(crate) async fn begin_several(&self, app: &AppState) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        let kept_since = app.now() - KEPT_FOR;
        let mut tx = app.db.read().await?;
        let known = idempotency_keys::find(&mut tx, self.who.subject.id(), key, kept_since).await?;
        drop(tx);
        match known {
            Some(known) if known.request_hash == self.hash => Ok(()),
            Some(_) => Err(reused()),
            None => {
                let mut tx = self.begin(app);
                self.remember(app, &mut tx, (StatusCode::MULTI_STATUS, ""), b"{}").await?;
                tx.commit().await.map_err(|error| ApiError::from(error).or_if_taken(in_flight))
            }
        }
    }

    /// The part of the request that is about one of several things.
    pub(crate) fn part(&self, place: usize) -> Self {
        // No client's key has a line break.
        let key = self.key.as_ref().map(|key| format!("{key}\n{place}"));
        Self { who: self.who.clone(), key, hash: self.hash.clone() }
    }

    /// Who sent the request.
    pub(crate) fn who(&self) -> &Principal {
        &self.who
    }

    /// True if the answer has to be remembered.
    pub(crate) fn is_named(&self) -> bool {
        self.key.is_some()
    }

    /// The answer to the same request, if it was done before.
    async fn replay(&self, app: &AppState, wait: &Held) -> Result<Option<Response>, ApiError> {
        let Some(key) = &self.key else { return Ok(None) };
        let kept_since = app.now() - KEPT_FOR;
        let mut tx = app.db.read().await?;
        let found = idempotency_keys::find(&mut tx, self.who.subject.id(), key, kept_since).await?;
        drop(tx);
        match found {
            None => Ok(None),
            Some(known) if known.request_hash == self.hash => {
                must_cover(&self.who.scope, &known)?;
                self.replayed(app, known, wait).await.map(Some)
            }
            Some(_) => Err(reused()),
        }
    }

    async fn replayed(
        &self,
        app: &AppState,
        known: Answered,
        wait: &Held,
    ) -> Result<Response, ApiError> {
        let status = u16::try_from(known.status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| ApiError::Inside("a stored answer has no status".into()))?;
        let Answered { location, body, .. } = known;
        let mut response = if location.is_empty() {
            precondition::untagged(status, body.into_bytes())
        } else {
            match present::at(app, &self.who, &location, wait).await {
                Ok(body) => located(status, &location, body),
                Err(ApiError::Because(Code::NotFound, _)) => return Err(gone(&location)),
                Err(error) => return Err(error),
            }
        };
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        Ok(wait.applied(response))
    }

    /// Stores that the request was answered: with the resource at `location`, or with `body` where that is empty.
    /// Waits for a request with the same key that is under way; refused when that one was done.
    pub(crate) async fn remember(
        &self,
        app: &AppState,
        tx: &mut Tx,
        (status, location): (StatusCode, &str),
        body: &[u8],
    ) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        let answered = Answered {
            request_hash: self.hash.clone(),
            status: status.as_u16().into(),
            location: location.to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
        };
        let now = app.now();
        let kept_since = now - KEPT_FOR;
        let caller = self.who.subject.id();
        let stored = idempotency_keys::insert(tx, caller, key, &answered, now, kept_since);
        stored.await.map_err(|error| ApiError::from(error).or_if_taken(in_flight))
    }

    /// Does `work` unless the request was answered before; then answers it again.
    pub(crate) async fn once<F>(
        &self,
        app: &AppState,
        wait: &Held,
        work: impl FnOnce() -> F,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<Response, ApiError>>,
    {
        if let Some(response) = self.replay(app, wait).await? {
            return Ok(response);
        }
        match work().await {
            // The earlier request is done by now, or has failed; it may have done what is
            // in the way of this one.
            Err(error) if is_in_the_way(&error) => self.replay(app, wait).await?.ok_or(error),
            done => done,
        }
    }
}

fn is_in_the_way(error: &ApiError) -> bool {
    let refused = matches!(
        error,
        ApiError::Because(Code::IdempotencyInFlight | Code::AlreadyExists | Code::NotPending, _)
    );
    refused || error.is_lost_race()
}

/// Refuses to replay an answer that the caller may not see any more.
fn must_cover(scope: &Scope, known: &Answered) -> Result<(), ApiError> {
    let shown: Shown =
        serde_json::from_str(&known.body).map_err(|error| ApiError::Inside(Box::new(error)))?;
    let mut all = shown.results.iter().chain([&shown]).filter_map(|one| one.namespace.as_ref());
    match all.find(|namespace| !scope.covers(namespace)) {
        Some(namespace) => {
            let detail =
                format!("The API key may not act in the namespace `{namespace}` any more.");
            Err(ApiError::Because(Code::PermissionDenied, detail))
        }
        None => Ok(()),
    }
}

fn reused() -> ApiError {
    let detail = "The same Idempotency-Key came with another request. Use a new key.";
    ApiError::Because(Code::IdempotencyKeyReused, detail.to_owned())
}

fn in_flight() -> ApiError {
    let detail = "A request with the same Idempotency-Key is being worked on. Send it again.";
    ApiError::Because(Code::IdempotencyInFlight, detail.to_owned())
}

fn gone(location: &str) -> ApiError {
    let detail = format!(
        "This request was done before, and what it was about ({location}) is not there any more. Use a new Idempotency-Key to do it again."
    );
    ApiError::Because(Code::NotFound, detail)
}

/// 202 with the `Location` of the resource, for which there is work to be done yet.
pub(crate) fn accepted(location: &str, body: Vec<u8>) -> Response {
    located(StatusCode::ACCEPTED, location, body)
}

/// An answer about the resource at `location`.
pub(crate) fn located(status: StatusCode, location: &str, body: Vec<u8>) -> Response {
    let mut response = precondition::answer(status, body);
    let headers = response.headers_mut();
    if status != StatusCode::OK
        && let Ok(location) = HeaderValue::from_str(location)
    {
        headers.insert(header::LOCATION, location);
    }
    if status == StatusCode::ACCEPTED {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(LOOK_AFTER));
    }
    response
}
