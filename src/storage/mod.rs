//! Everything the service remembers, on SQLite or PostgreSQL.
//!
//! Queries are plain functions over a [`Tx`], grouped by table. Their text is written once, in the
//! SQL that both databases share: `$n` placeholders, `RETURNING`, `ON CONFLICT`; identifiers are
//! native UUIDs, times `BIGINT` milliseconds, documents JSON in `TEXT`. Every text is listed in
//! [`catalogue()`], and a test prepares each on both databases.
//!
//! The differences, all of them: `FOR UPDATE SKIP LOCKED` and the database's clock where rows are
//! leased ([`lease`], [`lanes`], [`workers`]) or swept, lists of keys ([`throttles`]), where an event
//! stands in the stream ([`events`]), the kind of transaction (`unit`), and `NOTIFY` ([`signals`]).
//! SQLite has one process at a time ([`SoleUse`]), in it one `writer`, and more may be kept in mind (`known`).

mod cache;
mod engine;
mod queue;
mod tables;

pub use crate::domain::scope::Scope;
pub use engine::{
    Db, Migrated, Page, Signals, SoleUse, Statement, StorageError, Tx, catalogue, notify,
};
pub use queue::{fair, handoff, heartbeat, lease, tasks};
pub use tables::{
    api_keys, certificates, challenges, cleanups, deliveries, event_stream, events, expiry_watches,
    idempotency_keys, issuers, orders, outbox, rate_limits, requests, retention, revisions,
    revocations, sealed_columns, secrets, settings, throttles, webhooks,
};
