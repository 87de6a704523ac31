//! What everything that is measured stands on: one CA, one DNS, one PostgreSQL.

use super::support::cloudflare::Cloudflare;
use super::support::fault_proxy::{FaultProxy, Kind};
use super::support::free_port;
use super::support::pebble::{Pebble, PebbleOptions};

/// The zone that all names are in.
pub const ZONE: &str = "example.com";

/// All that a CA is asked.
const KINDS: [Kind; 11] = [
    Kind::NewOrder,
    Kind::Order,
    Kind::Authorization,
    Kind::Challenge,
    Kind::Finalize,
    Kind::Certificate,
    Kind::KeyChange,
    Kind::RenewalInfo,
    Kind::Directory,
    Kind::Account,
    Kind::Other,
];

/// A CA that neither sleeps nor rejects nonces, and a Cloudflare whose DNS it asks.
pub struct Ground {
    pub pebble: Pebble,
    pub cloudflare: Cloudflare,
    /// Where the CA looks for HTTP-01 proofs.
    pub http_port: u16,
    /// What stands before the CA, if anything does.
    pub proxy: Option<FaultProxy>,
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
        Self { pebble, cloudflare, http_port, proxy: None }
    }

    /// The same with a proxy before the CA, which does nothing before it is told to.
    pub async fn behind_a_proxy() -> Self {
        let mut ground = Self::start().await;
        ground.proxy = Some(FaultProxy::before(&ground.pebble).await);
        ground
    }

    pub fn directory_url(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.pebble.directory_url(), FaultProxy::directory_url)
    }

    pub fn ca_bundle(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.pebble.ca_bundle(), FaultProxy::ca_bundle)
    }

    /// Requests that the CA, or the proxy before it, has answered so far, nonces included.
    pub fn acme_requests(&self) -> usize {
        if let Some(proxy) = &self.proxy {
            return KINDS.into_iter().map(|kind| proxy.requests(kind)).sum();
        }
        let log = self.pebble.log();
        log.lines().filter(|line| line.contains(" -> calling handler()")).count()
    }
}
