//! The trace that a request belongs to (W3C Trace Context): the client's, or one that begins with it.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::headers::{TRACEPARENT, TRACERESPONSE};
use crate::domain::trace::Trace;
use crate::telemetry::trace::{self, Kind, Span};

/// Those who look whether the service is well, and scrapes: their traces would hide all others.
const PROBES: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/version"];

/// The span of a request.
pub(crate) fn begin(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let mut span = match continued(request.headers()) {
        Some(caller) => Span::below(caller, Kind::Server, "request"),
        None if PROBES.contains(&route) => Span::unsent(trace::begin()),
        None => Span::at(trace::begin(), None, Kind::Server, "request"),
    };
    let method = request.method();
    span.rename(|| format!("{method} {route}"));
    span.set("http.request.method", || method.to_string());
    span.set("http.route", || route.to_owned());
    span
}

/// Ends the span of a request with its answer, which names it.
pub(crate) fn end(mut span: Span, response: &mut Response) {
    let status = response.status();
    span.set("http.response.status_code", || status.as_u16());
    if status.is_server_error() {
        span.fail(|| status.to_string());
    }
    if let Ok(value) = HeaderValue::try_from(span.trace().to_string()) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
}

/// What the client's `traceparent` says, if there is one that counts.
fn continued(headers: &HeaderMap) -> Option<Trace> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    // Of several nobody knows which one is meant.
    let only = given.next().filter(|_| given.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}
