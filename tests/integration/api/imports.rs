//! `POST /import`: certificates and account keys that were made elsewhere.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwright::domain::certificate::{Certificate, Issued};
use certwright::domain::id::CertificateId;
use certwright::storage::{Scope, certificates, expiry_watches};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::manifests::{
    CLUSTER_ISSUER, ISSUER, apply, db_account_key, faults, found, results, send, stream, www,
};
use crate::policies::policy;
use crate::support::world::{World, on_every_database};

on_every_database! {
    async fn an_imported_certificate_is_ready_and_renewed_in_its_time(world: World) {
        apply(&world, &[ISSUER, CLUSTER_ISSUER].join("---\n")).await.done();
        let pair = pair(&["www.example.com"], 60);
        let text = stream(&[tls_secret("www-tls", &pair), www("www-tls")]);

        let imported = send(&world, "/import", &text).await.done();
        assert_eq!(results(&imported), ["Certificate default/www created"]);
        let made = found(&world, "/certificates?name=www").await;
        assert_eq!((&made["status"]["phase"], &made["status"]["revision"]), (&json!("Ready"), &json!(1)));
        assert_eq!(made["status"]["notAfter"], "2027-01-23T12:00:00Z");
        // A third of the ninety days before the end, within the hour after.
        let renewal = made["status"]["renewalTime"].as_str().unwrap();
        assert!(renewal.starts_with("2026-12-24T1"), "{renewal}");
        let path = format!("/certificates/{}", made["id"].as_str().unwrap());
        let key = world.get(&format!("{path}/privkey.pem")).await.text;
        assert_eq!(key.replace('\r', ""), pair.key.replace('\r', ""));
        assert_eq!(world.get(&format!("{path}/fullchain.pem")).await.text, pair.chain);
        let revision = &world.get(&format!("{path}/revisions")).await.json()["items"][0];
        assert!(revision["order"].is_null(), "{revision}");
        assert_eq!(found(&world, "/requests?name=www-1").await["conditions"][0]["status"], "True");
        assert_eq!(world.get("/orders").await.json()["items"], json!([]));

        // From then on it is a certificate like any other, with an expiry watch and questions to the CA.
        let id = CertificateId(made["id"].as_str().unwrap().parse().unwrap());
        let mut tx = world.db.read().await.unwrap();
        let watch = expiry_watches::find(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(watch.not_after, time::macros::datetime!(2027-01-23 12:00 UTC));
        let (stored, _) = certificates::find(&mut tx, id, &Scope::Everything).await.unwrap().unwrap();
        drop(tx);
        let ari = stored.ari.as_ref().unwrap();
        assert!(ari.next_check < world.now() + time::Duration::minutes(10), "{ari:?}");
        assert!((stored.next_action_at - ari.next_check).abs() < time::Duration::SECOND, "{stored:?}");
        assert_eq!(stored.replaces(Some("https://ca.example/account/1")), None, "it is another account's, perhaps");
        let events = world.get(&format!("/events?resource={}", id.0)).await.json();
        let reasons: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, ["Imported", "PrivateKeyExported"]);

        let again = send(&world, "/import", &text).await.done();
        assert_eq!(results(&again), ["Certificate default/www unchanged"]);
        let other = stream(&[tls_secret("www-tls", &super::pair(&["www.example.com"], 60)), www("www-tls")]);
        let reply = send(&world, "/import", &other).await.done();
        assert_eq!(left_out(&reply), ["Certificate www: /spec/secretName conflicting"], "{reply:#}");
        assert_eq!(faults(&send(&world, "/import?strict=true", &other).await)[0].3, "conflicting");
    }

    async fn what_ends_within_a_day_is_renewed_before_that_when_it_is_imported(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let text = stream(&[tls_secret("www-tls", &pair(&["www.example.com", "192.0.2.1"], 1)), {
            let mut www = www("www-tls");
            www["spec"]["ipAddresses"] = json!(["192.0.2.1"]);
            www
        }]);

        send(&world, "/import", &text).await.done();

        let status = &found(&world, "/certificates?name=www").await["status"];
        let moment = |field: &str| OffsetDateTime::parse(status[field].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(moment("renewalTime") < world.now(), "{status:#}");
        assert!(moment("notAfter") > world.now(), "{status:#}");
    }

    async fn a_certificate_that_waits_takes_over_what_is_imported(world: World) {
        apply(&world, &[ISSUER, CLUSTER_ISSUER, &serde_json::to_string(&www("www-tls")).unwrap()].join("\n---\n")).await.done();
        let made = found(&world, "/certificates?name=www").await;
        let order = world.db_order(made["id"].as_str().unwrap()).await;

        let text = stream(&[tls_secret("www-tls", &pair(&["www.example.com"], 60)), www("www-tls")]);
        let imported = send(&world, "/import", &text).await.done();
        assert_eq!(results(&imported), ["Certificate default/www configured"]);
        let taken = found(&world, "/certificates?name=www").await;
        assert_eq!((&taken["status"]["phase"], &taken["status"]["ari"].is_object()), (&json!("Ready"), &true));
        assert_eq!(world.get(&format!("/orders/{}", order.id)).await.json()["state"], "errored");
    }

    async fn what_does_not_belong_together_is_not_imported(world: World) {
        apply(&world, &[ISSUER, CLUSTER_ISSUER].join("---\n")).await.done();
        let good = pair(&["www.example.com"], 60);
        let (other, over) = (pair(&["other.example.com"], 60), pair(&["www.example.com"], -1));
        let mixed = Pair { chain: good.chain.clone(), key: other.key.clone() };
        let strange = Pair { chain: [&*good.chain, &*other.chain].concat(), key: good.key.clone() };
        let broken = Pair { chain: good.chain.clone(), key: "hunter2".into() };
        for (pair, problem) in [
            (&mixed, "another key"), (&over, "ended at"), (&other, "the Certificate wants www.example.com"),
            (&strange, "did not sign"), (&broken, "private key"),
        ] {
            let text = stream(&[tls_secret("www-tls", pair), www("www-tls")]);
            let reply = send(&world, "/import", &text).await;
            let left_out = reply.done()["leftOut"].to_string();
            assert!(left_out.contains(problem), "{problem}: {left_out}");
            assert!(left_out.contains("without it would be issued anew"), "{left_out}");
            assert!(!reply.text.contains("hunter2"), "{}", reply.text);
            let strict = send(&world, "/import?strict=true", &text).await;
            assert!(strict.is_problem(422, "validation_failed")["errors"].to_string().contains(problem));
        }
        let alone = stream(&[tls_secret("www-tls", &good)]);
        assert!(send(&world, "/import", &alone).await.done()["leftOut"].to_string().contains("no Certificate of this import"));
        assert!(apply(&world, &alone).await.text.contains("certwright import"));
        assert_eq!(world.get("/certificates").await.json()["items"], json!([]));
        assert_eq!(world.get("/secrets?name=www-tls").await.json()["items"], json!([]));
        let key = world.key(&["certificates:write", "secrets:write"], &["default"]).await;
        let ask = world.ask(Method::POST, "/import").with_key(&key).header("content-type", "application/yaml");
        ask.text(&alone).send().await.is_problem(403, "permission_denied");
    }

    async fn what_can_be_taken_is_taken_and_the_rest_is_named_with_the_reason(world: World) {
        apply(&world, &[ISSUER, CLUSTER_ISSUER].join("---\n")).await.done();
        let good = pair(&["www.example.com", "192.0.2.1"], 60);
        let mut with_address = www("www-tls");
        with_address["spec"]["ipAddresses"] = json!(["192.0.2.1"]);
        let named = |name: &str, field: &str, value: Value| {
            let mut other = www(&format!("{name}-tls"));
            other["metadata"]["name"] = name.into();
            other["spec"][field] = value;
            other
        };
        let empty = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "empty-tls"},
            "data": {"tls.crt": "", "tls.key": ""},
        });
        let binary = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "binary"}, "data": {"blob": "/w=="},
        });
        let text = stream(&[json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}},
            tls_secret("www-tls", &good), with_address,
            tls_secret("gone-tls", &pair(&["gone.example.com"], 60)),
            empty, named("empty", "dnsNames", json!(["empty.example.com"])),
            tls_secret("over-tls", &pair(&["over.example.com"], -1)), named("over", "dnsNames", json!(["over.example.com"])),
            binary,
            named("nobody", "issuerRef", json!({"name": "nobody", "kind": "ClusterIssuer"})),
            named("typo", "dnsName", json!(["typo.example.com"])),
        ]})]);

        for (time, result) in [("first", "created"), ("second", "unchanged")] {
            let imported = send(&world, "/import", &text).await.done();
            assert_eq!(results(&imported), [format!("Certificate default/www {result}")], "{time}: {imported:#}");
            let mut left = left_out(&imported);
            left.sort_unstable();
            assert_eq!(left, [
                "Certificate empty: /spec/secretName conflicting", "Certificate nobody: /spec/issuerRef/name issuer_not_found",
                "Certificate over: /spec/secretName conflicting", "Certificate typo: /spec/dnsName unknown_field",
                "Namespace web: /kind unsupported", "Secret binary: /data/blob invalid", "Secret empty-tls:  invalid",
                "Secret gone-tls: /metadata/name required", "Secret over-tls:  invalid",
            ], "{time}");
        }
        assert_eq!(world.get("/certificates?count=true").await.json()["items"].as_array().unwrap().len(), 1);
        assert_eq!(world.get("/orders").await.json()["items"], json!([]), "nothing is issued anew");
    }

    async fn a_key_that_no_policy_allows_is_not_imported(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let mut strict = policy("strict", "default", &["**.example.com"]);
        strict["issuers"] = json!([{"kind": "ClusterIssuer", "name": "letsencrypt-staging"}]);
        strict["keys"] = json!({"algorithms": ["RSA", "ECDSA"], "minRsaSize": 3072});
        let strict = world.post("/policies", strict).await.accepted();
        let wanted = |issuer: &str| {
            let mut www = www("www-tls");
            www["spec"]["issuerRef"] = json!({"kind": "ClusterIssuer", "name": issuer});
            www["spec"]["privateKey"] = json!({"algorithm": "RSA", "size": 4096});
            www
        };
        let weak = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let text = stream(&[tls_secret("www-tls", &pair_of(&["www.example.com"], 60, &weak)), wanted("letsencrypt-staging")]);
        let key = world.key(&["certificates:import", "certificates:write", "secrets:write"], &["default"]).await;

        for who in [&key, &world.admin] {
            for path in ["/import", "/import?strict=true", "/import?dryRun=true"] {
                let ask = world.ask(Method::POST, path).with_key(who).header("content-type", "application/yaml");
                let problem = ask.text(&text).send().await.is_problem(403, "name_not_allowed");
                let error = &problem["errors"][0];
                assert_eq!(error["pointer"], "/spec/secretName", "{problem}");
                let detail = error["detail"].as_str().unwrap();
                assert!(detail.contains("imported") && detail.contains("3072 bits"), "{problem}");
            }
        }
        assert_eq!(world.get("/certificates").await.json()["items"], json!([]));

        let good = stream(&[tls_secret("www-tls", &pair(&["www.example.com"], 60)), wanted("letsencrypt-staging")]);
        assert_eq!(results(&send(&world, "/import", &good).await.done()), ["Certificate default/www created"]);
        // Where no policy allows the certificate, whoever is bound to no namespace goes without any.
        assert_eq!(world.delete(&format!("/policies/{}", strict["id"].as_str().unwrap())).await.status, 204);
        let free = text.replace("\"www\"", "\"free\"");
        assert_eq!(results(&send(&world, "/import", &free).await.done()), ["Certificate default/free created"]);
    }

    async fn what_was_renewed_since_it_was_imported_is_unchanged(world: World) {
        apply(&world, CLUSTER_ISSUER).await.done();
        let text = stream(&[tls_secret("www-tls", &pair(&["www.example.com"], 60)), www("www-tls")]);
        send(&world, "/import", &text).await.done();
        let id = found(&world, "/certificates?name=www").await["id"].as_str().unwrap().to_owned();
        let begins = world.now();
        world.db_change(&id, |found| {
            let issued = found.current.clone().map(|issued| Issued { revision: 9, not_before: begins, ..issued });
            Certificate { current: issued, ..found }
        }).await;

        let again = send(&world, "/import", &text).await.done();

        assert_eq!((results(&again), left_out(&again)), (vec!["Certificate default/www unchanged".to_owned()], vec![]));
    }

    async fn an_account_key_is_taken_over_if_it_can_be(world: World) {
        let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        for (name, key, taken) in [("first", &p256, true), ("second", &rsa, false)] {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "example-issuer-account-key", "namespace": "cert-manager"},
                "data": {"tls.key": STANDARD.encode(key.serialize_pem())},
            });
            let issuer = CLUSTER_ISSUER.replace("letsencrypt-staging", name);
            let text = format!("{secret}\n---\n{issuer}");
            let imported = send(&world, "/import", &text).await.done();

            assert_eq!(results(&imported), [format!("ClusterIssuer {name} created")], "the key is in no secret");
            let warned = imported["results"][0]["warnings"].to_string().contains("not ECDSA P-256");
            assert_eq!(warned, !taken, "{imported:#}");
            assert_eq!(db_account_key(&world, name).await == key.serialize_der(), taken);
        }
    }
}

