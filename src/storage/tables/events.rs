//! The durable history.
//!
//! What repeats itself raises the count of one event instead of filling the table, as in Kubernetes.
//! Pages go by identifier, and so by when something was first seen; [`super::event_stream`] has the order in which
//! things happened for those who follow along.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::{Database, Encode, FromRow, Postgres, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use super::event_stream::Position;
use crate::domain::event::{Event, Severity};
use crate::domain::id::{CertificateId, EventId};
use crate::domain::scope::Scope;
use crate::domain::trace::TraceId;
use crate::storage::engine::pipeline::{Pipeline, renumbered};
use crate::storage::engine::query::Filter;
use crate::storage::engine::tx::Hook;
use crate::storage::engine::{
    Backend, Page, Read, Rows, StorageError, Tx, millis, moment, statements,
};
use crate::telemetry::trace;

const INTO: &str = "INSERT INTO events
    (id, namespace, collection, resource_id, certificate_id, severity, reason, message, count,
     created_at, last_seen, trace_id, written_in, position)
    SELECT coalesce((SELECT last.id FROM (
             SELECT id, severity, reason, message FROM events WHERE resource_id = new.resource_id
             ORDER BY position DESC LIMIT 1) AS last
             WHERE new.is_first AND last.severity = new.severity AND last.reason = new.reason
               AND last.message = new.message), new.id),
           new.namespace, new.collection, new.resource_id, new.certificate_id, new.severity,
           new.reason, new.message, new.count, new.at, new.at, new.trace_id,
           pg_current_xact_id()::text::bigint, nextval('events_position') FROM (VALUES ";
const ROW: &str = "($1::uuid, $2::text, $3::text, $4::uuid, $5::uuid, $6::text, $7::text, $8::text,
    $9::bigint, $10::bigint, $11::text, $12::boolean)";
const AS_NEW: &str = ") AS new (id, namespace, collection, resource_id, certificate_id, severity, reason,
            message, count, at, trace_id, is_first)
    ON CONFLICT (id) DO UPDATE SET count = events.count + excluded.count,
       last_seen = excluded.last_seen, trace_id = excluded.trace_id, written_in = excluded.written_in, position = excluded.position";

/// Values of each event.
const VALUES: usize = 12;

// What repeats the last event of its resource takes that one's identifier, and so raises its count. On
// PostgreSQL several are written by one statement, which does not see what it writes: only what is the first of
// its resource there can be a repetition.
//
// Where it stands is the transaction, and the next place in it. On SQLite there is one writer, and so one order;
// the newest row is never forgotten, so that no place is given twice.
statements! {
    RECORD writes(events) = "INSERT INTO events
        (id, namespace, collection, resource_id, certificate_id, severity, reason, message, count,
         created_at, last_seen, trace_id, written_in, position)
        VALUES (coalesce((SELECT last.id FROM (
            SELECT id, severity, reason, message FROM events WHERE resource_id = $4
            ORDER BY position DESC LIMIT 1) AS last
            WHERE last.severity = $6 AND last.reason = $7 AND last.message = $8), $1),
         $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, 0,
         coalesce((SELECT position FROM events ORDER BY written_in DESC, position DESC LIMIT 1), 0) + 1)
        ON CONFLICT (id) DO UPDATE SET count = events.count + excluded.count,
           last_seen = excluded.last_seen, trace_id = excluded.trace_id, written_in = excluded.written_in,
           position = excluded.position",
        [INTO, ROW, AS_NEW].concat();
}

pub(in crate::storage) const SELECT: &str =
    "SELECT id, namespace, collection, resource_id, severity, reason, message,
    created_at, last_seen, count, trace_id, written_in, position FROM events";

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Recorded {
    /// Sorts by the time when it was first seen.
    pub id: Uuid,
    /// Of the resource; empty for a `ClusterIssuer`.
    pub namespace: String,
    /// `certificates`, `orders`, ….
    pub collection: String,
    /// The resource within its collection.
    pub resource_id: Uuid,
    /// `Normal` or `Warning`.
    pub severity: String,
    /// cert-manager's word for it.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// How often it happened in a row.
    pub count: i64,
    /// What it happened in, the last time.
    pub trace_id: Option<String>,
    created_at: i64,
    last_seen: i64,
    written_in: i64,
    position: i64,
}

impl Recorded {
    /// When it happened first.
    pub fn first_seen(&self) -> OffsetDateTime {
        moment(self.created_at)
    }

    /// When it happened last.
    pub fn last_seen(&self) -> OffsetDateTime {
        moment(self.last_seen)
    }

    /// Where it stands in the stream.
    pub fn position(&self) -> Position {
        Position { transaction: self.written_in, place: self.position }
    }
}

/// Which events are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// About this resource; for a certificate, about its requests, orders and challenges too.
    pub resource: Option<Uuid>,
    /// Good news or bad.
    pub severity: Option<Severity>,
    /// For this reason.
    pub reason: Option<String>,
    /// Seen from this moment on.
    pub since: Option<OffsetDateTime>,
}

