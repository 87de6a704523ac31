//! The layers around all routes.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument as _;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::audit::Caller;
use super::audit::call::from_client;
use super::by_name::Named;
use super::compression::compressing;
use super::declared::Undeclared;
use super::extract::MOST_BYTES;
use super::headers::{KEYSTORE_PASSWORD, RATE_LIMIT, REQUEST_ID};
use super::problem::{ApiError, Code, Problem};
use super::{AppState, audit, by_name, compression, head, traced, wait};
use crate::telemetry::metrics::calls as metrics;
use crate::telemetry::trace;

/// Nothing that prints headers shows these.
const SECRET: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, KEYSTORE_PASSWORD];

/// Longer than the longest wait that a client may ask for.
const TIMEOUT: Duration = Duration::from_secs(wait::LONGEST + 30);

/// Puts the layers around the routes; the first one here is the first to see a request.
pub(crate) fn around(routes: Router, app: AppState, undeclared: Undeclared) -> Router {
    let undeclared = Arc::new(undeclared);
    let layers = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new(SECRET))
        .layer(from_fn_with_state((app, undeclared), answered))
        .layer(compressing())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(DefaultBodyLimit::max(MOST_BYTES));
    routes
        .fallback(async || ApiError::Because(Code::NotFound, "There is nothing here.".into()))
        .method_not_allowed_fallback(async || {
            let detail = "The `Allow` header names the methods that it understands.";
            ApiError::Because(Code::MethodNotAllowed, detail.into())
        })
        .layer(layers)
}

/// Answers a request and tells of it. It is one layer, as each layer has every request moved to the heap.
async fn answered(
    State((app, undeclared)): State<(AppState, Arc<Undeclared>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    from_client(&app.trusted_proxies, &mut request);
    let id = identified(&mut request);
    let caller = Caller::of(&request);
    request.extensions_mut().insert(caller.clone());
    let (method, route) = (method(&request), request.extensions().get::<MatchedPath>().cloned());
    let (is_safe, named) = (request.method().is_safe(), request.extensions_mut().remove());
    let known = compression::prepare(&mut request);
    let (spans, span) = (traced::begin(&request), span(&request, &id));

    let answer = async {
        let response = match refused(&mut request, &undeclared) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        };
        let problem = response.extensions().get::<Problem>();
        audit::note(&app, &caller, response.status(), problem).await;
        let response = compression::tagged(known, as_problem(response, &id, named)).await;
        log(&response, begun, is_safe, &caller);
        response
    };
    let answer = trace::within(Some(spans.trace()), answer.instrument(span));
    let mut response = Box::pin(answer).await;

    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics::http(method, route, response.status().as_str(), begun.elapsed());
    traced::end(spans, &mut response);
    guard(&mut response);
    let headers = response.headers_mut();
    if let Some(left) = caller.rate_limit().filter(|_| !headers.contains_key(RATE_LIMIT)) {
        left.show(headers);
    }
    headers.insert(REQUEST_ID, id);
    response
}

/// Refuses a request that no handler is to see.
fn refused(request: &mut Request, undeclared: &Undeclared) -> Result<(), ApiError> {
    if !names_one_host(request) {
        return Err(ApiError::malformed("Send exactly one `Host` header."));
    }
    head::check(request)?;
    by_name::check(request)?;
    undeclared.check(request)
}

/// The method as a label of metrics: there are more than HTTP has.
fn method(request: &Request) -> &'static str {
    match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// The request's identifier: the client's, unless it could do harm in a log.
fn identified(request: &mut Request) -> HeaderValue {
    let harmless = |id: &&HeaderValue| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        id.len() <= 128 && !id.is_empty() && id.as_bytes().iter().all(allowed)
    };
    if let Some(given) = request.headers().get(&REQUEST_ID).filter(harmless) {
        return given.clone();
    }
    let mut text = [0; Hyphenated::LENGTH];
    let text = Uuid::new_v4().as_hyphenated().encode_lower(&mut text);
    let id = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    id
}

/// Adds headers that forbid browsers and caches everything, unless the answer has them. An answer
/// with an `ETag` may be kept by its reader, who has to revalidate it each time.
fn guard(response: &mut Response) {
    let headers = response.headers_mut();
    let kept = if headers.contains_key(header::ETAG) { "private, no-cache" } else { "no-store" };
    for (name, value) in [
        (header::CACHE_CONTROL, kept),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// True if there is one `Host` header, or none where the version of HTTP needs none: of several, a proxy in front may
/// have used another one (RFC 9112, section 3.2). HTTP/2 has `:authority` instead.
pub(crate) fn names_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11)
}

