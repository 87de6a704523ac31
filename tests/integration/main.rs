//! What clients, operators and the outside world see of the service, on both databases and against
//! real counterparts. One binary: linking dominates the build.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod accounts;
mod api_auth;
mod api_certificates;
mod api_idempotency;
mod api_issuers;
mod api_keys;
mod api_manifests;
mod api_manifests_refused;
mod api_manners;
mod api_secrets;
mod architecture;
mod bootstrap;
mod breakers;
mod budget;
mod ca;
mod cli;
mod commands;
mod commands_upkeep;
#[cfg(feature = "failpoints")]
mod crash;
#[cfg(feature = "failpoints")]
mod crash_beside;
mod csr;
mod deadlines;
mod dns_faults;
mod duration;
mod event_stream;
mod events;
mod expiry;
mod explain;
mod fairness;
mod formats;
mod guarded;
mod harness;
mod issuance;
mod machines;
#[cfg(feature = "failpoints")]
mod minutes;
mod openapi;
mod order_machine;
mod outbound;
mod receivers;
mod reliability;
mod renewal;
#[cfg(feature = "failpoints")]
mod replicas;
mod revocation;
mod side_by_side;
#[cfg(feature = "failpoints")]
mod soak;
mod solver;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod truth;
mod webhook_endpoints;
mod webhook_renewal;
mod webhooks;
