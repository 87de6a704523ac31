//! `POST /import`: certificates and account keys that were made elsewhere.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwright::domain::id::CertificateId;
use certwright::storage::{Scope, certificates, expiry_watches};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::manifests::{
    CLUSTER_ISSUER, ISSUER, apply, db_account_key, faults, found, results, send, stream, www,
};
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
        assert_eq!(faults(&send(&world, "/import", &other).await)[0].3, "conflicting");
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
            let problems = reply.is_problem(422, "validation_failed")["errors"].to_string();
            assert!(problems.contains(problem), "{problem}: {problems}");
            assert!(!reply.text.contains("hunter2"), "{}", reply.text);
        }
        let alone = stream(&[tls_secret("www-tls", &good)]);
        assert!(send(&world, "/import", &alone).await.text.contains("no Certificate of this import"));
        assert!(apply(&world, &alone).await.text.contains("certwright import"));
        assert_eq!(world.get("/certificates").await.json()["items"], json!([]));
        let key = world.key(&["certificates:write", "secrets:write"], &["default"]).await;
        let ask = world.ask(Method::POST, "/import").with_key(&key).header("content-type", "application/yaml");
        ask.text(&alone).send().await.is_problem(403, "permission_denied");
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

pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A certificate that began thirty days ago, of a CA of its own.
pub(crate) fn pair(names: &[&str], days_left: i64) -> Pair {
    let now = time::macros::datetime!(2026-11-24 12:00 UTC);
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .unwrap();
    params.not_before = now - time::Duration::days(30);
    params.not_after = now + time::Duration::days(days_left);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let lines = |pem: String| pem.replace("\r\n", "\n");
    let chain = lines(params.self_signed(&key).unwrap().pem());
    Pair { chain, key: lines(key.serialize_pem()) }
}

pub(crate) fn tls_secret(name: &str, pair: &Pair) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "data": {"tls.crt": STANDARD.encode(&pair.chain), "tls.key": STANDARD.encode(&pair.key), "keystore.p12": "/w=="},
    })
}
