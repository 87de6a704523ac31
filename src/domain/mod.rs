//! The domain: pure state machines and values, free of HTTP, SQL, clocks and sockets.
//!
//! Documents that a client writes and reads back (`spec`s, failures) derive `serde` and
//! `utoipa::ToSchema`: they are stored, shown and described in one shape, cert-manager's.

pub mod absent;
pub mod access_rule;
pub mod account_change;
pub mod api_key;
pub mod approval;
pub mod ari;
pub mod audit;
pub mod backoff;
pub mod caa;
pub mod certificate;
pub mod challenge;
pub mod client_certificate;
pub mod completion_time;
pub mod delivery;
pub mod duration;
pub mod event;
pub mod event_ticket;
pub mod event_type;
pub mod expiry;
pub mod explain;
pub mod failure;
#[cfg(test)]
#[path = "../../tests/support/fixtures.rs"]
pub(crate) mod fixtures;
pub mod forwarded;
pub mod id;
pub mod issuer;
pub mod limits;
pub mod name;
pub mod order;
pub mod policy;
pub mod principal;
pub mod revocation;
pub mod role;
pub mod scope;
pub mod selection;
pub mod selector;
pub mod signature;
pub mod skew;
pub mod text;
pub mod throttle;
pub mod token_issuer;
pub mod trace;
pub mod webhook;
pub(crate) mod words;
