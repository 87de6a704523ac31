//! Where the service may connect to when somebody else chose the name.
//!
//! Names of certificates and URLs of webhooks come from clients. [`Guard`] resolves them itself and
//! hands out only addresses of the public Internet, and those that the operator allows by name or
//! network, so that nobody reaches the inside through us; what was checked is what is connected to,
//! so that a second look-up cannot change it. A literal address in a URL never meets a resolver:
//! [`Guard::check_literal`] must be asked as well.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Hosts and networks that may be connected to although they are not public.
#[derive(Debug, Clone, Default)]
pub struct Allow {
    hosts: BTreeSet<String>,
    networks: Vec<IpNet>,
}

/// An entry of the allow-list that is neither a host nor a network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither a host name, an address nor a network such as 10.0.0.0/8")]
pub struct InvalidAllow(String);

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The name has no address.
    #[error("{host} does not resolve: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// None of its addresses may be connected to.
    #[error("{host} is at {addresses}, where this service may not connect to")]
    Forbidden {
        /// The name or literal address.
        host: String,
        /// What it resolves to.
        addresses: String,
    },
}

impl Allow {
    /// Reads entries such as `intranet.example`, `192.0.2.7` and `10.0.0.0/8`.
    pub fn parse<S: AsRef<str>>(
        entries: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidAllow> {
        let mut allow = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            if let Ok(network) = entry.parse::<IpNet>() {
                allow.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                allow.networks.push(address.into());
            } else if let Ok(Host::Domain(host)) = Host::parse(entry) {
                allow.hosts.insert(canonical(&host));
            } else {
                return Err(InvalidAllow(entry.to_owned()));
            }
        }
        Ok(allow)
    }

    /// Whether `address` may be connected to under the name `host`.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_global(address)
            || self.networks.iter().any(|network| network.contains(&address))
            || self.hosts.contains(&canonical(host))
    }
}

fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether an address belongs to the public Internet.
pub fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !NOT_GLOBAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_UNICAST.contains(&address)
                && !NOT_GLOBAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// IANA's special-purpose registry, and everything from multicast upwards.
const NOT_GLOBAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// All that is routed in IPv6 is in here; loopback, ULA, link-local, multicast and NAT64 are not.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);

/// Within it: protocol assignments with Teredo, documentation, 6to4, documentation again.
const NOT_GLOBAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// Resolves names for HTTP clients, to addresses that may be connected to.
#[derive(Clone)]
pub struct Guard {
    resolver: TokioResolver,
    allow: Arc<Allow>,
}

impl Guard {
    /// A guard that asks `resolver`.
    pub fn new(resolver: TokioResolver, allow: Allow) -> Self {
        Self { resolver, allow: Arc::new(allow) }
    }

    /// The addresses of `host` that may be connected to; at least one.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, AddressError> {
        // The final dot keeps the system's search domains out.
        let found: Vec<IpAddr> = self
            .resolver
            .lookup_ip(format!("{}.", canonical(host)))
            .await
            .map_err(|error| AddressError::Unresolved {
                host: host.to_owned(),
                reason: in_words(&error),
            })?
            .iter()
            .collect();
        let permitted: Vec<IpAddr> =
            found.iter().copied().filter(|address| self.allow.permits(host, *address)).collect();
        if permitted.is_empty() {
            return Err(forbidden(host, &found));
        }
        Ok(permitted)
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

/// The resolvers that the operating system is configured with.
pub fn system_nameservers() -> Result<Vec<SocketAddr>, NetError> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()?;
    Ok(config.name_servers.iter().map(|server| SocketAddr::new(server.ip, 53)).collect())
}

/// A resolver that asks `nameservers` anew each time: a remembered "no such name" would hide the
/// record that has just been written.
pub fn resolver(nameservers: &[SocketAddr], recursive: bool) -> Result<TokioResolver, NetError> {
    let servers = nameservers.iter().copied().map(name_server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.recursion_desired = recursive;
    options.try_tcp_on_error = true;
    options.timeout = Duration::from_secs(3);
    options.attempts = 1;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// A resolver's error for a person.
pub fn in_words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => "no such name".to_owned(),
            _ => "no such record".to_owned(),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the server answered {code}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_public_internet_is_global() {
        for public in ["1.1.1.1", "192.0.3.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_global(address(public)), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_global(address(inside)), "{inside}");
        }
    }

    #[test]
    fn the_operator_allows_by_name_address_or_network() {
        let allow = Allow::parse(["Intranet.Example.", "192.0.2.7", "10.0.0.0/8"]).unwrap();

        assert!(allow.permits("intranet.example", address("192.168.0.1")));
        assert!(allow.permits("other.example", address("192.0.2.7")));
        assert!(allow.permits("other.example", address("::ffff:10.9.9.9")));
        assert!(!allow.permits("other.example", address("192.168.0.1")));
        assert!(Allow::parse(["10.0.0.0/99"]).is_err());
        assert!(Allow::parse(["not a host"]).is_err());
    }

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
