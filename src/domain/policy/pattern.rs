//! Patterns of names, parsed once.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::domain::name::{DnsName, InvalidName};

/// A pattern that names are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This name alone.
    Exact(DnsName),
    /// `*.zone`: exactly one label below the zone.
    OneBelow(DnsName),
    /// `**.zone`: any number of labels below the zone, which is not among them.
    AnyBelow(DnsName),
    /// The addresses of a network.
    Network(IpNet),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPattern {
    /// The name or zone in it is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A `*` where none may stand.
    #[error(
        "is a name, `*.zone`, `**.zone`, an IP address or a network: `*` stands for whole labels at the beginning only, and a zone has to follow"
    )]
    Star,
    /// A network whose address has bits beyond its prefix.
    #[error("has bits beyond its prefix: write `{0}`")]
    BeyondPrefix(IpNet),
    /// IPv4 addresses in the form of IPv6.
    #[error("holds IPv4 addresses in the form of IPv6: write them as IPv4")]
    MappedIpv4,
}

impl Pattern {
    /// Parses a pattern as people write it. Its zone may be in any case, and in U-labels.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if let Some(network) = network(text)? {
            return Ok(Self::Network(network));
        }
        if let Some(zone) = text.strip_prefix("**.") {
            return plain(zone).map(Self::AnyBelow);
        }
        if let Some(zone) = text.strip_prefix("*.") {
            return plain(zone).map(Self::OneBelow);
        }
        plain(text).map(Self::Exact)
    }

    /// Whether there are wildcard names whose names it covers all of.
    pub fn can_cover_wildcards(&self) -> bool {
        matches!(self, Self::OneBelow(_) | Self::AnyBelow(_))
    }
}

fn network(text: &str) -> Result<Option<IpNet>, InvalidPattern> {
    let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => network,
        (_, Ok(address)) => address.into(),
        _ => return Ok(None),
    };
    // Certificates have such addresses as IPv4: the pattern would never fit.
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= 96
        && v6.network().to_ipv4_mapped().is_some()
    {
        return Err(InvalidPattern::MappedIpv4);
    }
    if network.trunc() == network {
        Ok(Some(network))
    } else {
        Err(InvalidPattern::BeyondPrefix(network.trunc()))
    }
}

/// A name or zone without a wildcard.
fn plain(text: &str) -> Result<DnsName, InvalidPattern> {
    if text.contains('*') {
        return Err(InvalidPattern::Star);
    }
    Ok(DnsName::parse(text)?)
}

/// The canonical text, which parses to the same pattern.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::OneBelow(zone) => write!(f, "*.{zone}"),
            Self::AnyBelow(zone) => write!(f, "**.{zone}"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}
