//! Looks up where a name leads, and refuses where the service may not go.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::net::NetError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::address::{Allow, canonical};
use super::resolver::{Resolver, in_words, resolver, system_nameservers};

/// Why there is no address to connect to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AddressError {
    /// The name has no address.
    #[error("{host} does not resolve: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// Its addresses, or some of them, may not be connected to.
    #[error("{host} is at {addresses}, where this service may not connect to")]
    Forbidden {
        /// The name or literal address.
        host: String,
        /// What it resolves to.
        addresses: String,
    },
}

/// Resolves names for HTTP clients, to addresses that may be connected to.
#[derive(Clone)]
pub struct Guard {
    resolver: Resolver,
    allow: Arc<Allow>,
}

impl Guard {
    /// A guard that asks `resolver`.
    pub fn new(resolver: Resolver, allow: Allow) -> Self {
        Self { resolver, allow: Arc::new(allow) }
    }

    /// A guard that asks `nameservers`; the system's where empty.
    pub fn asking(nameservers: &[SocketAddr], allow: Allow) -> Result<Self, NetError> {
        let nameservers = match nameservers {
            [] => system_nameservers()?,
            given => given.to_vec(),
        };
        Ok(Self::new(resolver(&nameservers, true)?, allow))
    }

    /// What may be connected to although it is not public.
    pub fn allow(&self) -> &Allow {
        &self.allow
    }

    /// The addresses of `host` that may be connected to; at least one.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, AddressError> {
        let found = self.look_up(host).await?;
        let permitted: Vec<IpAddr> =
            found.iter().copied().filter(|address| self.allow.permits(host, *address)).collect();
        if permitted.is_empty() {
            return Err(forbidden(host, &found));
        }
        Ok(permitted)
    }

    /// The addresses of `host`, if all of them may be connected to.
    pub async fn all_addresses(&self, host: &str) -> Result<Vec<IpAddr>, AddressError> {
        let found = self.look_up(host).await?;
        if found.is_empty() || found.iter().any(|address| !self.allow.permits(host, *address)) {
            return Err(forbidden(host, &found));
        }
        Ok(found)
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, AddressError> {
        // The final dot keeps the system's search domains out.
        let name = format!("{}.", canonical(host));
        match self.resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) => {
                Err(AddressError::Unresolved { host: host.to_owned(), reason: in_words(&error) })
            }
        }
    }

    /// Refuses a URL whose host is an address that may not be connected to.
    pub fn check_literal(&self, url: &Url) -> Result<(), AddressError> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        let host = address.to_string();
        if self.allow.permits(&host, address) {
            return Ok(());
        }
        Err(forbidden(&host, &[address]))
    }
}

fn forbidden(host: &str, addresses: &[IpAddr]) -> AddressError {
    let addresses: Vec<String> = addresses.iter().take(8).map(ToString::to_string).collect();
    AddressError::Forbidden { host: host.to_owned(), addresses: addresses.join(", ") }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            // Port 0 stands for the port of the URL.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_literal_address_in_a_url_is_checked_however_it_is_written() {
        let nobody = resolver(&[], true).unwrap();
        let guard = Guard::new(nobody, Allow::parse(["10.0.0.0/8"]).unwrap());

        for inside in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            assert!(guard.check_literal(&inside.parse().unwrap()).is_err(), "{inside}");
        }
        for fine in ["http://10.0.0.1/", "http://1.1.1.1/", "http://localhost/"] {
            assert!(guard.check_literal(&fine.parse().unwrap()).is_ok(), "{fine}");
        }
    }
}
