//! How much a namespace has, up to a limit: no more rows are read than the limit has, along an index.
//!
//! Whoever adds to a namespace with a limit adds first, then [`take_turn`]s, and counts what is there then. Of two who
//! do so at the same time the second one counts what the first one added.

use crate::storage::engine::{Read, StorageError, Tx, count as number, fetch, statements};

statements! {
    // SQLite has one writer at a time. PostgreSQL gives the lock back after the commit, so that a question that is
    // asked under it sees what was committed before.
    TAKE_TURN = "SELECT length($1) AS turn",
        "SELECT CAST(1 AS BIGINT) AS turn FROM pg_advisory_xact_lock(hashtextextended($1, 0))";
    COUNT = "SELECT count(*) FROM (SELECT 1 FROM certificates WHERE namespace = $1 LIMIT $2) AS counted";
    COUNT_UNDER_WAY = "SELECT count(*) FROM (SELECT 1 FROM certificates
        WHERE namespace = $1 AND state IN ('triggered', 'awaiting_issuer', 'ordering') LIMIT $2) AS counted";
}

/// Waits for others that have added to this namespace and are not done yet.
pub async fn take_turn(tx: &mut Tx, namespace: &str) -> Result<(), StorageError> {
    let _turn: (i64,) = fetch!(fetch_one, tx, TAKE_TURN, namespace)?;
    Ok(())
}

/// The certificates of a namespace, counted up to `most`.
pub async fn count_certificates(
    read: &mut Read,
    namespace: &str,
    most: u32,
) -> Result<u32, StorageError> {
    let (found,): (i64,) = fetch!(fetch_one, read, COUNT, namespace, i64::from(most))?;
    Ok(number(found))
}

/// Those of them that are being issued or renewed.
pub async fn count_under_way(
    read: &mut Read,
    namespace: &str,
    most: u32,
) -> Result<u32, StorageError> {
    let (found,): (i64,) = fetch!(fetch_one, read, COUNT_UNDER_WAY, namespace, i64::from(most))?;
    Ok(number(found))
}
