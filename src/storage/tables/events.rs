//! The durable history.
//!
//! What repeats itself raises the count of one event instead of filling the table, as in Kubernetes.
//! Pages go by identifier, and so by when something was first seen; [`super::event_stream`] has the order in which
//! things happened for those who follow along.

use sqlx::{FromRow, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use super::event_stream::Position;
use crate::domain::event::{Event, Severity};
use crate::domain::id::{CertificateId, EventId};
use crate::domain::scope::Scope;
use crate::storage::engine::pipeline::{Later, renumbered};
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{Inner, Page, Statement, StorageError, Tx, millis, moment};

/// The transaction, and the next place in it. On SQLite there is one writer, and so one order; the
/// newest row is never forgotten, so that no place is given twice.
macro_rules! written_in {
    (sqlite) => {
        "0"
    };
    (postgres) => {
        "pg_current_xact_id()::text::bigint"
    };
}
macro_rules! position {
    (sqlite) => {
        "coalesce((SELECT position FROM events ORDER BY written_in DESC, position DESC LIMIT 1), 0) + 1"
    };
    (postgres) => {
        "nextval('events_position')"
    };
}

macro_rules! into {
    () => {
        concat!(
            "INSERT INTO events
             (id, namespace, collection, resource_id, certificate_id, severity, reason, message, count,
              created_at, last_seen, written_in, position)
             SELECT coalesce((SELECT last.id FROM (
                      SELECT id, severity, reason, message FROM events WHERE resource_id = new.resource_id
                      ORDER BY position DESC LIMIT 1) AS last
                      WHERE new.is_first AND last.severity = new.severity AND last.reason = new.reason
                        AND last.message = new.message), new.id),
                    new.namespace, new.collection, new.resource_id, new.certificate_id, new.severity,
                    new.reason, new.message, new.count, new.at, new.at, ",
            written_in!(postgres),
            ", ",
            position!(postgres),
            " FROM (VALUES "
        )
    };
}
macro_rules! row {
    () => {
        "($1::uuid, $2::text, $3::text, $4::uuid, $5::uuid, $6::text, $7::text, $8::text, $9::bigint,
          $10::bigint, $11::boolean)"
    };
}
macro_rules! as_new {
    () => {
        ") AS new (id, namespace, collection, resource_id, certificate_id, severity, reason, message,
                   count, at, is_first)
         ON CONFLICT (id) DO UPDATE SET count = events.count + excluded.count,
            last_seen = excluded.last_seen, written_in = excluded.written_in,
            position = excluded.position"
    };
}

/// Values of each event.
const VALUES: usize = 11;

// What repeats the last event of its resource takes that one's identifier, and so raises its count. On
// PostgreSQL several are written by one statement, which does not see what it writes: only what is the first of
// its resource there can be a repetition.
const RECORD: Statement = Statement {
    name: "events::RECORD",
    sqlite: concat!(
        "INSERT INTO events
         (id, namespace, collection, resource_id, certificate_id, severity, reason, message,
          created_at, last_seen, written_in, position)
         VALUES (coalesce((SELECT last.id FROM (
             SELECT id, severity, reason, message FROM events WHERE resource_id = $4
             ORDER BY position DESC LIMIT 1) AS last
             WHERE last.severity = $6 AND last.reason = $7 AND last.message = $8), $1),
          $2, $3, $4, $5, $6, $7, $8, $9, $9, ",
        written_in!(sqlite),
        ", ",
        position!(sqlite),
        ") ON CONFLICT (id) DO UPDATE SET count = events.count + 1,
           last_seen = excluded.last_seen, written_in = excluded.written_in,
           position = excluded.position"
    ),
    postgres: concat!(into!(), row!(), as_new!()),
};

/// Every statement of this module.
pub(in crate::storage) const ALL: &[Statement] = &[RECORD];

pub(in crate::storage) const SELECT: &str =
    "SELECT id, namespace, collection, resource_id, severity, reason, message,
    created_at, last_seen, count, written_in, position FROM events";

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
        let mut filter = Filter::default();
        filter.within("namespace", scope);
        if let Some(namespace) = &self.namespace {
            filter.and("namespace = ?", Value::Text(namespace.clone()));
        }
        if let Some(since) = self.since {
            let of_late =
                "id IN (SELECT recent.id FROM events AS recent WHERE recent.last_seen >= ?)";
            filter.and(of_late, Value::Integer(millis(since)));
        }
        self.narrow(filter)
    }

    /// For a stretch of the stream: it is short, and its index the one to take. The expression keeps
    /// SQLite from reading a whole namespace instead.
    pub(in crate::storage) fn stream_filter(&self, scope: &Scope) -> Filter {
        let mut filter = Filter::default();
        filter.within("coalesce(namespace, '')", scope);
        if let Some(namespace) = &self.namespace {
            filter.and("coalesce(namespace, '') = ?", Value::Text(namespace.clone()));
        }
        if let Some(since) = self.since {
            filter.and("last_seen >= ?", Value::Integer(millis(since)));
        }
        self.narrow(filter)
    }

    fn narrow(&self, mut filter: Filter) -> Filter {
        if let Some(resource) = self.resource {
            filter.and("(resource_id = ? OR certificate_id = ?)", Value::Id(resource));
        }
        if let Some(severity) = self.severity {
            filter.and("severity = ?", Value::Text(severity.as_str().to_owned()));
        }
        if let Some(reason) = &self.reason {
            filter.and("reason = ?", Value::Text(reason.clone()));
        }
        filter
    }
}

