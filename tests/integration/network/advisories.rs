//! What went wrong elsewhere, tried here. docs/security.md lists the advisories with the test of each.

use std::path::Path;

use axum::http::Method;
use certwright::api;
use rcgen::{CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use crate::api::imports::{Pair, tls_secret};
use crate::api::manifests::{CLUSTER_ISSUER, apply, send, stream, www};
use crate::house::architecture::{code, sources_of};
use crate::policies::{allow, path, policy};
use crate::support::receiver::Receiver;
use crate::support::world::{World, acme, certificate, id, on_every_database};

on_every_database! {
    async fn a_url_in_a_certificate_is_never_asked(world: World) {
        apply(&world, CLUSTER_ISSUER).await;
        let receiver = Receiver::start().await;
        let text = stream(&[tls_secret("www-tls", &pair_that_names(&receiver.url())), www("www-tls")]);

        let imported = send(&world, "/import", &text).await;

        assert_eq!(imported.status, 200, "{}", imported.text);
        let made = id(&imported.json()["results"][0]);
        world.ask(Method::POST, &format!("/certificates/{made}/revoke")).json(&json!({})).send().await.accepted();
        assert_eq!(world.get(&format!("/certificates/{made}/fullchain.pem")).await.status, 200);
        assert!(receiver.got().is_empty(), "{:?}", receiver.got());
    }

    async fn another_spelling_of_a_path_opens_nothing(world: World) {
        world.create_issuer().await;
        let foreign = foreign(&world).await;
        let stranger = world.key(&["*"], &["ours"]).await;
        for path in [
            format!("/certificates//{foreign}"),
            format!("//certificates/{foreign}"),
            format!("/certificates/./{foreign}"),
            format!("/healthz/../certificates/{foreign}"),
            format!("/healthz/%2e%2e/certificates/{foreign}"),
            format!("/certificates%2F{foreign}"),
            format!("/certificates/{foreign}/"),
            format!("/certificates/{foreign}%00"),
            format!("/certificates/{foreign};namespace=ours"),
            format!("/certificates/{}", foreign.to_uppercase()),
            format!("/certificates/{{{foreign}}}"),
            format!("/certificates/urn:uuid:{foreign}"),
            format!("/CERTIFICATES/{foreign}"),
            "/certificates/by-name/theirs/foreign".to_owned(),
            "/certificates/by-name/theirs%2Fforeign".to_owned(),
            "/certificates/by-name/ours/../theirs/foreign".to_owned(),
            "/certificates/by-name/ours%2F..%2Ftheirs/foreign".to_owned(),
            "/certificates/by-name/ours/..%2Ftheirs%2Fforeign".to_owned(),
            "/certificates/by-name//theirs/foreign".to_owned(),
            "/certificates/by-name/THEIRS/foreign".to_owned(),
        ] {
            for end in ["", "/privkey.pem"] {
                let path = format!("{path}{end}");
                let known = world.ask(Method::GET, &path).with_key(&stranger).send().await;
                assert!((400..500).contains(&known.status), "{path}: {known:?}");
                assert!(!known.text.contains("foreign.example.com"), "{path}: {}", known.text);
                let unknown = world.ask(Method::GET, &path).without_key().send().await;
                assert!((400..500).contains(&unknown.status), "{path}: {unknown:?}");
            }
        }
    }

    async fn a_csr_whose_extension_is_empty_is_answered_in_words(world: World) {
        world.create_issuer().await;
        let usages = [2, 5, 29, 37];
        let names = [2, 5, 29, 17];
        for (oid, content) in [(usages, vec![0x30, 0]), (usages, vec![]), (names, vec![0x30, 0]), (names, vec![])] {
            let mut wanted = certificate(&format!("held-{}-{}", oid[3], content.len()));
            wanted["csr"] = json!(csr_with(&oid, &content));
            wanted.as_object_mut().unwrap().remove("dnsNames");

            let answer = world.post("/certificates", wanted).await;

            assert!(matches!(answer.status, 202 | 422), "{oid:?} {content:?}: {}", answer.text);
        }
    }

    async fn a_long_list_is_compared_like_a_short_one(world: World) {
        world.create_issuer().await;
        let key = world.key(&["certificates:write"], &["default"]).await;
        let ask = async |name: &str| {
            let mut wanted = certificate("web");
            wanted["dnsNames"] = json!([name]);
            world.ask(Method::POST, "/certificates?dryRun=true").with_key(&key).json(&wanted).send().await
        };
        let team = allow(&world, "team", "default", &["other.test"]).await;
        for most in [1, 400] {
            let patterns: Vec<_> = (0..most).map(|number| format!("N{number}.Example.COM")).collect();
            let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
            let replaced = world.put(&path(&team), policy("team", "default", &patterns)).await;
            assert_eq!(replaced.status, 200, "{}", replaced.text);
            for number in [0, most - 1] {
                for name in [format!("n{number}.example.com"), format!("N{number}.eXample.Com"), format!("n{number}.EXAMPLE.com.")] {
                    assert_eq!(ask(&name).await.status, 202, "{name} of {most}");
                }
            }
            for name in [format!("n{most}.example.com"), format!("N{most}.EXAMPLE.com"), "n0.example.com.evil.test".into()] {
                ask(&name).await.is_problem(403, "name_not_allowed");
            }
        }
    }

    async fn a_ca_is_asked_over_tls_only(world: World) {
        for server in ["http://ca.example/directory", "HTTP://ca.example", "ftp://ca.example", "//ca.example", "ca.example"] {
            let mut issuer = json!({"kind": "ClusterIssuer", "name": "a", "acme": acme()});
            issuer["acme"]["server"] = json!(server);
            let problem = world.post("/issuers", issuer).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/acme/server", "{server}: {problem}");
        }
    }
}

#[test]
fn nothing_that_changes_something_is_open_to_everybody() {
    let document = serde_json::to_value(api::document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_open = operation["security"] == json!([{}]);
            assert!(
                !is_open || method == "get",
                "{method} {path} changes something, for whoever comes"
            );
        }
    }
}

