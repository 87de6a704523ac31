//! What of the history is forgotten.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::storage::Db;
use crate::storage::engine::{StorageError, execute, fetch, millis, statements};

/// So many events are looked at in one transaction.
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
