//! What the installation remembers about itself.

use crate::storage::engine::{Read, StorageError, Tx, execute, fetch, statements};

statements! {
    FIND = "SELECT value FROM settings WHERE name = $1";
    INSERT writes(settings) = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    PUT writes(settings) = "INSERT INTO settings (name, value) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    REPLACE writes(settings) = "UPDATE settings SET value = $3 WHERE name = $1 AND value = $2";
}

/// The value of a setting.
pub async fn find(read: &mut Read, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let row: Option<(Vec<u8>,)> = fetch!(fetch_optional, read, FIND, name)?;
    Ok(row.map(|(value,)| value))
}

/// Sets what is not set yet; says whether this call did it. Of several replicas one wins.
pub async fn insert(tx: &mut Tx, name: &str, value: &[u8]) -> Result<bool, StorageError> {
    Ok(execute!(tx, INSERT, name, value)? == 1)
}

/// Sets it, whatever it was.
pub async fn put(tx: &mut Tx, name: &str, value: &[u8]) -> Result<(), StorageError> {
    execute!(tx, PUT, name, value)?;
    Ok(())
}

/// Sets it to another value while it still has this one; says whether it had.
pub async fn replace(
    tx: &mut Tx,
    name: &str,
    old: &[u8],
    new: &[u8],
) -> Result<bool, StorageError> {
    Ok(execute!(tx, REPLACE, name, old, new)? == 1)
}
