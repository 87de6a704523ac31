//! The outside world, real or doubled, and a whole installation in a test's hands.
//!
//! Nothing is skipped when a program is missing: the test fails and names `scripts/setup`, which
//! installs it.

pub mod cloudflare;
pub mod databases;
pub mod fault_proxy;
#[cfg(feature = "failpoints")]
pub mod installation;
pub mod nginx;
pub mod pebble;
pub mod person;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod site;
pub mod sse;
pub mod world;

use std::net::{Ipv4Addr, TcpListener};

/// A loopback port that nothing listened on a moment ago. Somebody else may still take it, so that
/// whoever hands it to another program has to be ready to try again.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("a free loopback port")
        .port()
}
