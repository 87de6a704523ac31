//! Real counterparts for the tests: servers that nobody here wrote, started for one test (or one run) and stopped with it.
//!
//! Nothing is skipped when a program is missing: the test fails and names `scripts/setup`, which installs it.

pub mod nginx;
pub mod pebble;
pub mod postgres;
pub mod process;

use std::net::{Ipv4Addr, TcpListener};

/// A loopback port that nothing listened on a moment ago. Somebody else may still take it, so that whoever hands it to
/// another program has to be ready to try again.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("a free loopback port")
        .port()
}