/// `Kind name: pointer code` of each.
fn left_out(applied: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let all = applied["leftOut"].as_array().unwrap().iter();
    all.map(|one| {
        let fault = &one["errors"][0];
        let (kind, name) = (word(&one["kind"]), word(&one["name"]));
        format!("{kind} {name}: {} {}", word(&fault["pointer"]), word(&fault["code"]))
    })
    .collect()
}

pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A certificate that began thirty days ago, of a CA of its own.
pub(crate) fn pair(names: &[&str], days_left: i64) -> Pair {
    pair_of(names, days_left, &KeyPair::generate().unwrap())
}

/// The same for a key that is there.
fn pair_of(names: &[&str], days_left: i64, key: &KeyPair) -> Pair {
    let now = time::macros::datetime!(2026-11-24 12:00 UTC);
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .unwrap();
    params.not_before = now - time::Duration::days(30);
    params.not_after = now + time::Duration::days(days_left);
    params.use_authority_key_identifier_extension = true;
    let lines = |pem: String| pem.replace("\r\n", "\n");
    let chain = lines(params.self_signed(key).unwrap().pem());
    Pair { chain, key: lines(key.serialize_pem()) }
}

pub(crate) fn tls_secret(name: &str, pair: &Pair) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "data": {"tls.crt": STANDARD.encode(&pair.chain), "tls.key": STANDARD.encode(&pair.key), "keystore.p12": "/w=="},
    })
}
