//! Everything the service remembers, on SQLite or PostgreSQL.
//!
//! Storage has three floors and a cache beside them. `engine` runs statements and transactions, and knows no
//! table. `queue` leases rows to workers, and knows of a table no more than that it is one. `tables` has a file
//! for each table, with plain functions over a [`Read`] or a [`Tx`]. A test holds that no import runs upwards.
//!
//! A statement's text is written once, in the SQL that both databases share: `$n` placeholders, `RETURNING`,
//! `ON CONFLICT`; identifiers are native UUIDs, times `BIGINT` milliseconds, documents JSON in `TEXT`. Every text
//! is listed in [`catalogue()`], and a test prepares each on both databases.
//!
//! The databases differ in these places only: `FOR UPDATE SKIP LOCKED` and the database's clock where rows are
//! leased ([`lease`], [`fair`], [`heartbeat`]) or swept, lists of keys ([`throttles`]), an event's place in the
//! stream ([`events`]), transactions (`engine::backend`) and `NOTIFY` ([`notify`]). SQLite has one process at a time
//! ([`SoleUse`]), in it one writer with a group commit, and a longer-lived cache.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

mod cache;
mod engine;
mod queue;
mod tables;

pub use crate::domain::scope::Scope;
pub use engine::{
    Disk, Listed, Load, Migrated, Page, Read, Rows, Signals, SoleUse, Statement, StorageError,
    Touch, Tx, copy, notify,
};
pub use queue::{handoff, heartbeat, lease, tasks};
pub use tables::{
    api_keys, audit, audit_checkpoints, certificates, challenges, cleanups, deliveries,
    event_stream, event_tickets, events, expiry_watches, fair, figures, grants, idempotency_keys,
    issuers, namespaces, orders, outbox, pause, policies, policy_reviews, rate_limits, requests,
    retention, revisions, revocations, sealed_columns, secrets, settings, throttles, wake_ups,
    webhooks,
};

use cache::ConfigCache;
use engine::Database;
use handoff::Handoff;

/// A database, open and migrated, with the cache of its configuration; copies are cheap.
#[derive(Clone)]
pub struct Db {
    database: Database,
    cache: Arc<ConfigCache>,
    handoff: Handoff,
}

impl Db {
    /// Opens the database and brings its schema up to date.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        Self::over(Database::connect(url, None).await?).await
    }

    /// Opens the database with its schema brought to a version, for rows that were written under that one.
    pub async fn connect_at(url: &str, version: i64) -> Result<Self, StorageError> {
        Self::over(Database::connect(url, Some(version)).await?).await
    }

    async fn over(database: Database) -> Result<Self, StorageError> {
        let is_shared = database.is_shared();
        let cache = Arc::new(ConfigCache::new(database.signals(), is_shared));
        let db = Self { database, cache, handoff: Handoff::default() };
        if is_shared {
            let mut tx = db.begin();
            event_stream::rebase(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(db)
    }

    /// The version of a database's schema (`from`) and the one that this program needs (`to`),
    /// without changing or making anything.
    pub async fn version(url: &str) -> Result<Migrated, StorageError> {
        Database::version(url).await
    }

    /// The file of a SQLite database; `None` for PostgreSQL.
    pub fn file(url: &str) -> Option<PathBuf> {
        Database::file(url)
    }

    /// Begins a transaction; the database hears of it with its first question, or the commit.
    pub fn begin(&self) -> Tx {
        let mut tx = self.database.begin();
        self.handoff.attach(&mut tx);
        tx
    }

    /// Sees from now on that API keys change: an answer that takes long ends with its key.
    pub fn key_changes(&self) -> watch::Receiver<u64> {
        self.database.signals().version_of("api_keys")
    }

    /// The way on which this process's worker takes rows that are added.
    pub fn handoff(&self) -> &Handoff {
        &self.handoff
    }
}

impl Deref for Db {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Every statement with a fixed text. Lists with filters are built by `engine::query` and run by the
/// conformance suite.
pub fn catalogue() -> Vec<Listed> {
    [
        fair::all(),
        heartbeat::all(),
        lease::all(),
        lease::of_queues(),
        tasks::all(),
        api_keys::all(),
        audit::all(),
        audit_checkpoints::all(),
        certificates::all(),
        challenges::all(),
        cleanups::all(),
        deliveries::all(),
        event_stream::all(),
        event_tickets::all(),
        events::all(),
        expiry_watches::all(),
        figures::all(),
        idempotency_keys::all(),
        issuers::all(),
        namespaces::all(),
        orders::all(),
        outbox::all(),
        pause::all(),
        policies::all(),
        policy_reviews::all(),
        rate_limits::all(),
        requests::all(),
        retention::all(),
        revisions::all(),
        revocations::all(),
        sealed_columns::all(),
        secrets::all(),
        settings::all(),
        throttles::all(),
        wake_ups::all(),
        webhooks::all(),
    ]
    .concat()
}