impl Wanted {
    /// For a page by identifier: few are of late, and those are found first.
    fn page_filter(&self, scope: &Scope) -> Filter {
        let mut filter = Filter::within("namespace", scope.namespaces());
        filter.and_if("namespace = ?", self.namespace.as_ref());
        filter.and_if(
            "id IN (SELECT recent.id FROM events AS recent WHERE recent.last_seen >= ?)",
            self.since.map(millis),
        );
        self.narrow(filter)
    }

    /// For a stretch of the stream: it is short, and its index the one to take. The expression keeps
    /// SQLite from reading a whole namespace instead.
    pub(in crate::storage) fn stream_filter(&self, scope: &Scope) -> Filter {
        let mut filter = Filter::within("coalesce(namespace, '')", scope.namespaces());
        filter.and_if("coalesce(namespace, '') = ?", self.namespace.as_ref());
        filter.and_if("last_seen >= ?", self.since.map(millis));
        self.narrow(filter)
    }

    fn narrow(&self, mut filter: Filter) -> Filter {
        filter.and_if("(resource_id = ? OR certificate_id = ?)", self.resource);
        filter.and_if("severity = ?", self.severity.map(Severity::as_str));
        filter.and_if("reason = ?", self.reason.as_ref());
        filter
    }
}

/// The events of a transaction, written as the last of it.
#[derive(Default)]
struct EventLog(Vec<Recording>);

/// An event until it is written.
struct Recording {
    id: Uuid,
    namespace: String,
    certificate: Option<Uuid>,
    event: Event,
    count: i64,
    at: i64,
    trace: Option<TraceId>,
}

/// Records events in the transaction that brings them about. `certificate` is the one that they are listed with.
pub fn record(
    tx: &mut Tx,
    namespace: &str,
    certificate: Option<CertificateId>,
    events: &[Event],
    now: OffsetDateTime,
) {
    if events.is_empty() {
        return;
    }
    tx.records_events();
    // Consecutive identifiers list the events of one moment in the order in which they happened.
    let first = EventId::generate(now).0.as_u128();
    let log = tx.hook::<EventLog>();
    for (id, event) in (first..).map(Uuid::from_u128).zip(events) {
        log.add(Recording {
            id,
            namespace: namespace.to_owned(),
            certificate: certificate.map(|id| id.0),
            event: event.clone(),
            count: 1,
            at: millis(now),
            trace: trace::current().map(|trace| trace.id),
        });
    }
}

impl EventLog {
    /// Adds an event; one that repeats the last of its resource raises that one's count.
    fn add(&mut self, new: Recording) {
        match self.0.iter_mut().rfind(|known| known.event.about == new.event.about) {
            Some(last) if last.event == new.event => {
                last.count += new.count;
                last.at = new.at;
                last.trace = new.trace;
            }
            _ => self.0.push(new),
        }
    }
}

impl Hook for EventLog {
    fn before_commit<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>> {
        async move {
            tx.make_room(&RECORD).await?;
            match &mut tx.on {
                Backend::Sqlite(on) => {
                    for recording in &self.0 {
                        on.pipeline.add(RECORD.statement.sqlite, RECORD.touches, None);
                        recording.bind(&mut on.pipeline)?;
                    }
                }
                Backend::Postgres(on) => write_together(&mut on.pipeline, &self.0)?,
            }
            Ok(())
        }
        .boxed()
    }
}

impl Recording {
    fn bind<D: Database>(&self, pipeline: &mut Pipeline<D>) -> Result<(), sqlx::Error>
    where
        for<'v> Uuid: Encode<'v, D> + Type<D>,
        for<'v> Option<Uuid>: Encode<'v, D> + Type<D>,
        for<'v> Option<String>: Encode<'v, D> + Type<D>,
        for<'v> &'v str: Encode<'v, D> + Type<D>,
        for<'v> i64: Encode<'v, D> + Type<D>,
    {
        let Self { id, namespace, certificate, event, count, at, trace } = self;
        pipeline.bind(*id)?;
        pipeline.bind(namespace.as_str())?;
        pipeline.bind(event.about.collection())?;
        pipeline.bind(event.about.id())?;
        pipeline.bind(*certificate)?;
        pipeline.bind(event.severity.as_str())?;
        pipeline.bind(event.reason)?;
        pipeline.bind(event.message.as_str())?;
        pipeline.bind(*count)?;
        pipeline.bind(*at)?;
        pipeline.bind(trace.as_ref().map(TraceId::to_string))
    }
}

/// Adds one statement for all of them.
fn write_together(
    pipeline: &mut Pipeline<Postgres>,
    events: &[Recording],
) -> Result<(), sqlx::Error> {
    // One row each and no arrays: PostgreSQL does not know an array's length and would plan each time anew.
    let rows: Vec<_> = (0..events.len()).map(|n| renumbered(ROW, n * VALUES)).collect();
    let text = [INTO, &rows.join(", "), AS_NEW].concat();
    pipeline.add(&text, RECORD.touches, None);
    for (place, one) in events.iter().enumerate() {
        let is_first = events[..place].iter().all(|before| before.event.about != one.event.about);
        one.bind(pipeline)?;
        pipeline.bind(is_first)?;
    }
    Ok(())
}

/// A page of events, by when they were first seen.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Recorded>, StorageError> {
    wanted.page_filter(scope).page(read, SELECT, "id", page).await
}
