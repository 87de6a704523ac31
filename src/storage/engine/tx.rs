//! One unit of work, and how statements are run in it.

use std::sync::Arc;

use uuid::Uuid;

use super::backend::{OnPostgres, OnSqlite};
use super::notify::{News, earlier};
use super::{Opened, StorageError};
use crate::domain::certificate::Certificate;
use crate::storage::queue::handoff::{OnTheWay, Promised};
use crate::storage::tables::outbox;

/// One unit of work. Dropping it without [`Tx::commit`] undoes it.
pub struct Tx {
    pub(in crate::storage) inner: Inner,
    pub(in crate::storage) db: Arc<Opened>,
    news: News,
    settled: Vec<Uuid>,
    pub(in crate::storage) told: Vec<outbox::Telling>,
    pub(in crate::storage) handed: Vec<(Promised, Box<Certificate>)>,
    reconfigures: bool,
}

pub(in crate::storage) enum Inner {
    Sqlite(OnSqlite),
    Postgres(OnPostgres),
}

impl Tx {
    pub(in crate::storage) fn new(db: Arc<Opened>, inner: Inner) -> Self {
        Self {
            inner,
            db,
            news: News::default(),
            settled: vec![],
            told: vec![],
            handed: vec![],
            reconfigures: false,
        }
    }

    /// Makes it so, and tells whoever waits for it.
    pub async fn commit(self) -> Result<(), StorageError> {
        if !(self.news.keys || self.reconfigures) {
            return self.finish().await;
        }
        // What is known has to be forgotten even if the caller goes away meanwhile.
        let finished = tokio::spawn(self.finish()).await;
        finished.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    async fn finish(mut self) -> Result<(), StorageError> {
        if !self.told.is_empty() {
            Box::pin(outbox::write(&mut self)).await?;
        }
        let on_the_way = OnTheWay::new(self.handed);
        let done = match self.inner {
            Inner::Sqlite(on) => on.commit().await,
            Inner::Postgres(on) => on.commit().await,
        };
        // Whether it was done or not: nobody knows after an error.
        if self.reconfigures {
            self.db.knowledge.forget_configuration();
        }
        if self.news.keys {
            self.db.knowledge.api_keys.forget();
        }
        done?;
        on_the_way.arrived();
        self.db.signals.tell(self.news, &self.settled);
        Ok(())
    }

    /// Runs what was put off: a question follows.
    pub(in crate::storage) async fn catch_up(&mut self) -> Result<(), StorageError> {
        match &mut self.inner {
            Inner::Sqlite(on) => on.catch_up().await,
            Inner::Postgres(on) => on.catch_up().await,
        }
    }

    /// Runs what was put off, if it touches one of these tables: what [`defer_apart`] puts off then does not.
    pub(in crate::storage) async fn apart_from(
        &mut self,
        tables: &[&str],
    ) -> Result<(), StorageError> {
        if let Inner::Postgres(on) = &mut self.inner {
            for table in tables {
                on.make_room(table).await?;
            }
        }
        Ok(())
    }

    /// Whether it is going to be handed over whole, as things stand.
    pub(in crate::storage) fn is_later(&self) -> bool {
        match &self.inner {
            Inner::Sqlite(on) => on.is_later(),
            Inner::Postgres(on) => on.is_later(),
        }
    }

    /// Whoever follows the events looks again when this is committed.
    pub(in crate::storage) fn something_happened(&mut self) {
        self.news.happened = true;
    }

    /// API keys change when this is committed.
    pub(in crate::storage) fn keys_change(&mut self) {
        self.news.keys = true;
    }

    /// Issuers or secrets change when this is committed.
    pub(in crate::storage) fn reconfigures(&mut self) {
        self.reconfigures = true;
    }

    /// Something is due at once: workers are woken when this is committed.
    pub fn wake_workers(&mut self) {
        self.news.due = Some(0);
    }

    /// Something is due at this time, in milliseconds: workers that would look later are woken when
    /// this is committed.
    pub(in crate::storage) fn wake_workers_at(&mut self, millis: i64) {
        self.news.due = earlier(self.news.due, Some(millis));
    }

    /// Something is to be delivered: those who do are woken when this is committed.
    pub fn wake_deliverers(&mut self) {
        self.news.deliverable = true;
    }

    /// Clients that wait until this resource has come to rest look again when this is committed.
    pub fn has_settled(&mut self, resource: Uuid) {
        self.settled.push(resource);
    }
}

/// Runs a statement on whichever database the transaction is on; says how many rows it changed.
macro_rules! execute {
    ($tx:expr, $statement:expr $(, $bind:expr)* $(,)?) => {{
        $tx.catch_up().await?;
        match &mut $tx.inner {
            $crate::storage::engine::Inner::Sqlite(on) => {
                let done = sqlx::query($statement.sqlite)$(.bind($bind))*.execute(on.ask()?).await;
                on.heard(done).map(|done| done.rows_affected())
            }
            $crate::storage::engine::Inner::Postgres(on) => {
                let done = sqlx::query($statement.postgres)$(.bind($bind))*.execute(on.ask()?).await;
                on.heard(done).map(|done| done.rows_affected())
            }
        }
    }};
}

/// Runs a statement whose outcome does not count, at the latest at the commit ([`super::pipeline`]).
macro_rules! defer {
    ($tx:expr, $statement:expr $(, $bind:expr)* $(,)?) => {{
        if let $crate::storage::engine::Inner::Postgres(on) = &mut $tx.inner {
            on.make_room($statement.postgres).await?;
        }
        $crate::storage::engine::defer_apart!($tx, $statement $(, $bind)*);
    }};
}

/// Like [`defer`], for a statement that touches none of the rows, and asks for nothing, that others of its
/// transaction change.
macro_rules! defer_apart {
    ($tx:expr, $statement:expr $(, $bind:expr)* $(,)?) => {
        match &mut $tx.inner {
            $crate::storage::engine::Inner::Sqlite(on) => {
                on.later.add($statement.sqlite);
                $(on.later.bind($bind)?;)*
            }
            $crate::storage::engine::Inner::Postgres(on) => {
                on.later.add($statement.postgres);
                $(on.later.bind($bind)?;)*
            }
        }
    };
}

/// Like [`defer`], for a statement that changes the one row of this lease, or the lease is lost.
macro_rules! defer_held {
    ($tx:expr, $lease:expr, $statement:expr $(, $bind:expr)* $(,)?) => {{
        $crate::storage::engine::defer!($tx, $statement $(, $bind)*);
        match &mut $tx.inner {
            $crate::storage::engine::Inner::Sqlite(on) => on.later.fence(*$lease),
            $crate::storage::engine::Inner::Postgres(on) => on.later.fence(*$lease),
        }
    }};
}

/// Fetches rows (`fetch_optional`, `fetch_all`, …) as whatever `FromRow` type the caller expects.
macro_rules! fetch {
    ($how:ident, $tx:expr, $statement:expr $(, $bind:expr)* $(,)?) => {{
        $tx.catch_up().await?;
        match &mut $tx.inner {
            $crate::storage::engine::Inner::Sqlite(on) => {
                let rows = sqlx::query_as($statement.sqlite)$(.bind($bind))*.$how(on.ask()?).await;
                on.heard(rows)
            }
            $crate::storage::engine::Inner::Postgres(on) => {
                let rows = sqlx::query_as($statement.postgres)$(.bind($bind))*.$how(on.ask()?).await;
                on.heard(rows)
            }
        }
    }};
}

pub(in crate::storage) use {defer, defer_apart, defer_held, execute, fetch};
