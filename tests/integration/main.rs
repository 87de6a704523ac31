//! What clients, operators and the outside world see of the service, on both databases and against
//! real counterparts. One binary: linking dominates the build.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod api;
mod at_rest;
mod audit;
mod ca;
mod cli;
mod dns;
#[cfg(feature = "failpoints")]
mod drills;
mod house;
mod issuance;
mod limits;
mod machines;
mod network;
mod policies;
mod resilience;
mod storage;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod webhooks;

// `support::fixtures` names it as the library does.
use certwright::domain;
