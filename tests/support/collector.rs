//! A collector of traces: a real HTTP server on loopback that takes OTLP (`http/protobuf`) and keeps the spans.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::patience::until;

pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    /// The status of every answer.
    answers: Mutex<u16>,
    spans: Mutex<Vec<Collected>>,
    /// Heads and bodies as they came.
    raw: Mutex<Vec<u8>>,
    headers: Mutex<HeaderMap>,
}

/// A span that came.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Hexadecimal, like the spans' names.
    pub trace: String,
    pub id: String,
    /// Empty for the first of a trace.
    pub parent: String,
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub fields: HashMap<String, String>,
    pub has_failed: bool,
    /// What the sender says of itself.
    pub sender: HashMap<String, String>,
}

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answers: Mutex::new(200),
            spans: Mutex::default(),
            raw: Mutex::default(),
            headers: Mutex::default(),
        });
        let router = Router::new().route("/v1/traces", post(take)).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers so from now on; it keeps only what it takes with 200.
    pub fn answers(&self, status: u16) {
        *self.shared.answers.lock().unwrap() = status;
    }

    pub fn spans(&self) -> Vec<Collected> {
        self.shared.spans.lock().unwrap().clone()
    }

    pub fn of_trace(&self, trace: &str) -> Vec<Collected> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// Until what came is as it is expected; all of it.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Collected]) -> bool) -> Vec<Collected> {
        until(what, async || holds(&self.spans())).await;
        self.spans()
    }

    /// Everything that was sent, byte for byte.
    pub fn raw(&self) -> Vec<u8> {
        self.shared.raw.lock().unwrap().clone()
    }

    /// The head of the last request.
    pub fn headers(&self) -> HeaderMap {
        self.shared.headers.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collected {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let status = StatusCode::from_u16(*shared.answers.lock().unwrap()).unwrap();
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    *shared.headers.lock().unwrap() = headers;
    if status != StatusCode::OK {
        return (status, Vec::new());
    }
    shared.raw.lock().unwrap().extend_from_slice(&body);
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut spans = shared.spans.lock().unwrap();
    for group in request.resource_spans {
        let sender = group.resource.map(|it| fields(it.attributes)).unwrap_or_default();
        let of_scopes = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_scopes.map(|span| collected(span, &sender)));
    }
    (status, ExportTraceServiceResponse::default().encode_to_vec())
}

fn collected(span: Span, sender: &HashMap<String, String>) -> Collected {
    Collected {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        fields: fields(span.attributes),
        has_failed: span.status.is_some_and(|status| status.code == 2),
        sender: sender.clone(),
    }
}

fn fields(pairs: Vec<KeyValue>) -> HashMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("a field is a text or a number: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
