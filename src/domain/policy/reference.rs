//! A matcher that was written otherwise than the tree, and slower, for tests and fuzzing to compare the two.

use std::net::IpAddr;

/// A pattern in canonical form as the reference sees it.
pub(crate) enum Reference<'a> {
    Zone { stars: usize, labels: Vec<&'a str> },
    Network { address: Vec<u8>, prefix: usize },
}

impl<'a> Reference<'a> {
    pub(crate) fn of(pattern: &'a str) -> Self {
        let (address, prefix) = pattern.split_once('/').unwrap_or((pattern, ""));
        if let Some(address) = octets(address) {
            let prefix = prefix.parse().unwrap_or(address.len() * 8);
            return Self::Network { address, prefix };
        }
        let (stars, zone) = match pattern.split_once("*.") {
            Some((before, zone)) => (before.len() + 1, zone),
            None => (0, pattern),
        };
        Self::Zone { stars, labels: zone.split('.').collect() }
    }

    /// Counts the labels before the zone: a pattern with one star wants one, with two at least one, and an exact one
    /// none. A wildcard's star is a label like any other, but no exact pattern stands for it.
    pub(crate) fn allows(&self, name: &str, wildcards: bool) -> bool {
        let given: Vec<&str> = name.split('.').collect();
        if given.first() == Some(&"*") && !wildcards {
            return false;
        }
        match self {
            Self::Zone { stars, labels } => {
                let Some(before) = given.len().checked_sub(labels.len()) else { return false };
                let is_below = given.iter().skip(before).eq(labels);
                is_below
                    && match stars {
                        0 => before == 0,
                        1 => before == 1,
                        _ => before >= 1,
                    }
            }
            Self::Network { address, prefix } => octets(name).is_some_and(|asked| {
                let bits = |octets: &[u8]| -> Vec<bool> {
                    let all = octets.iter().flat_map(|one| (0..8).map(move |at| one << at >= 128));
                    all.take(*prefix).collect()
                };
                asked.len() == address.len() && bits(&asked) == bits(address)
            }),
        }
    }
}

fn octets(text: &str) -> Option<Vec<u8>> {
    text.parse().ok().map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}
