//! Addresses: the public Internet, and others that the operator allows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

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

    /// Whether the operator named this host.
    pub fn names(&self, host: &str) -> bool {
        self.hosts.contains(&canonical(host))
    }

    /// Whether the operator named this address, or a network that holds it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// A name as it is compared: without its final dot, in lower case.
pub(super) fn canonical(host: &str) -> String {
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

/// All routed IPv6 addresses; loopback, ULA, link-local, multicast and NAT64 are outside.
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

        assert!(allow.names("intranet.example"));
        assert!(!allow.names("other.example"));
        assert!(allow.holds(address("192.0.2.7")));
        assert!(allow.holds(address("::ffff:10.9.9.9")));
        assert!(!allow.holds(address("192.168.0.1")));
        assert!(Allow::parse(["10.0.0.0/99"]).is_err());
        assert!(Allow::parse(["not a host"]).is_err());
    }
}
