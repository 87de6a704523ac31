//! Everything that needs more than one module, a database or another server, as one binary.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "whatever fails here fails the test")]

mod harness;
#[path = "../support/mod.rs"]
mod support;
