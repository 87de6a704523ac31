//! Events in the order in which they became visible, so that nobody who follows misses one.
//!
//! Identifiers do not give that order: they carry the clock of whichever replica wrote them, and a
//! transaction that began earlier may commit later. An event therefore has a [`Position`]: the
//! transaction that wrote it, and a place from a sequence. On PostgreSQL a reader goes no further
//! than [`end`], below the oldest transaction that is still open; whatever commits from then on was
//! begun later than all of that, and so stands behind it. SQLite has one writer, and with it the
//! order of commits.
//!
//! An event that repeats itself moves to the end: a reader sees it again, with a higher count.

use std::fmt;
use std::str::FromStr;

use super::events::{Recorded, SELECT, Wanted};
use crate::domain::scope::Scope;
use crate::storage::engine::query::Value;
use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, statements};

/// Where an event stands; between the events, where a reader stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub(in crate::storage) transaction: i64,
    pub(in crate::storage) place: i64,
}

impl Position {
    /// Before every event.
    pub const START: Self = Self { transaction: 0, place: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transaction, self.place)
    }
}

/// A text that no [`Position`] was written as.
#[derive(Debug, thiserror::Error)]
#[error("not a position in the stream of events")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits).ok_or(InvalidPosition)
        };
        let (transaction, place) = text.split_once('-').ok_or(InvalidPosition)?;
        Ok(Self { transaction: number(transaction)?, place: number(place)? })
    }
}

/// How far one may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last event up to which nothing can appear any more.
    pub position: Position,
    /// Whether there are events behind it that an open transaction keeps back, for now.
    pub held_back: bool,
}

statements! {
    END = "SELECT written_in, position, FALSE FROM events
        ORDER BY written_in DESC, position DESC LIMIT 1",

    // Something may be held back where nothing may be read yet. One snapshot has one horizon.
        "SELECT coalesce(last.written_in, 0), coalesce(last.position, 0),
                EXISTS (SELECT 1 FROM events
                        WHERE written_in >= pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
         FROM (SELECT 1) AS always LEFT JOIN LATERAL
           (SELECT written_in, position FROM events
            WHERE written_in < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            ORDER BY written_in DESC, position DESC LIMIT 1) AS last ON TRUE";
    // Transactions from here on have not begun.
    FUTURE = "SELECT 1",
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    // A database that was moved to another server counts transactions anew: what it brought along
    // belongs before everything else.
    REBASE writes(events) = "UPDATE events SET written_in = 0 WHERE written_in >= 1",
        "UPDATE events SET written_in = 0
        WHERE written_in >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    // SQLite takes the next place after the last one that is there.
    GO_ON = "SELECT 1",
        "SELECT setval('events_position', greatest(coalesce(max(position), 1), 1)) FROM events";
}

/// Puts events first that a former server wrote in transactions which this one has not begun.
pub(in crate::storage) async fn rebase(tx: &mut Tx) -> Result<(), StorageError> {
    execute!(tx, REBASE)?;
    Ok(())
}

/// Has events follow those that were brought along from another database.
pub async fn follow_restored(tx: &mut Tx) -> Result<(), StorageError> {
    rebase(tx).await?;
    let _: (i64,) = fetch!(fetch_one, tx, GO_ON)?;
    Ok(())
}

/// How far one may read now.
pub async fn end(read: &mut Read) -> Result<End, StorageError> {
    let row: Option<(i64, i64, bool)> = fetch!(fetch_optional, read, END)?;
    Ok(row.map_or(End { position: Position::START, held_back: false }, |row| End {
        position: Position { transaction: row.0, place: row.1 },
        held_back: row.2,
    }))
}

/// Where a reader goes on that had read up to `position`, perhaps before the database was restored
/// from a backup or moved to another server.
pub async fn resume(read: &mut Read, position: Position) -> Result<Position, StorageError> {
    let (future,): (i64,) = fetch!(fetch_one, read, FUTURE)?;
    let is_foreign = position.transaction >= future;
    let transaction = if is_foreign { 0 } else { position.transaction };
    Ok(Position { transaction, ..position }.min(end(read).await?.position))
}

/// Up to `limit` events after `from` and up to `to`, in order.
pub async fn between(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    (from, to): (Position, Position),
    limit: u32,
) -> Result<Vec<Recorded>, StorageError> {
    let mut filter = wanted.stream_filter(scope);
    let pair = |at: Position| [Value::Integer(at.transaction), Value::Integer(at.place)];
    filter.and_each("(written_in, position) > (?, ?)", pair(from));
    filter.and_each("(written_in, position) <= (?, ?)", pair(to));
    filter.rows(read, SELECT, "written_in, position", limit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written_and_in_no_other_way() {
        let position = Position { transaction: 748, place: 12 };
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        for nonsense in ["", "-", "1", "1-", "-1-2", "+1-2", "1-2-3", "1-99999999999999999999"] {
            assert!(nonsense.parse::<Position>().is_err(), "{nonsense}");
        }
    }
}
