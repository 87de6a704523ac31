//! One file for each table: its rows, and what is asked of it.

pub mod api_keys;
pub mod certificates;
pub mod challenges;
pub mod cleanups;
pub mod deliveries;
pub mod event_stream;
pub mod events;
pub mod expiry_watches;
pub mod fair;
pub mod figures;
pub mod idempotency_keys;
pub mod issuers;
mod log;
pub mod orders;
pub mod outbox;
pub mod policies;
pub mod policy_reviews;
pub mod rate_limits;
pub mod requests;
pub mod retention;
pub mod revisions;
pub mod revocations;
pub mod sealed_columns;
pub mod secrets;
pub mod settings;
pub mod throttles;
pub mod webhooks;
