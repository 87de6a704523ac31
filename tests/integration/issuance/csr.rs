//! Certificates whose key stays with the client.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use super::{assert_key_signs_for, assert_ready, download};
use crate::support::site::{Site, on_each_site};
use crate::support::world;
use crate::support::world::{World, certificate, id, on_every_database};

mod checked {
    use super::*;

    on_every_database! {
        async fn names_come_from_the_csr_and_nothing_is_said_twice(world: World) {
            world.create_issuer().await;
            let (csr, _) = csr(&["B.example.com", "a.example.com"]);
            let body = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "csr": csr});
            let accepted = world.post("/certificates", body.clone()).await.accepted();

            assert_eq!(accepted["name"], "b.example.com");
            assert_eq!(accepted["dnsNames"], json!(["b.example.com", "a.example.com"]));
            assert_eq!((&accepted["csr"], &accepted["privateKey"]), (&json!(csr), &Value::Null));
            for (field, value) in [
                ("dnsNames", json!(["c.example.com"])),
                ("ipAddresses", json!(["192.0.2.1"])),
                ("commonName", json!("a.example.com")),
                ("privateKey", json!({"algorithm": "RSA"})),
            ] {
                let mut twice = body.clone();
                twice[field] = value;
                let problem = world.post("/certificates", twice).await.is_problem(422, "validation_failed");
                let fault = &problem["errors"][0];
                assert_eq!((&fault["pointer"], &fault["code"]), (&json!(format!("/{field}")), &json!("conflicting")));
            }
        }

        async fn another_csr_is_another_certificate(world: World) {
            world.create_issuer().await;
            let (first, _) = csr(&["a.example.com"]);
            let body = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "csr": first});
            let made = world.post("/certificates", body).await.accepted();
            let path = format!("/certificates/{}", id(&made));
            let (next, _) = csr(&["a.example.com", "b.example.com"]);

            let replaced = world.put(&format!("{path}/csr"), json!({"csr": next})).await;
            assert_eq!(replaced.status, 200, "{}", replaced.text);
            assert_eq!(replaced.json()["dnsNames"], json!(["a.example.com", "b.example.com"]));
            assert_eq!(replaced.json()["generation"], 2);
            let problem = world.put(&format!("{path}/csr"), json!({"csr": "x"})).await;
            problem.is_problem(422, "validation_failed");
            let labelled = world.patch(&path, json!({"labels": {"team": "a"}})).await.json();
            assert_eq!((&labelled["csr"], &labelled["generation"]), (&json!(next), &json!(2)));
            let back = world.patch(&path, json!({"csr": null, "dnsNames": ["c.example.com"]})).await.json();
            assert_eq!((&back["csr"], &back["privateKey"]["algorithm"]), (&Value::Null, &json!("ECDSA")));
        }

        async fn a_key_that_is_made_here_has_no_csr_to_replace(world: World) {
            world.create_issuer().await;
            let made = world.post("/certificates", certificate("web")).await.accepted();
            let (csr, _) = csr(&["a.example.com"]);
            let answer = world.put(&format!("/certificates/{}/csr", id(&made)), json!({"csr": csr})).await;
            let problem = answer.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["code"], "conflicting");
        }

        async fn the_account_key_is_no_certificates_key(world: World) {
            let (csr, key) = csr(&["a.example.com"]);
            let pem = key.serialize_pem();
            let secret = json!({"namespace": "certwright", "name": "mine", "stringData": {"tls.key": pem}});
            world.post("/secrets", secret).await.accepted();
            let mut issuer = world::cluster_issuer("own");
            issuer["acme"]["privateKeySecretRef"] = json!({"name": "mine"});
            world.post("/issuers", issuer).await.accepted();

            let body = json!({"issuerRef": {"name": "own", "kind": "ClusterIssuer"}, "csr": csr});
            let problem = world.post("/certificates", body).await.is_problem(422, "validation_failed");

            assert_eq!(problem["errors"][0]["pointer"], "/csr");
            assert!(problem["detail"].as_str().unwrap().contains("account"), "{problem}");
        }

        async fn an_address_needs_a_solver_that_can_prove_it(world: World) {
            world.create_issuer().await;
            let mut body = certificate("web");
            body["ipAddresses"] = json!(["2001:0db8::0001", "192.0.2.1"]);
            let accepted = world.post("/certificates", body).await.accepted();
            assert_eq!(accepted["ipAddresses"], json!(["2001:db8::1", "192.0.2.1"]));

            let alone = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "ipAddresses": ["2001:db8::1"]});
            assert_eq!(world.post("/certificates", alone.clone()).await.accepted()["name"], "ip-2001-db8--1");
            let found = world.get("/certificates?dnsName=192.0.2.1").await.json();
            assert_eq!(found["items"].as_array().unwrap().len(), 1);

            let mut dns = world::cluster_issuer("dns");
            dns["acme"]["solvers"] = json!([dns["acme"]["solvers"][0].clone()]);
            world.post("/issuers", dns).await.accepted();
            let mut refused = alone;
            refused["issuerRef"]["name"] = json!("dns");
            let problem = world.post("/certificates", refused).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["code"], "no_solver");
        }
    }
}

