//! What is exported says the same when it is applied again, always.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::api::certificates::validate::validate;
use crate::domain::certificate::Certificate;
use crate::domain::id::CertificateId;
use crate::domain::policy::AdmittedBy;
use crate::manifest::kind::Kind;
use crate::manifest::read::{certificate, issuer, stream};
use crate::manifest::write::manifest;
use crate::validation::from_value;
use crate::view::CertificateView;
use crate::view::spec::{CertificateSpec, IssuerSpec};

/// Texts that are something else in YAML, unless they are quoted.
const ODD: [&str; 14] = [
    "yes",
    "off",
    "null",
    "007",
    "1e3",
    "1.50",
    "0x1F",
    "1_000",
    "true",
    "2026-01-01",
    "12.34.56",
    "y",
    "plain",
    "NaN",
];

fn fields(given: Vec<(&'static str, Option<Value>)>) -> Map<String, Value> {
    let given = given.into_iter();
    given.filter_map(|(field, value)| Some((field.to_owned(), value?))).collect()
}

fn wishes() -> impl Strategy<Value = CertificateSpec> {
    let names =
        subsequence(vec!["a.example.com", "*.example.com", "bücher.example", "1.example"], 1..=4);
    let addresses = subsequence(vec!["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.7"], 0..=3);
    let keys = select(vec![
        json!(null),
        json!({}),
        json!({"size": 384}),
        json!({"algorithm": "RSA"}),
        json!({"algorithm": "RSA", "size": 3072, "rotationPolicy": "Never"}),
        json!({"rotationPolicy": "Never"}),
    ]);
    let labels = btree_map(
        select(vec!["team", "app.kubernetes.io/name", "on", "7"]),
        select(vec!["", "yes", "007", "1.0", "web"]),
        0..=4,
    );
    let renewal = select(vec![
        json!({}),
        json!({"renewBefore": "36h"}),
        json!({"renewBefore": "1.5h"}),
        json!({"renewBeforePercentage": 33}),
        json!({"duration": "48h"}),
        json!({"retry": {"initial": "10m"}}),
    ]);
    let rest = (
        option::of(select(vec!["a.example.com", "other.example.com"])),
        option::of(select(ODD.to_vec())),
        option::of(1_u32..10),
        option::of(select(vec!["Issuer", "ClusterIssuer"])),
    );
    (names, addresses, keys, labels, renewal, rest).prop_map(
        |(names, addresses, key, labels, renewal, (common, profile, history, kind))| {
            let mut spec = fields(vec![
                ("name", Some(json!("web"))),
                ("dnsNames", Some(json!(names))),
                ("ipAddresses", Some(json!(addresses))),
                ("privateKey", Some(key)),
                ("labels", Some(json!(labels))),
                ("commonName", common.map(Value::from)),
                ("profile", profile.map(Value::from)),
                ("revisionHistoryLimit", history.map(Value::from)),
                ("issuerRef", Some(json!({"name": "le", "kind": kind.unwrap_or("Issuer")}))),
            ]);
            spec.extend(renewal.as_object().cloned().unwrap_or_default());
            from_value(&Value::Object(spec)).unwrap_or_else(|refusal| panic!("{refusal:?}"))
        },
    )
}

fn issuers() -> impl Strategy<Value = IssuerSpec> {
    let selector = select(vec![
        json!(null),
        json!({}),
        json!({"dnsZones": ["example.com"]}),
        json!({"dnsNames": ["a.example.com"], "matchLabels": {"on": "yes", "n": "007"}}),
    ]);
    let solver = (selector, select(vec![
        json!({"http01": {}}),
        json!({"http01": {"ingress": {"ingressClassName": "nginx"}}}),
        json!({"dns01": {"cnameStrategy": "Follow", "cloudflare": {"apiTokenSecretRef": {"name": "cf"}}}}),
        json!({"dns01": {"nameservers": ["192.0.2.1:53"], "propagation": {"mode": "none", "delay": "30s"}, "cloudflare": {"apiTokenSecretRef": {"name": "cf", "key": "token"}, "zoneID": "007"}}}),
    ])).prop_map(|(selector, mut solver)| {
        solver["selector"] = selector;
        solver
    });
    let texts = (
        option::of(select(ODD.to_vec())),
        option::of(select(ODD.to_vec())),
        option::of(Just("a@example.com")),
    );
    let flags = (
        any::<bool>(),
        any::<bool>(),
        option::of(select(vec![json!({"name": "key"}), json!({"name": "key", "key": "tls.key"})])),
    );
    (vec(solver, 0..4), texts, flags, select(vec!["Issuer", "ClusterIssuer"])).prop_map(
        |(solvers, (profile, chain, email), (skips, asks, key), kind)| {
            let acme = fields(vec![
                ("server", Some(json!("https://ca.example/directory"))),
                ("profile", profile.map(Value::from)),
                ("preferredChain", chain.map(Value::from)),
                ("email", email.map(Value::from)),
                ("skipTLSVerify", Some(json!(skips))),
                ("enableDurationFeature", Some(json!(asks))),
                ("privateKeySecretRef", key),
                ("caBundle", Some(json!("LS0t\nLS0t\n"))),
                ("solvers", Some(json!(solvers))),
            ]);
            let spec = json!({"kind": kind, "name": "le", "acme": acme});
            from_value(&spec).unwrap_or_else(|refusal| panic!("{refusal:?}"))
        },
    )
}

proptest! {
    #[test]
    fn an_exported_certificate_says_the_same_when_it_is_applied(wish in wishes()) {
        let now = OffsetDateTime::UNIX_EPOCH;
        let checked = validate(&wish).unwrap_or_else(|error| panic!("{error:?}"));
        let right = AdmittedBy::Policy("all".to_owned());
        let stored: Certificate = checked.certificate(CertificateId::generate(now), right, now);
        let text = manifest(Kind::Certificate, &json!(CertificateView::of(&stored, now)));

        let mut object = stream(&text).unwrap().objects.remove(0);
        let read = certificate::read(&mut object, "default").map(|wish| validate(&wish.spec));
        let Some(Ok(read)) = read else { panic!("{:?} of {text}", object.take_faults()) };
        prop_assert!(object.is_sound());
        prop_assert_eq!(&read.labels, &stored.labels);
        prop_assert!(read.spec.means(&stored.spec), "{}", text);
    }

    #[test]
    fn an_exported_issuer_says_the_same_when_it_is_applied(wish in issuers()) {
        let kind = if wish.namespace().is_empty() { Kind::ClusterIssuer } else { Kind::Issuer };
        let text = manifest(kind, &json!({"name": "le", "acme": wish.acme}));

        let mut object = stream(&text).unwrap().objects.remove(0);
        let read = issuer::read(&mut object, "default");
        let Some(read) = read else { panic!("{:?} of {text}", object.take_faults()) };
        prop_assert!(object.is_sound());
        prop_assert_eq!(&read.acme, &wish.acme, "{}", text);
    }
}
