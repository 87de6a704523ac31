//! Web pages of other origins (CORS: <https://fetch.spec.whatwg.org/#http-cors-protocol>), as far as the configuration names them.
//!
//! No answer allows credentials, so that what a browser adds by itself, such as a client certificate, is of no use to
//! a page: it has to have an API key or a token of its own.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::headers::{
    DRY_RUN, IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, KEYSTORE_PASSWORD, LAST_EVENT_ID, PREFER,
    PREFERENCE_APPLIED, RATE_LIMIT, RATE_LIMIT_POLICY, REQUEST_ID, TRACEPARENT, TRACERESPONSE,
};

/// Browsers keep the answer to a preflight for ten minutes and more; a changed configuration is to count sooner.
const KEPT: Duration = Duration::from_mins(5);

const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What pages may send, beside what they always may.
const SENT: [HeaderName; 11] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    IDEMPOTENCY_KEY,
    KEYSTORE_PASSWORD,
    LAST_EVENT_ID,
    PREFER,
    REQUEST_ID,
    TRACEPARENT,
];

/// What pages may read of an answer, beside what they always may.
const READ: [HeaderName; 13] = [
    header::ALLOW,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    DRY_RUN,
    IDEMPOTENCY_REPLAYED,
    PREFERENCE_APPLIED,
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
    REQUEST_ID,
    TRACERESPONSE,
];

/// Lets pages of these origins ask; of others, browsers read no answer and send nothing that takes a preflight.
pub(crate) fn for_origins(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods(METHODS)
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(KEPT)
}
