//! `certwright healthcheck`: for containers, whose image has nothing else that could ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;

use super::Source;
use super::remote;
use crate::client::Client;
use crate::config::Config;

/// Less than what asks for it waits as a rule.
const WITHIN: Duration = Duration::from_secs(4);

/// Asks the service of this machine whether it lives. Every failure ends with the same status: orchestrators know 0
/// and 1.
pub(super) fn run(source: &Source) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    let server = format!("http://{}", within(config.http_listen));
    remote::run(async {
        let client = Client::of_this_machine(&server)?;
        let asked = tokio::time::timeout(WITHIN, client.get("/healthz", &[])).await;
        let asked = asked.with_context(|| format!("{server}/healthz has not answered in time"))?;
        asked.map(drop).map_err(|error| anyhow::anyhow!("{error}"))
    })
}

/// Where a listener is reached from its own machine.
fn within(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(within(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
