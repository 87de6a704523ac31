//! Drives issuers, certificates, orders and deliveries, one durable step at a time.
//!
//! A process remembers nothing between runs but what the database holds: a crash anywhere costs one
//! lease period. No transaction is open while the outside world is being asked. Waiting happens in the
//! database; the pool itself sleeps on a timer to the next row that is due, and does nothing when
//! none is.
//!
//! Imports run downwards: `pool` claims rows and knows machines, not steps; `steps` dispatches; the
//! interpreters (`order`, `certificate`, `issuer`, …) are functions over a [`Context`]; `limits` knows
//! none of these.

mod certificate;
mod context;
mod credentials;
mod delivery;
mod error;
mod expiry;
mod housekeeping;
mod issuer;
mod judgement;
mod limits;
mod order;
mod orphaned_records;
mod policy_review;
mod pool;
mod preflight;
mod pulse;
mod revocation;
mod steps;

pub use context::{Context, Settings};
pub use error::WorkerError;
pub use expiry::look_at_expiry;
pub use limits::{Limits, NewOrders, Quota};
pub use pool::Worker;
pub use preflight::{Findings, Preflight, Subject};
pub use pulse::Pulse;
