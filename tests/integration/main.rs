//! What clients, operators and the outside world see of the service, against doubles and real
//! counterparts. One binary: linking dominates the build.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must stop")]

mod solver;
#[path = "../support/mod.rs"]
mod support;
