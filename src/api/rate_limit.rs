//! Limits of callers, and how answers tell of them.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use time::Duration;

use super::headers::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// A limit, as `RateLimit` headers tell it (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit {
    pub(crate) name: &'static str,
    /// So many within the window; without one, at the same time.
    pub(crate) quota: u32,
    pub(crate) window: Option<Duration>,
    /// What is left of it.
    pub(crate) remaining: u32,
    /// When all of it is there again; of one that was exceeded, when there is some.
    pub(crate) reset: Duration,
}

impl RateLimit {
    /// One that is used up.
    pub(crate) fn exceeded(
        name: &'static str,
        quota: u32,
        window: Option<Duration>,
        retry_after: Duration,
    ) -> Self {
        Self { name, quota, window, remaining: 0, reset: retry_after }
    }

    /// Says what is left, so that a client can slow down before it is refused.
    pub(crate) fn show(&self, headers: &mut HeaderMap) {
        let Self { name, quota, remaining, .. } = self;
        let window = self.window.map(|window| format!(";w={}", window.whole_seconds()));
        let window = window.unwrap_or_default();
        let reset = seconds(self.reset);
        insert(headers, RATE_LIMIT_POLICY, &format!("\"{name}\";q={quota}{window}"));
        insert(headers, RATE_LIMIT, &format!("\"{name}\";r={remaining};t={reset}"));
    }

    /// Says that it was exceeded, and when to come again.
    pub(crate) fn refuse(&self, headers: &mut HeaderMap) {
        self.show(headers);
        insert(headers, header::RETRY_AFTER, &seconds(self.reset).to_string());
    }
}

/// Rounded up: a second too early is too early.
fn seconds(time: Duration) -> i64 {
    (time + Duration::milliseconds(999)).whole_seconds().max(1)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
