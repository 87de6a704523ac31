//! Tickets for streams of events: each opens one, once, for the principal that asked for it. Only the SHA-256 of a
//! ticket is kept. Each row has a MAC over all that it says, so that nobody is let in by a row of their own.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit;
use crate::domain::event_ticket::{EventTicket, Holder};
use crate::domain::id::EventTicketId;
use crate::storage::engine::{
    StorageError, Stored, Tx, execute, fetch_changed, json, millis, moment, statements,
};

statements! {
    INSERT adds(event_tickets) = "INSERT INTO event_tickets (id, hash, holder, expires_at, mac) VALUES ($1, $2, $3, $4, $5)";
    TAKE writes(event_tickets) = "DELETE FROM event_tickets WHERE hash = $1 RETURNING id, holder, expires_at, mac";
    FORGET writes(event_tickets) = "DELETE FROM event_tickets WHERE expires_at <= $1";
}

/// Adds a ticket whose text has this hash.
pub async fn insert(tx: &mut Tx, ticket: &EventTicket, hash: &[u8]) -> Result<(), StorageError> {
    let row = Row {
        id: ticket.id.0,
        holder: json(&ticket.holder),
        expires_at: millis(ticket.expires_at),
        mac: Vec::new(),
    };
    let mac = tx.sign(&row.text(hash))?;
    audit::changes(tx, "events", row.id, "");
    execute!(tx, INSERT, row.id, hash, row.holder, row.expires_at, mac)?;
    Ok(())
}

/// Takes away the ticket with this hash, if it is there: whoever commits first has used it. One that has expired is
/// returned, too; a row that the service did not write is nobody's.
pub async fn take(tx: &mut Tx, hash: &[u8]) -> Result<Option<EventTicket>, StorageError> {
    let row: Option<Row> = fetch_changed!(fetch_optional, tx, TAKE, hash)?;
    let Some(row) = row else { return Ok(None) };
    let stored = Stored("event_tickets", row.id);
    if !tx.is_authentic(stored, &row.text(hash), Some(&row.mac))? {
        return Ok(None);
    }
    let holder: Holder = Stored("event_tickets", row.id).document(&row.holder)?;
    let expires_at = moment(row.expires_at);
    Ok(Some(EventTicket { id: EventTicketId(row.id), holder, expires_at }))
}

/// Forgets tickets that have expired; returns how many.
pub async fn forget(tx: &mut Tx, now: OffsetDateTime) -> Result<u64, StorageError> {
    Ok(execute!(tx, FORGET, millis(now))?)
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    holder: String,
    expires_at: i64,
    mac: Vec<u8>,
}

impl Row {
    /// All that the row says.
    fn text(&self, hash: &[u8]) -> String {
        json(&("event_tickets", self.id, hash, &self.holder, self.expires_at))
    }
}
