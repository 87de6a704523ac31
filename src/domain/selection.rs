//! Chooses the solver for a name, exactly by cert-manager's precedence.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::certificate::Spec;
use super::challenge::Kind;
use super::issuer::{Selector, Solver};
use super::name::{comparable, is_in_zone};

/// The fit of a selector; earlier fields count first (cert-manager's `solverpicker`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    has_selector: bool,
    names_the_name: bool,
    zone_labels: usize,
    labels: usize,
}

/// The solver for one name, by its place in the list.
///
/// `domain` is what the authorization is for, without `*.`. A solver whose kind the CA did not offer
/// is passed over. Among those that match, an exact name beats a zone, a longer zone beats a shorter
/// one, then more matching labels, then the earlier in the list; a solver without a selector is
/// taken only when no other fits. A solver for other namespaces is none; that it names this one counts
/// for nothing more.
pub fn pick_solver<'a>(
    solvers: &'a [Solver],
    domain: &str,
    wildcard: bool,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    offered: &[Kind],
) -> Option<(u32, &'a Solver, Kind)> {
    let name = if wildcard { format!("*.{domain}") } else { domain.to_owned() };
    let mut best: Option<(Rank, u32, &Solver, Kind)> = None;
    for (place, solver) in (0_u32..).zip(solvers) {
        let Some(kind) = solver.kind().filter(|kind| offered.contains(kind)) else { continue };
        if !solver.serves(namespace) {
            continue;
        }
        let Some(rank) = rank(solver.selector.as_ref(), &name, labels) else { continue };
        // Only strictly better replaces: among equals the earlier in the list wins.
        if best.as_ref().is_none_or(|(best, ..)| rank > *best) {
            best = Some((rank, place, solver, kind));
        }
    }
    best.map(|(_, place, solver, kind)| (place, solver, kind))
}

/// The solver for a name of a certificate, an IP address too, with all kinds of challenges that a CA can offer for it.
pub fn pick_for_name<'a>(
    solvers: &'a [Solver],
    name: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<(u32, &'a Solver, Kind)> {
    let (base, offered): (&str, &[Kind]) = match name.strip_prefix("*.") {
        Some(base) => (base, &[Kind::Dns01]),
        None if name.parse::<IpAddr>().is_ok() => (name, &[Kind::Http01]),
        None => (name, &[Kind::Http01, Kind::Dns01]),
    };
    pick_solver(solvers, base, base.len() < name.len(), namespace, labels, offered)
}