/// The span leaves out the query, which may hold a secret by mistake.
fn span(request: &Request, id: &HeaderValue) -> tracing::Span {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    tracing::info_span!(
        "request",
        method = request.method().as_str(),
        path = request.uri().path(),
        id = id.to_str().unwrap_or_default(),
        from = from.map(|ConnectInfo(address)| tracing::field::display(address)),
    )
}

/// Logs an answer. Of readings that went well, clients that poll would fill the log.
fn log(response: &Response, begun: Instant, is_safe: bool, caller: &Caller) {
    const DONE: &str = "finished processing request";
    let status = response.status();
    let is_unremarkable = is_safe && (status.is_success() || status == StatusCode::NOT_MODIFIED);
    let status = status.as_u16();
    let millis = begun.elapsed().as_millis();
    let latency = format_args!("{millis} ms");
    let principal = caller.principal().map(tracing::field::display);
    if is_unremarkable {
        tracing::debug!(status, %latency, principal, "{DONE}");
    } else {
        tracing::info!(status, %latency, principal, "{DONE}");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    ApiError::Inside(words.unwrap_or_else(|| "a panic".to_owned()).into()).into_response()
}

/// Gives every problem the request's identifier, and every bare failure the form of a problem.
fn as_problem(mut response: Response, id: &HeaderValue, named: Option<Named>) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => bare(status),
        None => return response,
    };
    let instance = id.to_str().unwrap_or_default().to_owned();
    let detail = match named {
        Some(named) if matches!(problem.code, Code::NotFound) => named.missing(),
        _ => problem.detail,
    };
    let trace_id = trace::current().map(|trace| trace.id.to_string()).unwrap_or_default();
    let Ok(body) = serde_json::to_vec(&Problem { detail, instance, trace_id, ..problem }) else {
        return response;
    };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.map(|_| Body::from(body))
}

/// The problem for a bare status that a layer or a library answered with.
fn bare(status: StatusCode) -> Problem {
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => (Code::NotFound, "There is nothing here."),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::PayloadTooLarge, "The body is too large."),
        StatusCode::REQUEST_TIMEOUT => (Code::RequestTimeout, "It took too long to arrive."),
        StatusCode::SERVICE_UNAVAILABLE => (Code::Unavailable, "It took too long."),
        status if status.is_client_error() => (Code::MalformedRequest, "It cannot be read."),
        _ => (Code::Internal, "The service could not do this."),
    };
    Problem { status: status.as_u16(), ..ApiError::Because(code, detail.to_owned()).into() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;
    use tower::{ServiceExt as _, service_fn};
    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;

    /// Counts what is logged as an error.
    #[derive(Clone, Default)]
    struct Errors(Arc<AtomicUsize>);

    impl Subscriber for Errors {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::ERROR
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn id() -> HeaderValue {
        HeaderValue::from_static("mine")
    }

    #[test]
    fn an_error_is_logged_once() {
        let errors = Errors::default();
        let _logging = tracing::subscriber::set_default(errors.clone());

        let failed = ApiError::Inside("disk full".into()).into_response();
        let response = as_problem(failed, &id(), None);
        log(&response, Instant::now(), true, &Caller::default());

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(errors.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_words() {
        let panics = service_fn(async |_: Request| {
            assert!(std::env::args().count() > 1_000_000, "inner words");
            Ok::<_, Infallible>(StatusCode::OK.into_response())
        });
        let caught = ServiceBuilder::new()
            .layer(CatchPanicLayer::custom(panicked))
            .service(panics)
            .oneshot(Request::default());
        let response = as_problem(caught.await.unwrap().map(Body::new), &id(), None);

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "internal");
        assert_eq!(problem["instance"], "mine");
        assert!(!problem.to_string().contains("inner words"));
    }

    #[test]
    fn a_strange_request_id_is_replaced() {
        for (given, is_taken) in [("a-1_b.c", true), ("a b\"c", false), ("", false)] {
            let mut request = Request::default();
            request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static(given));
            let id = identified(&mut request);
            assert_eq!(id == given, is_taken, "{given:?}");
            assert!(is_taken || id.len() == 36, "{id:?}");
            assert_eq!(request.headers()[REQUEST_ID], id);
        }
    }
}