on_each_site! {
    async fn a_clients_key_never_comes_here_and_its_csr_is_used_again(site: Site) {
        let (csr, key) = csr(&["client.example.com", "*.client.example.com"]);
        let body = json!({"issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "csr": csr});
        let made = site.post("/certificates", &body).await.expect_status(202);
        let path = format!("/certificates/{}", made["id"].as_str().unwrap());
        let issued = site.until(&path, |now| now["status"]["phase"] == "Ready").await;

        let chain = download(&site, &issued, "fullchain.pem").await;
        assert_key_signs_for(&key.serialize_pem(), &chain);
        for file in ["privkey.pem", "combined.pem", "keystore.p12", "keystore.jks"] {
            let answer = site.file(&format!("{path}/{file}"), Some("correct horse")).await;
            assert_eq!(answer.status().as_u16(), 404, "{file}");
            assert!(answer.text().await.unwrap().contains("key_not_held"), "{file}");
        }

        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
        let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;
        assert_key_signs_for(&key.serialize_pem(), &download(&site, &renewed, "fullchain.pem").await);

        let (next, key) = super::csr(&["client.example.com"]);
        site.put(&format!("{path}/csr"), &json!({"csr": next})).await.expect_status(200);
        let replaced = site.until(&path, |now| now["status"]["revision"] == 3).await;
        assert_key_signs_for(&key.serialize_pem(), &download(&site, &replaced, "fullchain.pem").await);
    }

    async fn a_key_that_somebody_else_has_is_not_used_again(site: Site) {
        let (csr, _) = csr(&["client.example.com"]);
        let body = json!({"issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "csr": csr});
        let made = site.post("/certificates", &body).await.expect_status(202);
        let path = format!("/certificates/{}", made["id"].as_str().unwrap());
        site.until(&path, |now| now["status"]["phase"] == "Ready").await;

        let wish = json!({"reason": "keyCompromise"});
        site.post(&format!("{path}/revoke"), &wish).await.expect_status(202);

        let blocked = |now: &Value| now["status"]["lastError"]["code"] == "csr_key_compromised";
        let waits = site.until(&path, blocked).await;
        assert!(waits["status"]["lastError"]["detail"].as_str().unwrap().contains("/csr"), "{waits}");
        assert_eq!((waits["status"]["revision"].as_i64(), site.pebble.orders_created()), (Some(1), 1));
        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
        let reasons = |found: &Value| found.to_string().matches("csr_key_compromised").count();
        let again = site.until(&path, |now| blocked(now) && now["status"]["failedIssuanceAttempts"] == 2).await;
        assert_eq!((reasons(&again), site.pebble.orders_created()), (1, 1), "nobody who insists gets one");

        let (next, key) = super::csr(&["client.example.com"]);
        site.put(&format!("{path}/csr"), &json!({"csr": next})).await.expect_status(200);
        let healed = site.until(&path, |now| now["status"]["revision"] == 2).await;
        assert_key_signs_for(&key.serialize_pem(), &download(&site, &healed, "fullchain.pem").await);
    }

    async fn an_address_is_proved_by_http(site: Site) {
        let more = json!({"ipAddresses": ["127.0.0.1"]});
        let issued = site.ask_for("http", &["beside.example.com"], &more, 60).await.expect_status(202);

        assert_ready(&issued);
        let chain = download(&site, &issued, "cert.pem").await;
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
        let names = pem.parse_x509().unwrap().subject_alternative_name().unwrap().unwrap().value.to_string_list();
        assert_eq!(names, ["DNSName(beside.example.com)", "IPAddress(7f:00:00:01)"]);
        let certificate = issued["id"].as_str().unwrap();
        let orders = site.get(&format!("/orders?certificate={certificate}")).await.expect_status(200);
        let (name, address) = (json!({"type": "dns", "value": "beside.example.com"}), json!({"type": "ip", "value": "127.0.0.1"}));
        assert_eq!(orders["items"][0]["identifiers"], json!([name, address]));
    }
}

trait Listed {
    fn to_string_list(&self) -> Vec<String>;
}

impl Listed for x509_parser::extensions::SubjectAlternativeName<'_> {
    fn to_string_list(&self) -> Vec<String> {
        let mut all: Vec<_> = self.general_names.iter().map(ToString::to_string).collect();
        all.sort();
        all
    }
}

pub(crate) fn csr(names: &[&str]) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}