/// The names of a certificate that no solver can prove.
pub fn unsolved(
    solvers: &[Solver],
    spec: &Spec,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<String> {
    let is_unsolved = |name: &String| pick_for_name(solvers, name, namespace, labels).is_none();
    spec.names().into_iter().filter(is_unsolved).collect()
}

impl Solver {
    /// The kind of challenge that it answers.
    pub fn kind(&self) -> Option<Kind> {
        match (&self.http01, &self.dns01) {
            (Some(_), None) => Some(Kind::Http01),
            (None, Some(_)) => Some(Kind::Dns01),
            _ => None,
        }
    }

    /// Whether certificates of this namespace may use it.
    pub fn serves(&self, namespace: &str) -> bool {
        let reserved = self.selector.as_ref().map_or(&[][..], |selector| &selector.namespaces);
        reserved.is_empty() || reserved.iter().any(|known| known == namespace)
    }
}

fn rank(
    selector: Option<&Selector>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Option<Rank> {
    let Some(selector) = selector else {
        return Some(Rank {
            has_selector: false,
            names_the_name: false,
            zone_labels: 0,
            labels: 0,
        });
    };
    if !selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return None;
    }
    let names_the_name = selector.dns_names.iter().any(|wanted| same(wanted, name));
    if !selector.dns_names.is_empty() && !names_the_name {
        return None;
    }
    let zone = selector
        .dns_zones
        .iter()
        .filter(|zone| is_in_zone(name, zone))
        .map(|zone| label_count(zone))
        .max();
    if !selector.dns_zones.is_empty() && zone.is_none() {
        return None;
    }
    Some(Rank {
        has_selector: true,
        names_the_name,
        zone_labels: zone.unwrap_or(0),
        labels: selector.match_labels.len(),
    })
}

fn same(wanted: &str, name: &str) -> bool {
    comparable(wanted) == comparable(name)
}

fn label_count(zone: &str) -> usize {
    comparable(zone).split('.').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Kind; 2] = [Kind::Http01, Kind::Dns01];

    #[test]
    fn a_solver_without_a_selector_is_the_last_resort() {
        let solvers = solvers(
            r#"[{"http01": {}}, {"selector": {"dnsZones": ["example.com"]}, "dns01": {}}]"#,
        );

        assert_eq!(picked(&solvers, "a.example.com", false, &[]), Some(1));
        assert_eq!(picked(&solvers, "a.example.org", false, &[]), Some(0));
    }

    #[test]
    fn an_exact_name_beats_a_zone_and_a_longer_zone_a_shorter_one() {
        let solvers = solvers(
            r#"[{"selector": {"dnsZones": ["example.com"]}, "dns01": {}},
                {"selector": {"dnsZones": ["sub.example.com"]}, "dns01": {}},
                {"selector": {"dnsNames": ["a.sub.example.com"]}, "dns01": {}}]"#,
        );

        assert_eq!(picked(&solvers, "b.example.com", false, &[]), Some(0));
        assert_eq!(picked(&solvers, "b.sub.example.com", false, &[]), Some(1));
        assert_eq!(picked(&solvers, "a.sub.example.com", false, &[]), Some(2));
    }

    #[test]
    fn a_wildcard_is_named_with_its_star() {
        let solvers = solvers(
            r#"[{"selector": {"dnsNames": ["*.example.com"]}, "dns01": {}}, {"dns01": {}}]"#,
        );

        assert_eq!(picked(&solvers, "example.com", true, &[]), Some(0));
        assert_eq!(picked(&solvers, "example.com", false, &[]), Some(1));
    }

    #[test]
    fn more_labels_win_and_among_equals_the_earlier() {
        let solvers = solvers(
            r#"[{"selector": {"matchLabels": {"team": "web"}}, "http01": {}},
                {"selector": {"matchLabels": {"team": "web", "tier": "1"}}, "http01": {}},
                {"selector": {"matchLabels": {"team": "web"}}, "dns01": {}}]"#,
        );

        assert_eq!(
            picked(&solvers, "a.example.com", false, &[("team", "web"), ("tier", "1")]),
            Some(1)
        );
        assert_eq!(picked(&solvers, "a.example.com", false, &[("team", "web")]), Some(0));
        assert_eq!(picked(&solvers, "a.example.com", false, &[]), None);
    }

    #[test]
    fn every_kind_of_a_selector_has_to_match() {
        let solvers = solvers(
            r#"[{"selector": {"matchLabels": {"team": "web"}, "dnsZones": ["example.com"]}, "dns01": {}}]"#,
        );

        assert_eq!(picked(&solvers, "a.example.com", false, &[]), None);
        assert_eq!(picked(&solvers, "a.example.org", false, &[("team", "web")]), None);
        assert_eq!(picked(&solvers, "a.example.com", false, &[("team", "web")]), Some(0));
    }

    #[test]
    fn a_label_chooses_no_solver_that_is_for_other_namespaces() {
        let solvers = solvers(
            r#"[{"selector": {"matchLabels": {"ca": "paid"}, "namespaces": ["payments", "shop"]}, "dns01": {}},
                {"selector": {"dnsNames": ["a.example.com"], "namespaces": ["payments"]}, "dns01": {}},
                {"selector": {"matchLabels": {"ca": "paid"}}, "http01": {}},
                {"http01": {}}]"#,
        );
        let labels = BTreeMap::from([("ca".to_owned(), "paid".to_owned())]);
        for (namespace, labels, name, place) in [
            ("payments", &labels, "b.example.com", 0),
            ("shop", &labels, "b.example.com", 0),
            ("team", &labels, "b.example.com", 2),
            ("Payments", &labels, "b.example.com", 2),
            ("", &labels, "b.example.com", 2),
            ("payments", &labels, "a.example.com", 1),
            ("team", &labels, "a.example.com", 2),
            ("payments", &BTreeMap::new(), "b.example.com", 3),
        ] {
            let picked = pick_solver(&solvers, name, false, namespace, labels, &BOTH);
            assert_eq!(
                picked.map(|(place, ..)| place),
                Some(place),
                "{namespace} {labels:?} {name}"
            );
        }
        let reserved = &solvers[..2];
        assert!(pick_solver(reserved, "a.example.com", true, "team", &labels, &BOTH).is_none());
    }

    #[test]
    fn a_zone_is_matched_by_labels_not_by_characters() {
        let solvers = solvers(r#"[{"selector": {"dnsZones": ["example.com"]}, "dns01": {}}]"#);

        assert_eq!(picked(&solvers, "badexample.com", false, &[]), None);
        assert_eq!(picked(&solvers, "example.com", true, &[]), Some(0));
    }

    #[test]
    fn selectors_are_written_as_people_write_names() {
        for (zone, name) in [
            ("bücher.example", "shop.xn--bcher-kva.example"),
            ("Bücher.Example.", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "shop.xn--bcher-kva.example"),
        ] {
            let by_zone = format!(r#"[{{"selector": {{"dnsZones": ["{zone}"]}}, "dns01": {{}}}}]"#);
            assert_eq!(picked(&solvers(&by_zone), name, false, &[]), Some(0), "{zone}");
        }
        for (written, wildcard) in
            [("Shop.bücher.example.", false), ("*.shop.BÜCHER.example", true)]
        {
            let by_name =
                format!(r#"[{{"selector": {{"dnsNames": ["{written}"]}}, "dns01": {{}}}}]"#);
            let picked = picked(&solvers(&by_name), "shop.xn--bcher-kva.example", wildcard, &[]);
            assert_eq!(picked, Some(0), "{written}");
        }
    }

    #[test]
    fn a_name_gets_a_solver_for_what_a_ca_offers_for_it() {
        let solvers: Vec<Solver> = serde_json::from_value(serde_json::json!([
            {"selector": {"dnsZones": ["a.example.com"]}, "http01": {}},
            {"dns01": {}},
        ]))
        .unwrap();
        let kind = |name: &str| {
            pick_for_name(&solvers, name, "team", &BTreeMap::new()).map(|(.., kind)| kind)
        };
        assert_eq!(kind("www.a.example.com"), Some(Kind::Http01));
        assert_eq!(kind("*.a.example.com"), Some(Kind::Dns01), "a wildcard is proved by DNS alone");
        assert_eq!(kind("192.0.2.1"), None, "an address is never proved by DNS");
    }

    #[test]
    fn what_the_ca_does_not_offer_is_passed_over() {
        let solvers = solvers(r#"[{"http01": {}}, {"dns01": {}}]"#);
        let labels = BTreeMap::new();

        let picked = pick_solver(&solvers, "example.com", true, "team", &labels, &[Kind::Dns01]);
        assert_eq!(picked.map(|(place, ..)| place), Some(1));
    }

    fn solvers(json: &str) -> Vec<Solver> {
        serde_json::from_str(json).unwrap()
    }

    fn picked(
        solvers: &[Solver],
        domain: &str,
        wildcard: bool,
        labels: &[(&str, &str)],
    ) -> Option<u32> {
        let labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        pick_solver(solvers, domain, wildcard, "team", &labels, &BOTH).map(|(place, ..)| place)
    }
}
