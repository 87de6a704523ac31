//! Transactions: writes, and what they bring about when they are committed.

use std::any::{Any, TypeId};
use std::ops::{Deref, DerefMut};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use uuid::Uuid;

use super::notify::{Notification, earlier};
use super::read::{Backend, Read};
use super::{Change, StorageError};
use crate::telemetry::metrics::database as metrics;

/// A transaction. Dropping it without [`Tx::commit`] undoes it.
///
/// Writes are queued and run together, before the next question and at the latest with the commit. What goes
/// wrong with a write is told there: [`StorageError::Conflict`] and [`StorageError::LeaseLost`] may come with
/// the commit.
pub struct Tx {
    read: Read,
    notification: Notification,
    written: Vec<&'static str>,
    hooks: Vec<(TypeId, Box<dyn Hook>)>,
}

/// A part of a transaction that is written at its end, or acted upon once its outcome is known.
pub(in crate::storage) trait Hook: Any + Send {
    /// Adds writes, as the last of the transaction.
    fn before_commit<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>>;

    /// Acts on the commit. A hook that is dropped after `before_commit` without this call does not know
    /// whether the transaction was committed.
    fn committed(self: Box<Self>) {}
}

impl Deref for Tx {
    type Target = Read;

    fn deref(&self) -> &Read {
        &self.read
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Read {
        &mut self.read
    }
}

impl Tx {
    pub(super) fn new(read: Read) -> Self {
        Self { read, notification: Notification::default(), written: vec![], hooks: vec![] }
    }

