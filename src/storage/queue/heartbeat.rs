//! Which processes are at work, so that the others notice when one no longer is.
//!
//! A process that works on a shared database says so again and again; what one that has fallen
//! silent was working on is given back ([`reap`]). All of it goes by the database's clock.

use time::{Duration, OffsetDateTime};

use super::lease;
use super::lease::database_time;
use crate::storage::engine::{
    StorageError, Tx, execute, fetch_changed, millis, moment, statements,
};

fn beat_text(now: &str) -> String {
    format!(
        "INSERT INTO workers (name, seen_at) VALUES ($1, {now})
         ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at RETURNING seen_at"
    )
}

statements! {
    BEAT writes(workers) = beat_text("$2"), beat_text(&database_time("$2"));
    REAP writes(workers) = "DELETE FROM workers WHERE seen_at < $1 RETURNING name";
    LEAVE writes(workers) = "DELETE FROM workers WHERE name = $1";
}

/// Says that this process lives. Returns the time by the database's clock.
pub async fn beat(
    tx: &mut Tx,
    name: &str,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, StorageError> {
    let (now,): (i64,) = fetch_changed!(fetch_one, tx, BEAT, name, millis(now))?;
    Ok(moment(now))
}

/// Gives back what those were working on who have been silent for `period`; `now` is what [`beat()`]
/// returned. Says who they were, and how many rows that freed.
pub async fn reap(
    tx: &mut Tx,
    now: OffsetDateTime,
    period: Duration,
) -> Result<(Vec<String>, u64), StorageError> {
    let silent: Vec<(String,)> = fetch_changed!(fetch_all, tx, REAP, millis(now - period))?;
    let mut rows = 0;
    for (name,) in &silent {
        rows += lease::give_back(tx, Some(name), now).await?;
    }
    Ok((silent.into_iter().map(|(name,)| name).collect(), rows))
}

/// This process stops: what it could not finish is due at once.
pub async fn leave(tx: &mut Tx, name: &str, now: OffsetDateTime) -> Result<u64, StorageError> {
    execute!(tx, LEAVE, name)?;
    lease::give_back(tx, Some(name), now).await
}
