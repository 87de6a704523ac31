//! The outside world, real or doubled, and a whole installation in a test's hands.

pub mod cloudflare;
pub mod databases;
pub mod nginx;
pub mod pebble;
pub mod postgres;
pub mod site;
pub mod world;

/// A port of 127.0.0.1 that is free just now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
