//! What has to be done now and then: a row for each task, so that one replica does it.

use time::OffsetDateTime;
use uuid::Uuid;

use super::lease::{Lease, held};
use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, millis, statements};

statements! {
    SCHEDULE writes(tasks) = "INSERT INTO tasks (id, task, next_action_at) VALUES ($1, $2, $3)
        ON CONFLICT (task) DO UPDATE SET next_action_at = excluded.next_action_at
            WHERE tasks.next_action_at > excluded.next_action_at AND tasks.leased_by IS NULL";
    FIND = "SELECT task FROM tasks WHERE id = $1";
    SETTLE writes(tasks) = "UPDATE tasks SET next_action_at = $3, leased_by = NULL, lease_token = lease_token + 1
        WHERE id = $1 AND lease_token = $2";
}

/// Has a task done at `at` at the latest; `id` is used when it is new.
pub async fn schedule(
    tx: &mut Tx,
    id: Uuid,
    task: &str,
    at: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, SCHEDULE, id, task, millis(at))?;
    tx.wake_workers();
    Ok(())
}

/// The task of a row.
pub async fn find(read: &mut Read, id: Uuid) -> Result<Option<String>, StorageError> {
    let row: Option<(String,)> = fetch!(fetch_optional, read, FIND, id)?;
    Ok(row.map(|(task,)| task))
}

/// The task is done until `next`.
pub async fn settle(tx: &mut Tx, lease: &Lease, next: OffsetDateTime) -> Result<(), StorageError> {
    let changed = execute!(tx, SETTLE, lease.id, lease.token, millis(next))?;
    held(lease, changed)?;
    tx.wake_workers();
    Ok(())
}
