//! Patterns of policies: a line with the pattern, and one with a name that is asked for.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::certificate::IssuerRef;
use crate::domain::id::PolicyId;
use crate::domain::issuer::Kind;
use crate::domain::name::DnsName;
use crate::domain::policy::reference::Reference;
use crate::domain::policy::{
    Approval, EVERY, Keys, MOST_NAMES, NameRule, Pattern, Policies, Policy, Spec, WantedKey, Wish,
};

pub(super) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(pattern) = Pattern::parse(pattern) else { return };
    let printed = pattern.to_string();
    assert_eq!(Pattern::parse(&printed).as_ref(), Ok(&pattern), "{printed} reads back the same");
    let Some(name) = canonical(name) else { return };
    for wildcards in [false, true] {
        let allowed = allows(&printed, wildcards, &name);
        let expected = Reference::of(&printed).allows(&name, wildcards);
        assert_eq!(allowed, expected, "{printed} ({wildcards}) and {name}");
        assert!(!allowed || is_within(&pattern, &name), "{printed} matches {name}");
    }
}

/// A DNS name or address in the form in which policies are asked for it.
fn canonical(name: &str) -> Option<String> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().to_string()),
        Err(_) => DnsName::parse(name).ok().map(|name| name.to_string()),
    }
}

/// The one thing that matters most, said once more: no name outside of the zone, no address outside of the network.
fn is_within(pattern: &Pattern, name: &str) -> bool {
    match pattern {
        Pattern::Exact(zone) => name == zone.as_str(),
        Pattern::OneBelow(zone) | Pattern::AnyBelow(zone) => {
            name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.ends_with('.'))
        }
        Pattern::Network(network) => {
            name.parse::<IpAddr>().is_ok_and(|address| network.contains(&address))
        }
    }
}

fn allows(pattern: &str, wildcards: bool, name: &str) -> bool {
    let issuer = IssuerRef { name: "ca".to_owned(), kind: Kind::ClusterIssuer };
    let spec = Spec {
        namespaces: vec![EVERY.to_owned()],
        names: vec![NameRule { pattern: pattern.to_owned(), wildcards }],
        issuers: vec![issuer.clone()],
        keys: Keys::default(),
        max_names: MOST_NAMES,
        approval: Approval::Auto,
    };
    let policy = Policy {
        id: PolicyId(Uuid::nil()),
        name: "fuzzed".to_owned(),
        spec,
        generation: 1,
        created_at: OffsetDateTime::UNIX_EPOCH,
        updated_at: OffsetDateTime::UNIX_EPOCH,
    };
    let key = WantedKey {
        algorithm: Keys::default().algorithms.first().copied(),
        bits: 256,
        held_by_client: false,
    };
    let wish = Wish { names: vec![name], issuer: &issuer, key };
    Policies::of("default", vec![policy]).allows("fuzzed", &wish).is_some()
}
