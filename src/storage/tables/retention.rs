//! What of the history is forgotten.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::storage::Db;
use crate::storage::engine::{Change, Query, StorageError, execute, fetch, millis, statements};

/// So many rows are looked at in one transaction.
const BATCH: i64 = 500;

statements! {
    OLD = "SELECT last_seen, id FROM events
        WHERE (last_seen, id) > ($1, $2) AND last_seen < $3 ORDER BY last_seen, id LIMIT $4";
    // The newest event of all keeps the places from being given again.
    FORGET writes(events) reads(issuers, certificates, orders) = "DELETE FROM events
        WHERE (last_seen, id) > ($1, $2) AND (last_seen, id) <= ($3, $4)
        AND id <> (SELECT id FROM events ORDER BY written_in DESC, position DESC LIMIT 1)
        AND (EXISTS (SELECT 1 FROM events AS later WHERE later.resource_id = events.resource_id
                     AND later.position > events.position)
             OR NOT (EXISTS (SELECT 1 FROM certificates WHERE certificates.id = events.resource_id)
                  OR EXISTS (SELECT 1 FROM issuers WHERE issuers.id = events.resource_id)
                  OR EXISTS (SELECT 1 FROM orders WHERE orders.id = events.resource_id
                             AND orders.next_action_at IS NOT NULL)))";
    OLD_ORDERS = of_age("orders");
    OLD_REQUESTS = of_age("requests");
    OLD_REVOCATIONS = of_age("revocations");
    FORGET_ORDERS writes(orders, challenges, reservations) reads(certificates) = "DELETE FROM orders
        WHERE id > $1 AND id <= $2 AND created_at < $3 AND next_action_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM certificates WHERE certificates.id = orders.certificate_id
                        AND certificates.order_id = orders.id)";
    // A revision's key is sealed for its request.
    FORGET_REQUESTS writes(requests) reads(certificates, revisions) = "DELETE FROM requests
        WHERE id > $1 AND id <= $2 AND created_at < $3
        AND NOT EXISTS (SELECT 1 FROM revisions WHERE revisions.certificate_id = requests.certificate_id
                        AND revisions.request_id = requests.id)
        AND NOT EXISTS (SELECT 1 FROM certificates WHERE certificates.id = requests.certificate_id
                        AND (certificates.request_id = requests.id OR certificates.order_id = requests.order_id))";
    FORGET_REVOCATIONS writes(revocations) = "DELETE FROM revocations
        WHERE id > $1 AND id <= $2 AND created_at < $3 AND next_action_at IS NULL";
}

/// The rows of a table from before a moment, by identifier.
fn of_age(table: &str) -> String {
    format!("SELECT id FROM {table} WHERE id > $1 AND created_at < $2 ORDER BY id LIMIT $3")
}

/// Forgets orders with their challenges, requests and revocations that are over and are older than `cutoff`, but for the
/// last order and request of each certificate and those of its revisions; says how many rows that were.
pub async fn forget_issuance(db: &Db, cutoff: OffsetDateTime) -> Result<u64, StorageError> {
    let requests = forget_of_age(db, &OLD_REQUESTS, &FORGET_REQUESTS, cutoff).await?;
    let orders = forget_of_age(db, &OLD_ORDERS, &FORGET_ORDERS, cutoff).await?;
    let revocations = forget_of_age(db, &OLD_REVOCATIONS, &FORGET_REVOCATIONS, cutoff).await?;
    Ok(requests + orders + revocations)
}

async fn forget_of_age(
    db: &Db,
    old: &Query,
    forget: &Change,
    cutoff: OffsetDateTime,
) -> Result<u64, StorageError> {
    let (mut seen, cutoff) = (Uuid::nil(), millis(cutoff));
    let mut forgotten = 0;
    loop {
        let mut read = db.read().await?;
        let batch: Vec<(Uuid,)> = fetch!(fetch_all, read, *old, seen, cutoff, BATCH)?;
        drop(read);
        let Some((last,)) = batch.last().copied() else { return Ok(forgotten) };
        let mut tx = db.begin();
        forgotten += execute!(tx, *forget, seen, last, cutoff)?;
        tx.commit().await?;
        seen = last;
    }
}

/// Forgets what was last seen before `cutoff`, and says how much that was.
///
/// The last event about what is still there (a certificate, an issuer, an order under way) stays,
/// however old: it says how things came to be as they are.
pub async fn forget(db: &Db, cutoff: OffsetDateTime) -> Result<u64, StorageError> {
    let (mut seen, mut id) = (i64::MIN, Uuid::nil());
    let mut forgotten = 0;
    loop {
        let mut tx = db.read().await?;
        let batch: Vec<(i64, Uuid)> = fetch!(fetch_all, tx, OLD, seen, id, millis(cutoff), BATCH)?;
        drop(tx);
        let Some((last_seen, last)) = batch.last().copied() else { return Ok(forgotten) };
        let mut tx = db.begin();
        forgotten += execute!(tx, FORGET, seen, id, last_seen, last)?;
        tx.commit().await?;
        (seen, id) = (last_seen, last);
    }
}