/// Programs are started by the command line for its user's own editor, and by the service never: so no text of a CA,
/// a provider or a client can become a part of a command.
#[test]
fn no_text_of_others_reaches_a_shell() {
    let starts = |line: &str| line.contains("process::Command") || line.contains("Command::new(");
    let mut found = Vec::new();
    for folder in [
        "acme",
        "api",
        "audit",
        "bootstrap",
        "ca",
        "client",
        "cli",
        "config",
        "domain",
        "manifest",
        "oidc",
        "outbound",
        "pki",
        "server",
        "solver",
        "storage",
        "telemetry",
        "validation",
        "view",
        "worker",
    ] {
        for (file, text) in sources_of(folder) {
            if code(&text).any(starts) {
                found.push(file.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert_eq!(found, ["edit.rs"]);
}

#[test]
fn every_advisory_has_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, table) = page.split_once("## Advisories").unwrap();
    let mut advisories = 0;
    for line in table.lines().filter(|line| line.starts_with("| ") && line.contains("::")) {
        for named in line.split('`').filter(|part| part.contains("::")) {
            let (file, test) = named.split_once("::").unwrap();
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(
                source.contains(&format!("fn {test}(")),
                "docs/security.md names {named}, which is not there"
            );
        }
        advisories += 1;
    }
    assert!(advisories >= 19, "{advisories}");
}

/// A certificate of the namespace `theirs` that was issued; its identifier.
async fn foreign(world: &World) -> String {
    let mut wanted = certificate("foreign");
    wanted["namespace"] = json!("theirs");
    let made: Value = world.post("/certificates", wanted).await.accepted();
    let order = world.db_order(&id(&made)).await;
    world.db_issue(&order).await;
    id(&made)
}

/// A certificate for `www.example.com` whose revocation list and issuer lie at this URL, with its key.
fn pair_that_names(url: &str) -> Pair {
    let now = time::macros::datetime!(2026-11-24 12:00 UTC);
    let mut params = CertificateParams::new(["www.example.com".to_owned()]).unwrap();
    params.not_before = now - time::Duration::days(30);
    params.not_after = now + time::Duration::days(60);
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.to_owned()] }];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(AUTHORITY_ACCESS, issuer_at(url))];
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem().replace("\r\n", "\n");
    Pair { chain, key: key.serialize_pem().replace("\r\n", "\n") }
}

const AUTHORITY_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];

/// One `caIssuers` (RFC 5280, section 4.2.2.1).
fn issuer_at(url: &str) -> Vec<u8> {
    let within =
        |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let method = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
    let description = within(0x30, &[&method[..], &within(0x86, url.as_bytes())].concat());
    within(0x30, &description)
}

fn csr_with(oid: &[u64], content: &[u8]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(["held.example.com".to_owned()]).unwrap();
    if oid == [2, 5, 29, 17] {
        wanted.subject_alt_names.clear();
    }
    wanted.distinguished_name = DistinguishedName::new();
    wanted.custom_extensions = vec![CustomExtension::from_oid_content(oid, content.to_vec())];
    wanted.serialize_request(&key).unwrap().pem().unwrap()
}
