//! Whether the installation is paused: it serves what it has, and works on nothing until it is resumed.

use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, statements};

statements! {
    FIND = "SELECT value FROM settings WHERE name = 'paused'";
    SET writes(settings) = "INSERT INTO settings (name, value) VALUES ('paused', $1)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    LIFT writes(settings) = "DELETE FROM settings WHERE name = 'paused'";
}

/// Why it is paused, if it is.
pub async fn find(read: &mut Read) -> Result<Option<String>, StorageError> {
    let found: Option<(Vec<u8>,)> = fetch!(fetch_optional, read, FIND)?;
    Ok(found.map(|(why,)| String::from_utf8_lossy(&why).into_owned()))
}

/// Pauses it.
pub async fn set(tx: &mut Tx, why: &str) -> Result<(), StorageError> {
    execute!(tx, SET, why.as_bytes())?;
    Ok(())
}

/// Resumes it; says whether it was paused.
pub async fn lift(tx: &mut Tx) -> Result<bool, StorageError> {
    Ok(execute!(tx, LIFT)? == 1)
}