/// An event that is written with others.
pub(in crate::storage) struct Happened {
    id: Uuid,
    namespace: String,
    certificate: Option<Uuid>,
    event: Event,
    count: i64,
    at: i64,
}

/// Adds what happened, in the transaction in which it did. `certificate` is whose story it belongs to.
pub fn record(
    tx: &mut Tx,
    namespace: &str,
    certificate: Option<CertificateId>,
    events: &[Event],
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    if events.is_empty() {
        return Ok(());
    }
    tx.something_happened();
    // Consecutive, so that what happened at one moment is listed in the order in which it did.
    let first = EventId::generate(now).0.as_u128();
    let ids = (first..).map(Uuid::from_u128);
    let (certificate, at) = (certificate.map(|id| id.0), millis(now));
    match &mut tx.inner {
        Inner::Sqlite(on) => {
            for (id, event) in ids.zip(events) {
                on.later.add(RECORD.sqlite);
                on.later.bind(id)?;
                on.later.bind(namespace)?;
                on.later.bind(event.about.collection())?;
                on.later.bind(event.about.id())?;
                on.later.bind(certificate)?;
                on.later.bind(event.severity.as_str())?;
                on.later.bind(event.reason)?;
                on.later.bind(event.message.as_str())?;
                on.later.bind(at)?;
            }
        }
        Inner::Postgres(on) => {
            for (id, event) in ids.zip(events) {
                happen(
                    &mut on.happened,
                    Happened {
                        id,
                        namespace: namespace.to_owned(),
                        certificate,
                        event: event.clone(),
                        count: 1,
                        at,
                    },
                );
            }
        }
    }
    Ok(())
}

/// Adds one more; what repeats the last one of its resource raises its count.
fn happen(happened: &mut Vec<Happened>, new: Happened) {
    match happened.iter_mut().rfind(|known| known.event.about == new.event.about) {
        Some(last) if last.event == new.event => {
            last.count += 1;
            last.at = new.at;
        }
        _ => happened.push(new),
    }
}

/// Adds the statement that writes all of these.
pub(in crate::storage) fn write(
    later: &mut Later<Postgres>,
    happened: &[Happened],
) -> Result<(), sqlx::Error> {
    if happened.is_empty() {
        return Ok(());
    }
    // A row each and no arrays, of whose length the planner knows nothing: it would plan each time anew.
    let rows: Vec<_> = (0..happened.len()).map(|n| renumbered(row!(), n * VALUES)).collect();
    later.add(&[into!(), &rows.join(", "), as_new!()].concat());
    for (place, one) in happened.iter().enumerate() {
        let Happened { id, namespace, certificate, event, count, at } = one;
        let is_first = happened[..place].iter().all(|before| before.event.about != event.about);
        later.bind(*id)?;
        later.bind(namespace.as_str())?;
        later.bind(event.about.collection())?;
        later.bind(event.about.id())?;
        later.bind(*certificate)?;
        later.bind(event.severity.as_str())?;
        later.bind(event.reason)?;
        later.bind(event.message.as_str())?;
        later.bind(*count)?;
        later.bind(*at)?;
        later.bind(is_first)?;
    }
    Ok(())
}

/// A page of events, by when they were first seen.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Vec<Recorded>, StorageError> {
    wanted.page_filter(scope).page(tx, SELECT, "id", page).await
}