    /// Commits, and notifies whoever waits for it.
    pub async fn commit(self) -> Result<(), StorageError> {
        if !self.read.db.signals.caches_any(&self.written) {
            return self.finish().await;
        }
        // Caches have to be invalidated even if the caller goes away meanwhile.
        let finished = tokio::spawn(self.finish()).await;
        finished.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Runs what is queued, for what would go wrong with it, and undoes everything. Nobody is notified.
    pub async fn undo(mut self) -> Result<(), StorageError> {
        self.read.flush().await
    }

    async fn finish(mut self) -> Result<(), StorageError> {
        // A hook may attach others.
        let mut finished = vec![];
        while !self.hooks.is_empty() {
            for (_, mut hook) in std::mem::take(&mut self.hooks) {
                hook.before_commit(&mut self).await?;
                finished.push(hook);
            }
        }
        let begun = Instant::now();
        let done = match self.read.on {
            Backend::Sqlite(on) => on.commit().await,
            Backend::Postgres(on) => on.commit().await,
        };
        match &done {
            Ok(()) if self.written.is_empty() => {}
            Ok(()) => metrics::committed(begun.elapsed()),
            Err(StorageError::LeaseLost(_) | StorageError::Conflict) => {}
            Err(_) => metrics::commit_failed(),
        }
        let signals = &self.read.db.signals;
        // After an error nobody knows whether it was committed.
        self.notification.written = signals.invalidate(&self.written);
        done?;
        for hook in finished {
            hook.committed();
        }
        signals.publish(self.notification);
        Ok(())
    }

    /// The transaction's hook of this type.
    #[expect(clippy::expect_used, reason = "it was found, or added, by its type")]
    pub(in crate::storage) fn hook<H: Hook + Default>(&mut self) -> &mut H {
        let of_type = TypeId::of::<H>();
        let at = self.hooks.iter().position(|(known, _)| *known == of_type).unwrap_or_else(|| {
            self.hooks.push((of_type, Box::<H>::default()));
            self.hooks.len() - 1
        });
        let hook: &mut dyn Any = &mut *self.hooks[at].1;
        hook.downcast_mut().expect("a hook is of its type")
    }

    /// The transaction, be it owned or borrowed; a [`Read`] has no such method, so that nothing is written by one.
    pub(in crate::storage) fn writable(&mut self) -> &mut Self {
        self
    }

    /// Runs the queued writes unless this change may run beside them.
    pub(in crate::storage) async fn make_room(
        &mut self,
        change: &Change,
    ) -> Result<(), StorageError> {
        match &mut self.read.on {
            // Statements run one behind the other.
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(on) => on.make_room(change.touches).await,
        }
    }

    /// Whether anything was run yet.
    pub(in crate::storage) fn has_begun(&self) -> bool {
        match &self.read.on {
            Backend::Sqlite(on) => on.has_begun(),
            Backend::Postgres(on) => on.has_begun(),
        }
    }

    /// Whether anything is to be written.
    pub(in crate::storage) fn has_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// Takes note of the tables that are written to: their cached rows are void after the commit.
    pub(in crate::storage) fn writes(&mut self, change: &Change) {
        for table in change.written() {
            if !self.written.contains(&table) {
                self.written.push(table);
            }
        }
    }

    /// Those who follow the events look again when this is committed.
    pub(in crate::storage) fn records_events(&mut self) {
        self.notification.events = true;
    }

    /// Workers are woken when this is committed.
    pub fn wake_workers(&mut self) {
        self.notification.due = Some(0);
    }

    /// Workers that would look later than at this time, in milliseconds, are woken when this is committed.
    pub(in crate::storage) fn wake_workers_at(&mut self, millis: i64) {
        self.notification.due = earlier(self.notification.due, Some(millis));
    }

    /// Those who deliver are woken when this is committed.
    pub fn wake_deliverers(&mut self) {
        self.notification.deliverable = true;
    }

    /// Clients that wait for this resource to settle look again when this is committed.
    pub fn has_settled(&mut self, resource: Uuid) {
        self.notification.settled.push(resource);
    }
}

/// Queues a write whose count does not matter. With a lease in front (`write!(tx, lease => SAVE, …)`) it must
/// change the one row of the lease, or the lease is lost. `; row.bind_inserted` or `; row.bind_saved` at the end
/// binds the columns of a row (`engine/table.rs`).
macro_rules! write {
    ($tx:expr, $change:expr $(, $bind:expr)* $(,)? $(; $row:ident.$columns:ident)?) => {
        $crate::storage::engine::write!(@queue $tx, None, $change $(, $bind)* $(; $row.$columns)?)
    };
    ($tx:expr, $lease:expr => $change:expr $(, $bind:expr)* $(,)? $(; $row:ident.$columns:ident)?) => {
        $crate::storage::engine::write!(@queue $tx, Some($lease.id), $change $(, $bind)* $(; $row.$columns)?)
    };
    (@queue $tx:expr, $fence:expr, $change:expr $(, $bind:expr)* $(; $row:ident.$columns:ident)?) => {{
        let tx = $tx.writable();
        let change: &$crate::storage::engine::Change = &$change;
        tx.writes(change);
        tx.make_room(change).await?;
        match &mut tx.on {
            $crate::storage::engine::Backend::Sqlite(on) => {
                on.pipeline.add(change.statement.sqlite, change.touches, $fence);
                $(on.pipeline.bind($bind)?;)*
            }
            $crate::storage::engine::Backend::Postgres(on) => {
                on.pipeline.add(change.statement.postgres, change.touches, $fence);
                $(on.pipeline.bind($bind)?;)*
            }
        }
        $($row.$columns(&mut tx.on)?;)?
    }};
}

/// Runs a write, behind those that are queued, and says how many rows it changed.
macro_rules! execute {
    ($tx:expr, $change:expr $(, $bind:expr)* $(,)?) => {{
        let tx = $tx.writable();
        let change: &$crate::storage::engine::Change = &$change;
        tx.writes(change);
        tx.flush().await?;
        match &mut tx.on {
            $crate::storage::engine::Backend::Sqlite(on) => {
                let done = sqlx::query(change.statement.sqlite)$(.bind($bind))*;
                let done = done.execute(on.connection()?).await;
                on.observe(done).map(|done| done.rows_affected())
            }
            $crate::storage::engine::Backend::Postgres(on) => {
                let done = sqlx::query(change.statement.postgres)$(.bind($bind))*;
                let done = done.execute(on.connection()?).await;
                on.observe(done).map(|done| done.rows_affected())
            }
        }
    }};
}

pub(in crate::storage) use {execute, write};
