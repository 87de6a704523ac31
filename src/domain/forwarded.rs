//! The address of a client behind proxies that are trusted to say it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::words::words;

/// The networks of one's own proxies, and where they note addresses. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    noted_in: NotedIn,
}

words! {
    /// The header in which proxies note who has asked them. It is one: what stands in another may be the client's own.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum NotedIn {
        #[default]
        XForwardedFor = "X-Forwarded-For",
        /// RFC 7239.
        Forwarded = "Forwarded",
    }
}

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>, noted_in: NotedIn) -> Self {
        Self { networks: networks.into(), noted_in }
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The header that counts.
    pub fn noted_in(&self) -> NotedIn {
        self.noted_in
    }

    /// The client of a connection from `peer`, by the lines of the header that proxies note addresses in (the last
    /// one's note last). They count from right to left, each only if a trusted proxy has noted it: what stands further
    /// left may be anybody's invention.
    pub fn client<'n>(&self, peer: IpAddr, lines: impl Iterator<Item = &'n [u8]>) -> IpAddr {
        // A client's own part may be any bytes, and takes nothing from what a proxy has appended.
        let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
        let notes = lines.iter().flat_map(|line| line.split(','));
        let notes: Vec<&str> = match self.noted_in {
            NotedIn::XForwardedFor => notes.collect(),
            NotedIn::Forwarded => notes.map(for_of).collect(),
        };
        let mut client = peer.to_canonical();
        for note in notes.into_iter().rev() {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = address(note) else { break };
            client = address.to_canonical();
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:4711`, perhaps in quotes.
fn address(note: &str) -> Option<IpAddr> {
    let note = note.trim().trim_matches('"');
    let bare = note.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(note);
    bare.parse().ok().or_else(|| note.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The value of `for` in an element of a `Forwarded` header (RFC 7239, section 4). Empty where there is none: a proxy
/// that says nothing of its client vouches for no element before its own.
fn for_of(element: &str) -> &str {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    found.next().map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::NotedIn::{Forwarded, XForwardedFor};
    use super::*;

    #[test]
    fn an_address_counts_if_a_trusted_proxy_has_noted_it() {
        for (noted_in, peer, lines, client) in [
            (XForwardedFor, "192.0.2.1", &[][..], "192.0.2.1"),
            (XForwardedFor, "192.0.2.1", &["198.51.100.1"], "192.0.2.1"),
            (XForwardedFor, "10.0.0.1", &[], "10.0.0.1"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (XForwardedFor, "10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            (XForwardedFor, "10.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1,10.0.0.2"], "198.51.100.1"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            (XForwardedFor, "::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (XForwardedFor, "2001:db8:1::1", &["\"[2001:db8:2::7]:4711\""], "2001:db8:2::7"),
            (XForwardedFor, "10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            (Forwarded, "10.0.0.1", &["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (Forwarded, "10.0.0.1", &["for=192.0.2.4, For=\"[2001:db8::17]\""], "2001:db8::17"),
            (Forwarded, "10.0.0.1", &["for=192.0.2.4, proto=https"], "10.0.0.1"),
            (Forwarded, "10.0.0.1", &["for=\"x", "for=192.0.2.4"], "192.0.2.4"),
            (Forwarded, "10.0.0.1", &["192.0.2.4"], "10.0.0.1"),
        ] {
            let found =
                proxies(noted_in).client(ip(peer), lines.iter().map(|line| line.as_bytes()));
            assert_eq!(found, ip(client), "{noted_in:?} {peer} {lines:?}");
        }
    }

    #[test]
    fn bytes_that_a_client_sends_hide_nothing_that_a_proxy_appends() {
        for (noted_in, line) in [
            (XForwardedFor, &b"\xff\xfe\x80, 198.51.100.1"[..]),
            (Forwarded, b"for=\"\xff, for=198.51.100.1"),
        ] {
            let found = proxies(noted_in).client(ip("10.0.0.1"), [b"\xff", line].into_iter());
            assert_eq!(found, ip("198.51.100.1"), "{noted_in:?}");
        }
    }

    fn proxies(noted_in: NotedIn) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        TrustedProxies::new(networks.to_vec(), noted_in)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
