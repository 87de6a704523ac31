//! What everything that is measured stands on: one CA, one DNS, one PostgreSQL.

use super::far::proxy::{DelayingProxy, Distance};
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
    pub front: Front,
}

/// What stands before the CA.
pub enum Front {
    Nothing,
    Faults(FaultProxy),
    Distance(DelayingProxy),
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
        Self { pebble, cloudflare, http_port, front: Front::Nothing }
    }

    /// The same with a proxy before the CA, which does nothing before it is told to.
    pub async fn behind_a_proxy() -> Self {
        let mut ground = Self::start().await;
        ground.front = Front::Faults(FaultProxy::before(&ground.pebble).await);
        ground
    }

    /// The same with a CA that is far away.
    pub async fn far(distance: Distance) -> Self {
        let mut ground = Self::start().await;
        ground.front = Front::Distance(DelayingProxy::before(&ground.pebble, distance).await);
        ground
    }

    pub fn directory_url(&self) -> String {
        match &self.front {
            Front::Nothing => self.pebble.directory_url(),
            Front::Faults(proxy) => proxy.directory_url(),
            Front::Distance(proxy) => proxy.directory_url(),
        }
    }

    /// What signed the certificate of the CA's HTTPS, as PEM.
    pub fn ca_pem(&self) -> &str {
        match &self.front {
            Front::Nothing => self.pebble.ca_pem(),
            Front::Faults(proxy) => proxy.ca_pem(),
            Front::Distance(proxy) => proxy.ca_pem(),
        }
    }

    /// Requests that the CA, or the proxy before it, has answered so far, nonces included.
    pub fn acme_requests(&self) -> usize {
        match &self.front {
            Front::Nothing => {
                let log = self.pebble.log();
                log.lines().filter(|line| line.contains(" -> calling handler()")).count()
            }
            Front::Faults(proxy) => KINDS.into_iter().map(|kind| proxy.requests(kind)).sum(),
            Front::Distance(proxy) => proxy.requests().values().sum(),
        }
    }
}
