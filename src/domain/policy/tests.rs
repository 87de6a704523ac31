use time::macros::datetime;

use super::*;
use crate::domain::certificate::PrivateKey;
use crate::domain::failure::code;
use crate::domain::issuer::Kind;
use crate::domain::name::DnsName;

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

pub(super) fn policy(name: &str, patterns: &[(&str, bool)]) -> Policy {
    let rule = |(pattern, wildcards): &(&str, bool)| NameRule {
        pattern: (*pattern).to_owned(),
        wildcards: *wildcards,
    };
    Policy {
        id: PolicyId(uuid::Uuid::nil()),
        name: name.to_owned(),
        spec: Spec {
            namespaces: vec!["team".into()],
            names: patterns.iter().map(rule).collect(),
            issuers: vec![issuer("le")],
            keys: Keys::default(),
            max_names: MOST_NAMES,
            approval: Approval::Auto,
        },
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn issuer(name: &str) -> IssuerRef {
    IssuerRef { name: name.to_owned(), kind: Kind::ClusterIssuer }
}

fn key() -> WantedKey {
    WantedKey::from(&PrivateKey::default())
}

fn rsa(bits: u32) -> WantedKey {
    WantedKey { algorithm: Some(KeyAlgorithm::Rsa), bits, held_by_client: false }
}

/// Whether a policy with this pattern allows a name as a client writes it, wildcards included.
fn allows(pattern: &str, name: &str) -> bool {
    let Ok(name) = DnsName::parse(name) else { return false };
    allows_as_it_is(pattern, name.as_str())
}

fn allows_as_it_is(pattern: &str, name: &str) -> bool {
    let policies = Policies::of("team", vec![policy("team", &[(pattern, true)])]);
    let issuer = issuer("le");
    let wish = Wish { names: vec![name], issuer: &issuer, key: key() };
    matches!(policies.judge(&wish), Verdict::Allowed { .. })
}

#[test]
fn a_pattern_allows_what_it_says() {
    for (pattern, name) in [
        ("example.com", "example.com"),
        ("example.com", "EXAMPLE.com."),
        ("Example.COM", "example.com"),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "A.EXAMPLE.COM"),
        ("*.example.com", "*.example.com"),
        ("**.example.com", "a.example.com"),
        ("**.example.com", "a.b.c.example.com"),
        ("**.example.com", "*.example.com"),
        ("**.example.com", "*.a.example.com"),
        ("**.a.example.com", "*.a.example.com"),
        ("*.a.example.com", "*.a.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "BÜCHER.example"),
        ("**.bücher.example", "a.xn--bcher-kva.example"),
        ("**.internal", "db.internal"),
        ("*.nas", "a.nas"),
        ("*.example.com", "a。example。com"),
        ("*.example.com", "ａ.example.com"),
        ("app.dev", "app.dev"),
        ("**.example.com", "xn--bcher-kva.example.com"),
    ] {
        assert!(allows(pattern, name), "{pattern} allows {name}");
    }
}

/// Patterns, and names that somebody might hope to get past them with.
const BYPASSES: &[(&str, &[&str])] = &[
    (
        "example.com",
        &[
            "example.org",
            "xample.com",
            "notexample.com",
            "example.com.evil.test",
            "a.example.com",
            "*.example.com",
            "example.co",
            "example.comm",
            "com.example",
            "example-com.test",
            "examp1e.com",
            "example.com.example.com",
            "exаmple.com",
            "example。com.evil.test",
            "www.example.com",
            "example.com..",
            "example..com",
            ".example.com",
            " example.com",
            "example.com ",
            "example.com\0",
            "example.com\n",
            "example.com/",
            "example.com:443",
            "example.com@evil.test",
            "exam\u{ad}ple.org",
            "example\\.com",
            "example%2ecom",
            "xn--example.com",
            "examplecom.test",
        ],
    ),
    (
        "*.example.com",
        &[
            "example.com",
            "a.b.example.com",
            "*.a.example.com",
            "*.b.a.example.com",
            "*.com",
            "*.test",
            "aexample.com",
            "a-example.com",
            "a.example.com.evil.test",
            "a.notexample.com",
            "a.example.org",
            "*example.com",
            "a*.example.com",
            "**.example.com",
            "*.*.example.com",
            "a.*.example.com",
            "a.exаmple.com",
            "..example.com",
            "a..example.com",
            "_.example.com",
            "-a.example.com",
            "a-.example.com",
            "a.b。example.com",
            "a．b．example.com",
            "a｡b｡example.com",
            "a.example.com.a",
            "evil.test#.example.com",
            "evil.test?.example.com",
            "evil.test/.example.com",
            "é.a.example.com",
        ],
    ),
    (
        "**.example.com",
        &[
            "example.com",
            "EXAMPLE.COM.",
            "notexample.com",
            "a.notexample.com",
            "a.example.com.evil.test",
            "example.com.evil.test",
            "*.com",
            "*.test",
            "a.example.co",
            "a.example.comm",
            "com",
            "a.xample.com",
            "a.example",
            "example.com.com",
            "a.eхample.com",
            "**.example.com",
            "a.**.example.com",
            "*.evil.test",
            "xn--a.example.com",
            "a.example-com.test",
        ],
    ),
    (
        "**.a.example.com",
        &[
            "a.example.com",
            "*.example.com",
            "b.example.com",
            "aa.example.com",
            "b.aa.example.com",
            "a.example.com.evil.test",
            "b.a.example.org",
            "a.b.example.com",
            "x.a-example.com",
        ],
    ),
    (
        "*.a.example.com",
        &["*.example.com", "a.example.com", "*.b.a.example.com", "b.c.a.example.com"],
    ),
    (
        "bücher.example",
        &["bucher.example", "büch.er.example", "buecher.example", "xn--bcher.example"],
    ),
    ("192.0.2.1", &["192.0.2.1.evil.test", "1.2.0.192.in-addr.arpa", "xn--192.test"]),
];

#[test]
fn nothing_gets_past_a_pattern() {
    assert!(BYPASSES.iter().map(|(_, names)| names.len()).sum::<usize>() >= 80);
    for (pattern, names) in BYPASSES {
        for name in *names {
            assert!(!allows(pattern, name), "{pattern} does not allow {name}");
        }
    }
}

#[test]
fn addresses_are_allowed_by_networks_and_names_are_not() {
    for (pattern, name, allowed) in [
        ("192.0.2.0/24", "192.0.2.255", true),
        ("192.0.2.0/24", "192.0.3.0", false),
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.10", false),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "192.0.2.1", false),
        ("2001:db8::/32", "2001:db8:ffff::1", true),
        ("2001:db8::/32", "2001:db9::1", false),
        ("2001:DB8:0::1", "2001:db8::1", true),
        ("192.0.2.0/24", "a.192.0.2.example", false),
        ("**.example.com", "192.0.2.1", false),
    ] {
        assert_eq!(allows_as_it_is(pattern, name), allowed, "{pattern}, {name}");
    }
}

#[test]
fn a_wildcard_needs_an_entry_that_says_so() {
    let policies =
        |wildcards| Policies::of("team", vec![policy("team", &[("**.example.com", wildcards)])]);
    let issuer = issuer("le");
    let wish = Wish { names: vec!["*.a.example.com"], issuer: &issuer, key: key() };

    assert!(matches!(policies(true).judge(&wish), Verdict::Allowed { .. }));
    let Verdict::Refused(names) = policies(false).judge(&wish) else { panic!("it is allowed") };
    assert!(names[0].reason.contains("no wildcards"), "{names:?}");
}

#[test]
fn patterns_have_one_form_and_what_is_none_is_refused_with_what_would_be_right() {
    for (written, form) in [
        ("App.Example.COM.", "app.example.com"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("**.EXAMPLE.com", "**.example.com"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("**.internal", "**.internal"),
    ] {
        let pattern = Pattern::parse(written).unwrap().to_string();
        assert_eq!(pattern, form);
        assert_eq!(Pattern::parse(&pattern).unwrap().to_string(), form);
    }
    for (written, why) in [
        ("", "empty"),
        ("*", "`**.zone`"),
        ("**", "`**.zone`"),
        ("***.example.com", "`**.zone`"),
        ("*.*.example.com", "`**.zone`"),
        ("**.*.example.com", "`**.zone`"),
        ("a*.example.com", "`**.zone`"),
        ("a.*.example.com", "`**.zone`"),
        ("**.com", "public suffix"),
        ("*.co.uk", "public suffix"),
        ("192.0.2.7/24", "`192.0.2.0/24`"),
        ("192.0.2.0/33", "letters, digits"),
        ("::ffff:192.0.2.0/120", "as IPv4"),
        ("example.com/path", "letters, digits"),
        (".example.com", "empty label"),
    ] {
        let refused = Pattern::parse(written).unwrap_err().to_string();
        assert!(refused.contains(why), "{written}: {refused}");
    }
}

#[test]
fn one_policy_has_to_allow_a_certificate_as_a_whole() {
    let small = {
        let mut small = policy("small", &[("**.small.test", false)]);
        small.spec.max_names = 1;
        small
    };
    let clients = {
        let mut clients = policy("clients", &[("client.test", false)]);
        clients.spec.keys.held_by = HeldBy::Client;
        clients
    };
    let strong = {
        let mut strong = policy("strong", &[("strong.test", false)]);
        strong.spec.keys =
            Keys { algorithms: vec![KeyAlgorithm::Rsa], min_rsa_size: 3072, ..Keys::default() };
        strong
    };
    let any_issuer = {
        let mut any = policy("any", &[("any.test", false)]);
        any.spec.issuers = vec![issuer(EVERY)];
        any
    };
    let others = policy("others", &[("a.test", false)]);
    let others =
        Policy { spec: Spec { namespaces: vec!["other".into()], ..others.spec }, ..others };
    let one = policy("one", &[("one.test", false), ("both.test", false)]);
    let two = policy("two", &[("two.test", false), ("both.test", false)]);
    let policies = Policies::of("team", vec![two, one, small, clients, strong, any_issuer, others]);
    let held = |key: WantedKey| WantedKey { held_by_client: true, ..key };
    let strange = WantedKey { algorithm: None, bits: 0, held_by_client: true };

    let namespaced = IssuerRef { kind: Kind::Issuer, ..issuer("le") };
    let (le, other) = (issuer("le"), issuer("other"));
    for (names, from, wanted, allowed_by, reasons) in [
        (&["one.test"][..], &le, key(), Some("one"), &[][..]),
        (&["both.test"], &le, key(), Some("one"), &[]),
        (&["both.test", "two.test"], &le, key(), Some("two"), &[]),
        (
            &["one.test", "two.test"],
            &le,
            key(),
            None,
            &["several certificates", "several certificates"],
        ),
        (&["one.test", "a.test"], &le, key(), None, &["several certificates", "covers it"]),
        (&["one.test"], &other, key(), None, &["only from ClusterIssuer `le`"]),
        (&["one.test"], &namespaced, key(), None, &["only from ClusterIssuer `le`"]),
        (&["any.test"], &other, key(), Some("any"), &[]),
        (&["any.test"], &namespaced, key(), None, &["only from ClusterIssuer `*`"]),
        (&["a.small.test"], &le, key(), Some("small"), &[]),
        (&["a.small.test", "b.small.test"], &le, key(), None, &["at most 1 ", "at most 1 "]),
        (&["client.test"], &le, key(), None, &["`csr`"]),
        (&["client.test"], &le, held(key()), Some("clients"), &[]),
        (&["client.test"], &le, strange, None, &["ECDSA or RSA"]),
        (&["strong.test"], &le, key(), None, &["kind RSA"]),
        (&["strong.test"], &le, rsa(2048), None, &["3072"]),
        (&["strong.test"], &le, rsa(4096), Some("strong"), &[]),
        (&[], &le, key(), None, &[]),
    ] {
        let wish = Wish { names: names.to_vec(), issuer: from, key: wanted };
        let verdict = policies.judge(&wish);
        match (&verdict, allowed_by) {
            (Verdict::Allowed { policy, .. }, Some(expected)) => assert_eq!(policy, expected),
            (Verdict::Refused(found), None) => {
                assert_eq!(found.len(), reasons.len());
                for (one, reason) in found.iter().zip(reasons) {
                    assert!(one.reason.contains(reason), "{names:?}: {one:?}");
                }
            }
            _ => panic!("{names:?}: {verdict:?}"),
        }
        if let Some(policy) = allowed_by {
            assert!(policies.allows(policy, &wish).is_some(), "{names:?}");
        }
    }
    let one = Wish { names: vec!["one.test"], issuer: &le, key: key() };
    assert_eq!(policies.allows("two", &one), None);
    assert_eq!(policies.allows("gone", &one), None);
}

#[test]
fn it_waits_for_approval_only_if_every_policy_that_allows_it_does() {
    let asking = |name, approval| {
        let mut asking = policy(name, &[("a.test", false)]);
        asking.spec.approval = approval;
        asking
    };
    let manual = |name| asking(name, Approval::Manual);
    let issuer = issuer("le");
    let wish = Wish { names: vec!["a.test"], issuer: &issuer, key: key() };
    let judged = |policies| Policies::of("team", policies).judge(&wish);
    let allowed = |policy: &str, approval| Verdict::Allowed { policy: policy.to_owned(), approval };

    let both = vec![manual("a"), policy("b", &[("a.test", false)])];
    assert_eq!(judged(both), allowed("b", Approval::Auto));
    assert_eq!(judged(vec![manual("b"), manual("a")]), allowed("a", Approval::Manual));
    let milder = vec![asking("a", Approval::Always), manual("b")];
    assert_eq!(judged(milder), allowed("b", Approval::Manual));
}

#[test]
fn a_bound_principal_needs_a_policy_and_what_was_admitted_holds_while_it_stays_the_same() {
    let allowed = || Verdict::Allowed { policy: "team".into(), approval: Approval::Auto };
    let refused = || Verdict::Refused(Vec::new());
    let by_policy = |name: &str| AdmittedBy::Policy(name.to_owned());
    let admin = AdmittedBy::Administrator("admin".into());
    let upgrade = AdmittedBy::Upgrade(BEFORE_POLICIES.into());
    let (bound, unbound) = (Principal::Bound, Principal::Unbound("admin"));
    for (who, kept, verdict, right) in [
        (bound, None, allowed(), Some(by_policy("team"))),
        (bound, None, refused(), None),
        (bound, Some(&admin), refused(), Some(admin.clone())),
        (bound, Some(&admin), allowed(), Some(admin.clone())),
        (bound, Some(&upgrade), refused(), Some(upgrade.clone())),
        (bound, Some(&upgrade), allowed(), Some(by_policy("team"))),
        (bound, Some(&by_policy("old")), refused(), Some(by_policy("old"))),
        (unbound, None, allowed(), Some(by_policy("team"))),
        (unbound, None, refused(), Some(admin.clone())),
        (unbound, Some(&by_policy("old")), refused(), Some(by_policy("old"))),
    ] {
        assert_eq!(admit(who, kept, verdict.clone()).ok(), right, "{who:?}, {kept:?}, {verdict:?}");
    }
}

#[test]
fn a_failure_names_the_policy_and_a_few_of_the_names() {
    let refused = |number| NameVerdict {
        name: format!("{number}.test"),
        policy: None,
        reason: "is not allowed".into(),
    };
    let failure = withheld("team", &(0..7).map(refused).collect::<Vec<_>>());

    assert!(failure.is(code::NAME_NOT_ALLOWED));
    assert!(
        failure.detail.contains("`team`") && failure.detail.contains("`4.test` is not allowed")
    );
    assert!(
        failure.detail.contains("2 more names") && !failure.detail.contains("5.test"),
        "{failure}"
    );
}

/// What is measured elsewhere holds here by the number of steps: a name is looked up by its labels, not by going
/// through the policies.
#[test]
fn a_name_meets_only_the_policies_that_cover_it_however_many_there_are() {
    let many = (0..10_000)
        .map(|number| policy(&format!("p{number}"), &[(&format!("**.z{number}.test"), true)]));
    let mut tree = tree::Tree::default();
    for (place, policy) in many.enumerate() {
        let pattern = Pattern::parse(&policy.spec.names[0].pattern).unwrap();
        tree.add(place, &pattern, true);
    }

    assert_eq!(tree.covering("a.b.z77.test").policies, [77]);
    assert!(tree.covering("z77.test").policies.is_empty());
}
