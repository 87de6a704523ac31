//! Long polling: `Prefer: wait=30` (RFC 7240).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use tokio::time::Instant;
use uuid::Uuid;

use super::AppState;
use super::auth::{Place, Principal};
use super::headers::{PREFER, PREFERENCE_APPLIED};
use super::problem::ApiError;
use crate::storage::notify::Waiter;

/// Seconds that a client may wait at most; the timeout in [`super::layers`] is longer.
pub(crate) const LONGEST: u64 = 300;

/// Interval of looking without a notification, which may get lost between replicas.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Seconds that the client is willing to wait, if it said so.
#[derive(Debug)]
pub(crate) struct Wait(Option<u64>);

/// The same, with the principal's place among those who wait.
#[derive(Debug)]
pub(crate) struct Held {
    seconds: Option<u64>,
    _place: Option<Place>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(seconds(&parts.headers)))
    }
}

/// Ignores a preference that cannot be parsed (RFC 7240, section 2).
fn seconds(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all(&PREFER)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split([',', ';']))
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, value)| value.trim().trim_matches('"').parse::<u64>().ok())
        .map(|seconds| seconds.min(LONGEST))
}

impl Wait {
    /// Takes a place for as long as the request lasts, if the client waits at all. Refuses a principal that holds as
    /// many as it may.
    pub(crate) fn held_by(self, app: &AppState, who: &Principal) -> Result<Held, ApiError> {
        let place = self.0.map(|_| app.limits.wait(who.subject.id())).transpose()?;
        Ok(Held { seconds: self.0, _place: place.flatten() })
    }
}

impl Held {
    /// True if the client waits at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.seconds.is_some()
    }

    /// Reads until the resource is settled, the time is up, or the service stops. Fails as soon as the
    /// principal is revoked.
    ///
    /// Holds no transaction meanwhile. The waiting ends when the client goes away.
    pub(crate) async fn until<T, F>(
        &self,
        app: &AppState,
        who: &Principal,
        resource: Uuid,
        read: impl Fn() -> F,
        settled: impl Fn(&T) -> bool,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        if self.seconds.is_none() {
            return read().await;
        }
        // Subscribes before the first look, so that nothing is missed in between.
        let waiter = app.db.signals().wait_for(resource);
        let seen = read().await?;
        if settled(&seen) { Ok(seen) } else { self.on(app, who, waiter, read, settled).await }
    }

    /// The same for a resource that was not settled when `waiter` began to wait.
    pub(crate) async fn on<T, F>(
        &self,
        app: &AppState,
        who: &Principal,
        mut waiter: Waiter,
        read: impl Fn() -> F,
        settled: impl Fn(&T) -> bool,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let end = Instant::now() + Duration::from_secs(self.seconds.unwrap_or_default());
        let mut keys = app.db.key_changes();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            tokio::select! {
                () = app.shutdown.cancelled() => {}
                // The sender lives as long as the database.
                _ = keys.changed() => {}
                _ = tokio::time::timeout(left.min(LOOK_EVERY), waiter.settled()) => {}
            }
            who.must_hold(app).await?;
            let seen = read().await?;
            if settled(&seen) || end <= Instant::now() || app.shutdown.is_cancelled() {
                return Ok(seen);
            }
        }
    }

    /// Adds `Preference-Applied` to the answer.
    pub(crate) fn applied(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.seconds
            && let Ok(value) = HeaderValue::from_str(&format!("wait={seconds}"))
        {
            response.headers_mut().insert(PREFERENCE_APPLIED, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_is_found_among_others_and_kept_within_bounds() {
        for (prefer, seconds) in [
            ("wait=30", Some(30)),
            ("respond-async, wait=5", Some(5)),
            ("respond-async; Wait = \"7\"", Some(7)),
            ("wait=100000", Some(LONGEST)),
            ("wait=soon", None),
            ("wait", None),
            ("handling=strict", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_str(prefer).unwrap());
            assert_eq!(super::seconds(&headers), seconds, "{prefer}");
        }
    }
}
