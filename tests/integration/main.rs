//! What clients, operators and the outside world see of the service, on both databases and against
//! real counterparts. One binary: linking dominates the build.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod accounts;
mod answer_headers;
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
mod bounded_load;
mod breakers;
mod budget;
mod ca;
mod chains;
mod cli;
mod commands;
mod commands_upkeep;
mod connections;
#[cfg(feature = "failpoints")]
mod connections_attacked;
#[cfg(feature = "failpoints")]
mod crash;
#[cfg(feature = "failpoints")]
mod crash_beside;
mod csr;
mod csr_forms;
mod deadlines;
mod dns_faults;
mod duration;
mod endless_refusals;
mod event_stream;
mod events;
mod expiry;
mod explain;
mod fairness;
mod formats;
mod guarded;
mod harness;
#[cfg(feature = "failpoints")]
mod inside_failures;
mod issuance;
mod large_inputs;
mod long_answers;
mod machines;
#[cfg(feature = "failpoints")]
mod minutes;
mod odd_answers;
mod odd_cas;
mod openapi;
mod order_machine;
mod outbound;
mod private_files;
mod provider_answers;
mod provider_load;
mod receiver_load;
mod receivers;
mod reliability;
mod renewal;
#[cfg(feature = "failpoints")]
mod replicas;
mod revocation;
mod side_by_side;
mod signatures;
#[cfg(feature = "failpoints")]
mod soak;
mod solver;
mod storage;
mod strange_text;
#[path = "../support/mod.rs"]
mod support;
mod tenancy;
mod test_sources;
mod truth;
mod webhook_endpoints;
mod webhook_renewal;
mod webhooks;
