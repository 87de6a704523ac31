//! Limits that were exceeded, and how answers tell of them.

use axum::http::{HeaderMap, HeaderValue, header};

use super::headers::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// A limit that was exceeded, as `RateLimit` headers tell it (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exceeded {
    pub(crate) name: &'static str,
    /// So many within the window; without one, at the same time.
    pub(crate) quota: u32,
    pub(crate) window: Option<time::Duration>,
    pub(crate) retry_after: time::Duration,
}

impl Exceeded {
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let Self { name, quota, .. } = self;
        // Rounded up: a second too early is too early.
        let seconds = (self.retry_after + time::Duration::milliseconds(999)).whole_seconds().max(1);
        let window = self.window.map(|window| format!(";w={}", window.whole_seconds()));
        let window = window.unwrap_or_default();
        for (header, text) in [
            (header::RETRY_AFTER, seconds.to_string()),
            (RATE_LIMIT_POLICY, format!("\"{name}\";q={quota}{window}")),
            (RATE_LIMIT, format!("\"{name}\";r=0;t={seconds}")),
        ] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(header, value);
            }
        }
    }
}
