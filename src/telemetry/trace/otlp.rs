//! Sends spans by OTLP, `http/protobuf`.
//!
//! Whoever ends a span puts it into a queue and goes on. When the collector is away, the queue keeps what fits and the
//! rest is lost: the log says so once, and once more when it is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Ended, Kind, Value};
use crate::config::Otlp;

/// Spans that wait to be sent; about 1 KiB each.
const MOST_WAITING: usize = 8_192;

/// Spans in one request.
const TOGETHER: usize = 512;

/// How long a span waits for others at most.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Pauses between the attempts to send the same spans; after the last one they are lost.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How long a stop waits for the last spans.
const FLUSH: Duration = Duration::from_secs(3);

/// The task that sends.
pub(super) struct Sending {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sending {
    pub(super) async fn flush(self) {
        self.stop.cancel();
        if timeout(FLUSH, self.task).await.is_err() {
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

/// Starts sending. What is returned takes spans, and never waits.
pub(super) fn start(
    settings: &Otlp,
    replica: &str,
) -> Result<(impl Fn(Ended) + Send + Sync + use<>, Sending), String> {
    let exporter = exporter(settings, replica).map_err(|why| format!("telemetry.otlp: {why}"))?;
    let (sender, queue) = mpsc::channel(MOST_WAITING);
    let (stop, lost) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (stopped, counted) = (stop.clone(), Arc::clone(&lost));
    let sends = Sends { exporter, queue, stop: stopped, is_away: false, lost: counted };
    let task = tokio::spawn(sends.run());
    let send = move |ended| {
        if sender.try_send(ended).is_err() {
            lost.fetch_add(1, Relaxed);
        }
    };
    Ok((send, Sending { stop, task }))
}

fn exporter(settings: &Otlp, replica: &str) -> Result<SpanExporter, String> {
    // What is sent along may be a credential: it goes nowhere else.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.timeout(ANSWER).build().map_err(|error| error.to_string())?;
    let headers: HashMap<_, _> = settings
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().clone()))
        .collect();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(http)
        .with_endpoint(settings.endpoint.as_str())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(ANSWER)
        .with_headers(headers)
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "certwright"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

struct Sends {
    exporter: SpanExporter,
    queue: Receiver<Ended>,
    stop: CancellationToken,
    is_away: bool,
    /// Spans that nobody will see, since the collector took some last.
    lost: Arc<AtomicUsize>,
}

impl Sends {
    async fn run(mut self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    /// The spans of the next request; none once the service stops and everything is sent.
    async fn gather(&mut self) -> Vec<Ended> {
        let mut batch = Vec::new();
        tokio::select! {
            _ = self.queue.recv_many(&mut batch, TOGETHER) => {}
            () = self.stop.cancelled() => {}
        }
        let until = Instant::now() + GATHER;
        while batch.len() < TOGETHER {
            if self.stop.is_cancelled() {
                match self.queue.try_recv() {
                    Ok(ended) => batch.push(ended),
                    Err(_) => break,
                }
                continue;
            }
            let next = tokio::select! {
                next = timeout_at(until, self.queue.recv()) => next,
                () = self.stop.cancelled() => continue,
            };
            match next {
                Ok(Some(ended)) => batch.push(ended),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    async fn send(&mut self, batch: Vec<Ended>) {
        let spans: Vec<_> = batch.into_iter().map(data).collect();
        for pause in PAUSES.map(Some).into_iter().chain([None]) {
            let Err(error) = self.exporter.export(spans.clone()).await else {
                self.is_back();
                return;
            };
            if !self.is_away {
                self.is_away = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the collector takes no spans; they are lost when it stays away"
                );
            }
            let Some(pause) = pause.filter(|_| !self.stop.is_cancelled()) else { break };
            timeout(pause, self.stop.cancelled()).await.ok();
        }
        self.lost.fetch_add(spans.len(), Relaxed);
    }

    fn is_back(&mut self) {
        let lost = self.lost.swap(0, Relaxed);
        if std::mem::take(&mut self.is_away) {
            tracing::info!(lost, "the collector takes spans again");
        }
    }
}

fn data(ended: Ended) -> SpanData {
    let Ended { trace, parent, kind, name, begun, took, fields, failed } = ended;
    let start_time = SystemTime::from(begun);
    SpanData {
        span_context: SpanContext::new(
            u128::from(trace.id).into(),
            u64::from(trace.span).into(),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: parent.map_or(0, u64::from).into(),
        parent_span_is_remote: false,
        span_kind: match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name,
        start_time,
        end_time: start_time + took,
        attributes: fields
            .into_iter()
            .map(|(field, value)| match value {
                Value::Text(text) => KeyValue::new(field, text),
                Value::Number(number) => KeyValue::new(field, number),
            })
            .collect(),
        dropped_attributes_count: 0,
        events: opentelemetry_sdk::trace::SpanEvents::default(),
        links: opentelemetry_sdk::trace::SpanLinks::default(),
        status: failed.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("certwright").build(),
    }
}
