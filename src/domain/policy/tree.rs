//! Patterns of many policies, by their labels from the right: a name is looked up in as many steps as it has
//! labels, however many patterns there are.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::pattern::Pattern;

/// The leftmost label of a wildcard name. No pattern has it as a label, so that no exact pattern meets it.
const WILDCARD: &str = "*";

/// The patterns of several policies, which are known by their places in a list.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    networks: HashMap<IpNet, Vec<Grant>>,
}

/// A zone, and what patterns say about it.
#[derive(Debug, Default)]
struct Node {
    below: HashMap<Box<str>, Node>,
    exact: Vec<Grant>,
    one_below: Vec<Grant>,
    any_below: Vec<Grant>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    policy: usize,
    wildcards: bool,
}

/// The policies with a pattern that covers a name, each once, in the order of the list.
#[derive(Debug, Default)]
pub(super) struct Covering {
    pub(super) policies: Vec<usize>,
    /// Those that cover it but allow no wildcards.
    pub(super) but_for_wildcards: Vec<usize>,
}

impl Tree {
    pub(super) fn add(&mut self, policy: usize, pattern: &Pattern, wildcards: bool) {
        let grant = Grant { policy, wildcards };
        match pattern {
            Pattern::Exact(name) => self.node(name.as_str()).exact.push(grant),
            Pattern::OneBelow(zone) => self.node(zone.as_str()).one_below.push(grant),
            Pattern::AnyBelow(zone) => self.node(zone.as_str()).any_below.push(grant),
            Pattern::Network(network) => self.networks.entry(*network).or_default().push(grant),
        }
    }

    fn node(&mut self, zone: &str) -> &mut Node {
        zone.rsplit('.')
            .fold(&mut self.root, |node, label| node.below.entry(label.into()).or_default())
    }

    /// Who covers a name in canonical form: a DNS name, perhaps a wildcard, or an address.
    pub(super) fn covering(&self, name: &str) -> Covering {
        let mut found = Vec::new();
        match name.parse::<IpAddr>() {
            Ok(address) => self.networks_around(address, &mut found),
            Err(_) => self.zones_above(name, &mut found),
        }
        let is_wildcard = name.split('.').next() == Some(WILDCARD);
        let (allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|grant: &Grant| grant.wildcards || !is_wildcard);
        Covering { policies: each_once(allowed), but_for_wildcards: each_once(refused) }
    }

    fn zones_above(&self, name: &str, found: &mut Vec<Grant>) {
        let mut node = &self.root;
        let mut labels = name.rsplit('.').peekable();
        while let Some(label) = labels.next() {
            found.extend(&node.any_below);
            let is_leftmost = labels.peek().is_none();
            if is_leftmost {
                found.extend(&node.one_below);
            }
            let Some(next) = node.below.get(label) else { return };
            node = next;
        }
        found.extend(&node.exact);
    }

    fn networks_around(&self, address: IpAddr, found: &mut Vec<Grant>) {
        let host = IpNet::from(address);
        let around =
            (0..=host.max_prefix_len()).filter_map(|length| IpNet::new(address, length).ok());
        found.extend(around.filter_map(|net| self.networks.get(&net.trunc())).flatten());
    }
}

fn each_once(grants: Vec<Grant>) -> Vec<usize> {
    let mut policies: Vec<usize> = grants.into_iter().map(|grant| grant.policy).collect();
    policies.sort_unstable();
    policies.dedup();
    policies
}
