//! Retention of the audit log: its beginning is removed, and a checkpoint stays where the chain begins from then on.
//!
//! The service itself only reads here, so that its role needs no right to remove anything.

use crate::domain::audit::{Checkpoint, Head};
use crate::storage::engine::{
    Read, StorageError, Tx, execute, fetch, millis, moment, statements, write,
};

statements! {
    LAST = "SELECT seq, hash, at, mac FROM audit_checkpoints ORDER BY seq DESC LIMIT 1";
    INSERT adds(audit_checkpoints) = "INSERT INTO audit_checkpoints (seq, hash, at, mac) VALUES ($1, $2, $3, $4)";
    FIRST_SEAL = "SELECT seq FROM audit_seals ORDER BY seq LIMIT 1";
    DELETE_ENTRIES writes(audit_entries) reads(audit_seals) =
        "DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_seals WHERE seq <= $1)";
    DELETE_SEALS writes(audit_seals) = "DELETE FROM audit_seals WHERE seq <= $1";
}

/// The last checkpoint. That the chain's key has made it is for [`crate::domain::audit::ChainKey`] to say.
pub async fn last(read: &mut Read) -> Result<Option<Checkpoint>, StorageError> {
    let row: Option<(i64, Vec<u8>, i64, Vec<u8>)> = fetch!(fetch_optional, read, LAST)?;
    Ok(row.map(|(seq, hash, at, mac)| Checkpoint { head: Head { seq, hash }, at: moment(at), mac }))
}

/// Adds a checkpoint; what is before it is not a part of the log any more.
pub async fn insert(tx: &mut Tx, checkpoint: &Checkpoint) -> Result<(), StorageError> {
    let Checkpoint { head, at, mac } = checkpoint;
    write!(tx, INSERT, head.seq, head.hash.as_slice(), millis(*at), mac.as_slice());
    Ok(())
}

/// Removes up to `limit` of the oldest entries, with their seals, as far as this checkpoint; returns how many.
pub async fn prune(tx: &mut Tx, checkpoint: &Head, limit: u32) -> Result<u64, StorageError> {
    let first: Option<(i64,)> = fetch!(fetch_optional, tx, FIRST_SEAL)?;
    let Some((first,)) = first else { return Ok(0) };
    let to = checkpoint.seq.min(first + i64::from(limit) - 1);
    execute!(tx, DELETE_ENTRIES, to)?;
    Ok(execute!(tx, DELETE_SEALS, to)?)
}
