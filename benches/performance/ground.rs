//! What everything that is measured stands on: one CA, one DNS, one PostgreSQL.

use super::support::cloudflare::Cloudflare;
use super::support::free_port;
use super::support::pebble::{Pebble, PebbleOptions};

/// The zone that all names are in.
pub const ZONE: &str = "example.com";

/// A CA that neither sleeps nor rejects nonces, and a Cloudflare whose DNS it asks.
pub struct Ground {
    pub pebble: Pebble,
    pub cloudflare: Cloudflare,
    /// Where the CA looks for HTTP-01 proofs.
    pub http_port: u16,
}

impl Ground {
    pub async fn start() -> Self {
        let cloudflare = Cloudflare::start(&[ZONE]).await;
        let http_port = free_port();
        let pebble = Pebble::start(PebbleOptions {
            dns: Some(cloudflare.dns_addr()),
            http_port: Some(http_port),
            ..PebbleOptions::default()
        })
        .await;
        Self { pebble, cloudflare, http_port }
    }

    /// Requests that the CA has answered so far, nonces included.
    pub fn acme_requests(&self) -> usize {
        let log = self.pebble.log();
        log.lines().filter(|line| line.contains(" -> calling handler()")).count()
    }
}
