//! Traces: what the present task belongs to, and the spans that are sent to a collector.
//!
//! The trace is the task's, like the log and the metrics it is not handed around. It stands on the rows that are
//! issued in it, in their events, in the log and in problems, whether or not anybody collects spans, and at every
//! level of the log; so it is no span of `tracing`, which a filter takes away. A span is sent when it is dropped.

mod current;
pub mod order;
#[cfg(feature = "otel")]
mod otlp;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use url::Url;

pub use self::current::{as_of, current, enter, within};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::trace::{SpanId, Trace};

/// Where spans go; nowhere unless it is configured.
static COLLECTOR: OnceLock<Collector> = OnceLock::new();

struct Collector {
    clock: Arc<dyn Clock>,
    replica: String,
    sample_ratio: f64,
    send: Box<dyn Fn(Ended) + Send + Sync>,
}

/// A span that is over.
#[derive(Debug)]
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "nobody is there to send it to"))]
struct Ended {
    trace: Trace,
    parent: Option<SpanId>,
    kind: Kind,
    name: Cow<'static, str>,
    begun: OffsetDateTime,
    took: Duration,
    fields: Vec<(&'static str, Value)>,
    failed: Option<String>,
}

/// What a span is, seen from this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answers somebody's request.
    Server,
    /// It asks somebody else.
    Client,
    /// Neither.
    Internal,
}

/// The value of a span's field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

/// Something that takes time, from its making until it is dropped. It costs next to nothing where it is not sent.
#[must_use]
pub struct Span {
    /// Its own place in the trace.
    trace: Trace,
    /// `None` where it is not sent.
    record: Option<Box<Record>>,
}

struct Record {
    ended: Ended,
    begun: Instant,
    collector: &'static Collector,
}

/// What sends spans until the service stops.
#[derive(Default)]
pub struct Exporter {
    #[cfg(feature = "otel")]
    sending: Option<otlp::Sending>,
}

impl Exporter {
    /// Sends what has not been sent yet, for a few seconds at most.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_async, reason = "nothing is sent"))]
    pub async fn flush(self) {
        #[cfg(feature = "otel")]
        if let Some(sending) = self.sending {
            sending.flush().await;
        }
    }
}

/// Sends spans to the collector that is configured, if there is one, under the name of this replica.
///
/// # Errors
/// When the settings cannot be used; the message says why.
#[cfg_attr(not(feature = "otel"), expect(unused_variables, reason = "nothing can be sent"))]
pub fn start(config: &Config, replica: &str, clock: &Arc<dyn Clock>) -> Result<Exporter, String> {
    #[cfg(feature = "otel")]
    if let Some(settings) = &config.otlp {
        let (send, sending) = otlp::start(settings, replica)?;
        let (clock, replica) = (Arc::clone(clock), replica.to_owned());
        let (sample_ratio, send) = (settings.sample_ratio, Box::new(send));
        // A second start, as tests may make it, keeps the first collector.
        COLLECTOR.set(Collector { clock, replica, sample_ratio, send }).ok();
        return Ok(Exporter { sending: Some(sending) });
    }
    Ok(Exporter::default())
}

/// Whether spans are sent to anybody.
fn is_collecting() -> bool {
    COLLECTOR.get().is_some()
}

/// A new trace with the name of its first span, sampled as it is configured.
pub fn begin() -> Trace {
    Trace::begin(COLLECTOR.get().map_or(0.0, |collector| collector.sample_ratio))
}

impl Span {
    /// A span below what the task is doing; `None` where that belongs to no trace.
    pub fn here(kind: Kind, name: impl Into<Cow<'static, str>>) -> Option<Self> {
        current().map(|parent| Self::below(parent, kind, name))
    }

    /// A span below this one.
    pub fn below(parent: Trace, kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        Self::new(parent.at(SpanId::random()), Some(parent.span), kind, name.into())
    }

    /// The span at this place of a trace, below `parent`; without one it is the trace's first.
    pub fn at(
        trace: Trace,
        parent: Option<SpanId>,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(trace, parent, kind, name.into())
    }

    fn new(trace: Trace, parent: Option<SpanId>, kind: Kind, name: Cow<'static, str>) -> Self {
        let record = COLLECTOR.get().filter(|_| trace.is_sampled).map(|collector| {
            let begun = collector.clock.now();
            let (took, fields, failed) = (Duration::ZERO, Vec::new(), None);
            let ended = Ended { trace, parent, kind, name, begun, took, fields, failed };
            Box::new(Record { ended, begun: Instant::now(), collector })
        });
        Self { trace, record }
    }

    /// A place in a trace whose span is not worth sending.
    pub fn unsent(trace: Trace) -> Self {
        Self { trace, record: None }
    }

    /// Names it anew; the name is made only if it is sent.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.ended.name = name().into();
        }
    }

    /// Its place in the trace, for what is done below it.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Adds a field. Its value is made only if it is sent; it must hold no secret.
    pub fn set<V: Into<Value>>(&mut self, field: &'static str, value: impl FnOnce() -> V) {
        if let Some(record) = &mut self.record {
            record.ended.fields.push((field, value().into()));
        }
    }

    /// Says which replica it is of.
    pub fn names_replica(&mut self) {
        if let Some(record) = &mut self.record {
            let replica = record.collector.replica.clone();
            record.ended.fields.push(("certwright.replica", replica.into()));
        }
    }

    /// It did not succeed, for this reason.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.ended.failed = Some(why());
        }
    }

    /// It asks there by HTTP.
    pub fn asks(&mut self, method: &str, url: &Url) {
        self.set("http.request.method", || method.to_owned());
        self.set("server.address", || url.host_str().unwrap_or_default().to_owned());
    }

    /// It was answered with this HTTP status; `None` if it was not.
    pub fn answered(&mut self, status: Option<u16>) {
        match status {
            Some(status) => self.set("http.response.status_code", || status),
            None => self.fail(|| "no answer".to_owned()),
        }
    }

    /// It began at this moment, perhaps in another process.
    pub fn begun_at(&mut self, moment: OffsetDateTime) {
        if let Some(record) = &mut self.record {
            let before = record.ended.begun - moment;
            record.ended.begun = moment;
            record.ended.took = before.try_into().unwrap_or_default();
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            let Record { mut ended, begun, collector } = *record;
            ended.took += begun.elapsed();
            (collector.send)(ended);
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}
