//! The durable history.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::filter::{Filter, Value};
use super::{Page, Scope, StorageError, Tx, execute, millis, moment, statements};
use crate::domain::event::Event;
use crate::domain::id::{CertificateId, EventId};

statements! {
    INSERT = "INSERT INTO events
        (id, namespace, collection, resource_id, certificate_id, severity, reason, message, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
}

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Recorded {
    /// Sorts by time.
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
    created_at: i64,
}

impl Recorded {
    /// When it happened.
    pub fn at(&self) -> OffsetDateTime {
        moment(self.created_at)
    }
}

/// Which events are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// About this resource; for a certificate, about its requests, orders and challenges too.
    pub resource: Option<Uuid>,
    /// From this moment on.
    pub since: Option<OffsetDateTime>,
}

/// Adds what happened, in the transaction in which it did. `certificate` is whose story it belongs to.
pub async fn record(
    tx: &mut Tx,
    namespace: &str,
    certificate: Option<CertificateId>,
    events: &[Event],
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    // Consecutive, so that what happened at one moment is listed in the order in which it did.
    let first = EventId::generate(now).0.as_u128();
    for (id, event) in (first..).zip(events) {
        execute!(
            tx,
            INSERT,
            Uuid::from_u128(id),
            namespace,
            event.about.collection(),
            event.about.id(),
            certificate.map(|id| id.0),
            event.severity.as_str(),
            event.reason,
            event.message.as_str(),
            millis(now),
        )?;
    }
    Ok(())
}

/// A page of events.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Vec<Recorded>, StorageError> {
    let mut filter = Filter::default();
    filter.within("namespace", scope);
    if let Some(namespace) = &wanted.namespace {
        filter.and("namespace = ?", Value::Text(namespace.clone()));
    }
    if let Some(resource) = wanted.resource {
        filter.and("(resource_id = ? OR certificate_id = ?)", Value::Id(resource));
    }
    if let Some(since) = wanted.since {
        filter.and("created_at >= ?", Value::Integer(millis(since)));
    }
    let select = "SELECT id, namespace, collection, resource_id, severity, reason, message, created_at FROM events";
    filter.page(tx, select, "id", page).await
}
