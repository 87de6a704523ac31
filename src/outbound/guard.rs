//! Looks up where a name leads, and refuses where the service may not go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::net::NetError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::address::{Allow, canonical, is_global};
use super::resolver::{Resolver, in_words, resolver, system_nameservers};

/// Why there is no address to connect to. Says nothing of what a name resolves to: whoever named it
/// may not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{host} does not resolve: {reason}")]
    Unresolved { host: String, reason: String },
    #[error(
        "{host} leads to an address that is not public, where this service may not connect (the setting `outbound.allow` permits it)"
    )]
    Forbidden { host: String },
}

impl AddressError {
    /// The guard's refusal, where that is what an error of the HTTP client comes from.
    pub fn behind(error: &reqwest::Error) -> Option<Self> {
        super::causes(error).find_map(|cause| cause.downcast_ref::<Self>()).cloned()
    }
}

/// Resolves names for HTTP clients, to addresses that may be connected to.
#[derive(Clone)]
pub struct Guard {
    resolver: Resolver,
    allow: Arc<Allow>,
    /// Whether the public Internet is open.
    public: bool,
    /// Whether some permitted addresses are enough.
    partial: bool,
}

impl Guard {
    /// A guard that asks `resolver`.
    pub fn new(resolver: Resolver, allow: Allow) -> Self {
        Self { resolver, allow: Arc::new(allow), public: true, partial: false }
    }

    /// A guard that asks `nameservers`; the system's where empty.
    pub fn asking(nameservers: &[SocketAddr], allow: Allow) -> Result<Self, NetError> {
        let nameservers = match nameservers {
            [] => system_nameservers()?,
            given => given.to_vec(),
        };
        Ok(Self::new(resolver(&nameservers, true)?, allow))
    }

    /// A guard that permits only the operator's list, public or not.
    #[must_use]
    pub fn listed_only(&self) -> Self {
        Self { public: false, ..self.clone() }
    }

    /// A guard that takes the permitted addresses of a name and ignores the others. Without this a name
    /// with one forbidden address is refused: it is a mistake, or an attempt to probe the choice.
    #[must_use]
    pub fn partial(&self) -> Self {
        Self { partial: true, ..self.clone() }
    }

    /// The exceptions from the public Internet.
    pub fn allow(&self) -> &Allow {
        &self.allow
    }

    /// Whether `address` may be connected to under the name `host`.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        (self.public && is_global(address)) || self.allow.holds(address) || self.allow.names(host)
    }

    /// The addresses of `host` that may be connected to; at least one.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, AddressError> {
        let found = self.look_up(host).await?;
        let permitted: Vec<IpAddr> =
            found.iter().copied().filter(|address| self.permits(host, *address)).collect();
        let enough = self.partial || permitted.len() == found.len();
        if permitted.is_empty() || !enough {
            return Err(forbidden(host, &found));
        }
        Ok(permitted)
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

    /// Refuses a URL that by itself, without a look-up, leads to where nobody may connect: its host
    /// is a literal address, however it is written, or a name of this machine.
    pub fn check(&self, url: &Url) -> Result<(), AddressError> {
        match literal(url) {
            Some((host, address)) => self.check_address(&host, address),
            None => Ok(()),
        }
    }

    /// Refuses an address that may not be connected to.
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<(), AddressError> {
        if self.permits(host, address) {
            return Ok(());
        }
        Err(forbidden(host, &[address]))
    }

    /// Whether a secret may be sent to this URL: by `https`, or to this machine, or to where the
    /// operator's list says.
    pub fn keeps_secrets(&self, url: &Url) -> bool {
        let listed = url.host_str().is_some_and(|host| self.allow.names(host));
        let near = literal(url)
            .is_some_and(|(_, address)| address.is_loopback() || self.allow.holds(address));
        url.scheme() == "https" || listed || near
    }
}

/// The address that a URL's host stands for without a look-up, and how that host is called.
pub(super) fn literal(url: &Url) -> Option<(String, IpAddr)> {
    match url.host()? {
        Host::Ipv4(address) => Some((address.to_string(), address.into())),
        Host::Ipv6(address) => Some((address.to_string(), address.into())),
        Host::Domain(name) if is_local(name) => Some((name.to_owned(), Ipv4Addr::LOCALHOST.into())),
        Host::Domain(_) => None,
    }
}

/// Names of the machine itself, whatever a resolver says (RFC 6761, section 6.3).
fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn forbidden(host: &str, addresses: &[IpAddr]) -> AddressError {
    let addresses: Vec<String> = addresses.iter().take(8).map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    tracing::info!(host, addresses, "refused to connect to an address that is not public");
    AddressError::Forbidden { host: host.to_owned() }
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
            "http://localhost/",
            "http://A.localhost./",
        ] {
            assert!(guard.check(&inside.parse().unwrap()).is_err(), "{inside}");
        }
        for fine in ["http://10.0.0.1/", "http://1.1.1.1/", "http://a.example/"] {
            assert!(guard.check(&fine.parse().unwrap()).is_ok(), "{fine}");
        }
    }

    #[tokio::test]
    async fn what_only_the_list_opens_is_closed_to_public_addresses() {
        let nobody = resolver(&[], true).unwrap();
        let guard = Guard::new(nobody, Allow::parse(["10.0.0.0/8"]).unwrap()).listed_only();

        assert!(guard.check(&"https://1.1.1.1/".parse().unwrap()).is_err());
        assert!(guard.check(&"https://10.0.0.1/".parse().unwrap()).is_ok());
    }

    #[tokio::test]
    async fn a_secret_leaves_in_clear_only_for_this_machine_or_the_list() {
        let nobody = resolver(&[], true).unwrap();
        let guard = Guard::new(nobody, Allow::parse(["10.0.0.0/8", "proxy.example"]).unwrap());
        let keeps = |url: &str| guard.keeps_secrets(&url.parse().unwrap());

        for fine in
            ["https://1.1.1.1/", "http://127.0.0.1:9/", "http://10.0.0.1/", "http://proxy.example/"]
        {
            assert!(keeps(fine), "{fine}");
        }
        for bad in ["http://1.1.1.1/", "http://api.example/", "http://192.168.0.1/"] {
            assert!(!keeps(bad), "{bad}");
        }
    }
}
