//! Questions to the database.

use std::sync::Arc;

use super::backend::{OnPostgres, OnSqlite};
use super::db::{Database, Opened};
use super::{StorageError, Stored};

/// Asks, and changes nothing: outside of a transaction, or as a part of one ([`super::Tx`]).
///
/// Outside of a transaction two questions may see different states.
pub struct Read {
    pub(in crate::storage) on: Backend,
    pub(super) db: Arc<Opened>,
}

pub(in crate::storage) enum Backend {
    Sqlite(OnSqlite),
    Postgres(OnPostgres),
}

impl Read {
    /// Runs the writes that are queued, so that the next question sees them.
    pub(in crate::storage) async fn flush(&mut self) -> Result<(), StorageError> {
        match &mut self.on {
            Backend::Sqlite(on) => on.flush().await,
            Backend::Postgres(on) => on.flush().await,
        }
    }

    /// Asks beside this transaction, without beginning it.
    pub(in crate::storage) async fn beside(&self) -> Result<Self, StorageError> {
        Database(Arc::clone(&self.db)).read().await
    }

    /// The MAC of a row that grants something.
    pub(in crate::storage) fn sign(&self, text: &str) -> Result<Vec<u8>, StorageError> {
        self.db.row_macs.sign(text)
    }

    /// Whether the service has written a row that says this; one that it has not raises the alarm.
    pub(in crate::storage) fn is_authentic(
        &self,
        row: Stored,
        text: &str,
        mac: Option<&[u8]>,
    ) -> Result<bool, StorageError> {
        self.db.row_macs.is_authentic(row, text, mac)
    }

    pub(in crate::storage) fn is_sqlite(&self) -> bool {
        matches!(self.on, Backend::Sqlite(_))
    }
}

/// Fetches rows (`fetch_optional`, `fetch_all`, …) of a [`super::Query`] as whatever `FromRow` type the caller
/// expects.
macro_rules! fetch {
    ($how:ident, $read:expr, $query:expr $(, $bind:expr)* $(,)?) => {{
        let query: &$crate::storage::engine::Query = &$query;
        $crate::storage::engine::fetch_rows!($how, $read, query.0 $(, $bind)*)
    }};
}

/// Like [`fetch`], for a [`super::Change`] that returns rows; it needs a transaction.
macro_rules! fetch_changed {
    ($how:ident, $tx:expr, $change:expr $(, $bind:expr)* $(,)?) => {{
        let tx = $tx.writable();
        let change: &$crate::storage::engine::Change = &$change;
        tx.writes(change);
        $crate::storage::engine::fetch_rows!($how, tx, change.statement $(, $bind)*)
    }};
}

/// What both of them come down to.
macro_rules! fetch_rows {
    ($how:ident, $read:expr, $statement:expr $(, $bind:expr)*) => {{
        $read.flush().await?;
        match &mut $read.on {
            $crate::storage::engine::Backend::Sqlite(on) => {
                let rows = sqlx::query_as($statement.sqlite)$(.bind($bind))*;
                let rows = rows.$how(on.connection()?).await;
                on.observe(rows)
            }
            $crate::storage::engine::Backend::Postgres(on) => {
                let rows = sqlx::query_as($statement.postgres)$(.bind($bind))*;
                let rows = rows.$how(on.connection()?).await;
                on.observe(rows)
            }
        }
    }};
}

pub(in crate::storage) use {fetch, fetch_changed, fetch_rows};
