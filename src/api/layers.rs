//! The layers around all routes.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_http::ServiceBuilderExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::MakeRequestUuid;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use super::by_name::{Named, refuse_unresolved};
use super::compression::{coded, compressing};
use super::extract::MOST_BYTES;
use super::headers::{KEYSTORE_PASSWORD, REQUEST_ID};
use super::problem::{ApiError, Code, Problem};
use super::traced::traced;
use super::{head, wait};
use crate::telemetry::metrics::calls as metrics;
use crate::telemetry::trace;

/// Longer than the longest wait that a client may ask for.
const TIMEOUT: Duration = Duration::from_secs(wait::LONGEST + 30);

/// Puts the layers around the routes; the first one here is the first to see a request.
pub(crate) fn around(routes: Router) -> Router {
    let layers = ServiceBuilder::new()
        .map_request(without_strange_id)
        .set_request_id(REQUEST_ID, MakeRequestUuid)
        .sensitive_headers([header::AUTHORIZATION, header::COOKIE, KEYSTORE_PASSWORD])
        .layer(from_fn(traced))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_response(log).on_failure(()))
        .layer(from_fn(counted))
        .propagate_request_id(REQUEST_ID)
        .map_response(guarded)
        .layer(from_fn(coded))
        .layer(compressing())
        .layer(from_fn(as_problem))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(for_one_host))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .layer(from_fn(head::check_head))
        .layer(from_fn(refuse_unresolved));
    routes
        .fallback(async || ApiError::Because(Code::NotFound, "There is nothing here.".into()))
        .method_not_allowed_fallback(async || {
            let detail = "The `Allow` header names the methods that it understands.";
            ApiError::Because(Code::MethodNotAllowed, detail.into())
        })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(layers)
}

/// Counts requests, by the route that is ours: what clients write instead of it is no label.
async fn counted(request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics::http(method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// Drops a request id that could do harm in a log.
fn without_strange_id(mut request: Request) -> Request {
    let harmless = |id: &HeaderValue| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        id.len() <= 128 && !id.is_empty() && id.as_bytes().iter().all(allowed)
    };
    if !request.headers().get(&REQUEST_ID).is_some_and(harmless) {
        request.headers_mut().remove(&REQUEST_ID);
    }
    request
}

/// Adds headers that forbid browsers and caches everything, unless the answer has them. An answer
/// with an `ETag` may be kept by its reader, who has to revalidate it each time.
fn guarded(mut response: Response) -> Response {
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
    response
}

/// Refuses requests with no or several hosts: a proxy in front may have used another one (RFC 9112,
/// section 3.2). HTTP/2 has `:authority` instead.
async fn for_one_host(request: Request, next: Next) -> Response {
    if names_one_host(&request) {
        return next.run(request).await;
    }
    let detail = "Send exactly one `Host` header.";
    ApiError::Because(Code::MalformedRequest, detail.to_owned()).into_response()
}

/// True if there is one `Host` header, or none where the version of HTTP needs none.
pub(crate) fn names_one_host(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() != Version::HTTP_11)
}

/// The span leaves out the query, which may hold a secret by mistake. The principal is written into it once it is
/// known.
fn span(request: &Request) -> tracing::Span {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        id = id_of(request).unwrap_or_default(),
        from = from.map(|ConnectInfo(address)| tracing::field::display(address)),
        principal = tracing::field::Empty,
    )
}

/// A reading that went well: clients that poll would fill the log with them.
#[derive(Debug, Clone, Copy)]
struct Unremarkable;

fn log(response: &Response, latency: Duration, _: &tracing::Span) {
    let (status, millis) = (response.status().as_u16(), latency.as_millis());
    if response.extensions().get::<Unremarkable>().is_some() {
        tracing::debug!(status, latency = %format_args!("{millis} ms"), "finished processing request");
    } else {
        tracing::info!(status, latency = %format_args!("{millis} ms"), "finished processing request");
    }
}

fn id_of(request: &Request) -> Option<&str> {
    request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok())
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
async fn as_problem(request: Request, next: Next) -> Response {
    let id = request.headers().get(&REQUEST_ID).cloned();
    let is_safe = request.method().is_safe();
    let named = request.extensions().get::<Named>().cloned();
    let mut response = next.run(request).await;
    let status = response.status();
    if is_safe && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
        response.extensions_mut().insert(Unremarkable);
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if status.is_client_error() || status.is_server_error() => bare(status),
        None => return response,
    };
    let instance = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
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

    #[tokio::test]
    async fn an_error_is_logged_once() {
        let errors = Errors::default();
        let _logging = tracing::subscriber::set_default(errors.clone());
        let fails = async || Err::<(), _>(ApiError::Inside("disk full".into()));
        let request = Request::get("/").header("host", "here").body(Body::empty()).unwrap();

        let routes = Router::new().route("/", get(fails));
        let response = around(routes).oneshot(request).await.unwrap();

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(errors.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_words() {
        let routes = Router::new().route(
            "/",
            get(async || {
                assert!(std::env::args().count() > 1_000_000, "inner words");
            }),
        );
        let request = Request::get("/").header("host", "here").header("x-request-id", "mine");
        let request = request.body(Body::empty()).unwrap();
        let response = around(routes).oneshot(request).await.unwrap();

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "internal");
        assert_eq!(problem["instance"], "mine");
        assert!(!problem.to_string().contains("inner words"));
    }

    #[tokio::test]
    async fn a_strange_request_id_is_replaced() {
        let request = Request::get("/none").header("x-request-id", "a b\"c").body(Body::empty());
        let response = around(Router::new()).oneshot(request.unwrap()).await.unwrap();

        assert_eq!(response.headers()["x-request-id"].len(), 36);
    }
}
