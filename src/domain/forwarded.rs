//! The address of a client behind proxies that are trusted to say it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// The networks of one's own proxies. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The client of a connection from `peer`, by the addresses that proxies have noted (the last one's note last).
    /// They count from right to left, each only if a trusted proxy has noted it: what stands further left may be
    /// anybody's invention.
    pub fn client<'n>(
        &self,
        peer: IpAddr,
        notes: impl DoubleEndedIterator<Item = &'n str>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        for note in notes.rev() {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = address(note) else { break };
            client = address.to_canonical();
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:4711`, perhaps in quotes.
fn address(note: &str) -> Option<IpAddr> {
    let note = note.trim().trim_matches('"');
    let bare = note.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(note);
    bare.parse().ok().or_else(|| note.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The addresses in a `Forwarded` header (RFC 7239, section 4), in order.
pub fn noted_in_forwarded(header: &str) -> Vec<&str> {
    header.split(',').filter_map(for_of).collect()
}

/// The value of `for`.
fn for_of(element: &str) -> Option<&str> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    found.next().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_if_a_trusted_proxy_has_noted_it() {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        let proxies = TrustedProxies::new(networks.to_vec());
        for (peer, notes, client) in [
            ("192.0.2.1", vec![], "192.0.2.1"),
            ("192.0.2.1", vec!["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", vec!["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", vec!["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", vec!["198.51.100.1", "unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.1", "_hidden", "10.0.0.2"], "10.0.0.2"),
            ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:1::1", vec!["\"[2001:db8:2::7]:4711\""], "2001:db8:2::7"),
            ("10.0.0.1", vec!["198.51.100.1:4711"], "198.51.100.1"),
        ] {
            let found = proxies.client(peer.parse().unwrap(), notes.iter().copied());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {notes:?}");
        }
    }

    #[test]
    fn a_forwarded_header_is_read_as_its_rfc_has_it() {
        for (header, notes) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec!["192.0.2.60"]),
            ("for=192.0.2.43, For=\"[2001:db8::17]\"", vec!["192.0.2.43", "\"[2001:db8::17]\""]),
            ("proto=https", vec![]),
        ] {
            assert_eq!(noted_in_forwarded(header), notes, "{header}");
        }
    }
}
