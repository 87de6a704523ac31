//! Names of headers that are not among HTTP's own.

use axum::http::HeaderName;

/// Says that nothing of what the answer tells was stored.
pub(crate) const DRY_RUN: HeaderName = HeaderName::from_static("dry-run");

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Carries the password of a keystore, and is never logged.
pub(crate) const KEYSTORE_PASSWORD: HeaderName = HeaderName::from_static("x-keystore-password");

/// Where a stream of events goes on (HTML, section 9.2).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// draft-ietf-httpapi-ratelimit-headers.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// W3C Trace Context: the trace that a request belongs to.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// W3C Trace Context, level 2 (a draft): the trace that an answer belongs to.
pub(crate) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// What proxies note in place of `Forwarded` (RFC 7239).
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Tells nginx and its kin not to buffer an answer.
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
