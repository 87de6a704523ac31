//! Answers to requests that a client may send twice (`Idempotency-Key`).

use sqlx::FromRow;
use time::OffsetDateTime;

use crate::domain::id::PrincipalId;
use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, millis, statements};

statements! {
    FORGET_OLD writes(idempotency_keys) = "DELETE FROM idempotency_keys WHERE created_at < $1";
    INSERT adds(idempotency_keys) = "INSERT INTO idempotency_keys (caller, key, request_hash, status, location, body, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    FIND = "SELECT request_hash, status, location, body FROM idempotency_keys
        WHERE caller = $1 AND key = $2 AND created_at >= $3";
}

/// The answer that was given to a request.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Answered {
    /// SHA-256 of method, path and body.
    pub request_hash: Vec<u8>,
    /// HTTP status.
    pub status: i64,
    /// The `Location` header.
    pub location: String,
    /// JSON.
    pub body: String,
}

/// Remembers an answer, in the transaction that does what was asked: there is one iff there is the
/// other. A concurrent request with the same key gets [`StorageError::Conflict`].
pub async fn insert(
    tx: &mut Tx,
    caller: PrincipalId,
    key: &str,
    answered: &Answered,
    now: OffsetDateTime,
    kept_since: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, FORGET_OLD, millis(kept_since))?;
    execute!(
        tx,
        INSERT,
        caller.0,
        key,
        answered.request_hash.as_slice(),
        answered.status,
        answered.location.as_str(),
        answered.body.as_str(),
        millis(now),
    )?;
    Ok(())
}

/// The answer that was given under this key, if it is not older than it is kept.
pub async fn find(
    read: &mut Read,
    caller: PrincipalId,
    key: &str,
    kept_since: OffsetDateTime,
) -> Result<Option<Answered>, StorageError> {
    Ok(fetch!(fetch_optional, read, FIND, caller.0, key, millis(kept_since))?)
}
