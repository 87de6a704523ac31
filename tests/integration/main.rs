//! What clients, operators and the outside world see of the service, on both databases and against
//! real counterparts. One binary: linking dominates the build.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod api_auth;
mod api_certificates;
mod api_idempotency;
mod api_issuers;
mod api_keys;
mod api_manifests;
mod api_manners;
mod api_secrets;
mod architecture;
mod bootstrap;
mod ca;
mod cli;
mod commands;
#[cfg(feature = "failpoints")]
mod crash;
mod dns_faults;
mod explain;
mod harness;
mod issuance;
mod machines;
mod openapi;
mod order_machine;
mod reliability;
#[cfg(feature = "failpoints")]
mod replicas;
mod side_by_side;
#[cfg(feature = "failpoints")]
mod soak;
mod solver;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod truth;
