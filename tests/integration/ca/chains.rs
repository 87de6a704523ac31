//! What a CA may send instead of a proper chain, and what is served then.

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use time::Duration;

use crate::issuance::csr::csr;
use crate::issuance::{assert_key_signs_for, assert_ready, download};
use crate::support::pebble::PebbleOptions;
use crate::support::site::Site;

/// Expands each test once per database, with a proxy before the CA.
macro_rules! on_each_faulty_site {
    ($(async fn $name:ident($site:ident: Site) $body:block)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, url) = $crate::support::databases::sqlite_url();
                let $site = Site::through_proxy(&url, PebbleOptions::default()).await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let url = $crate::support::postgres::fresh_database().await;
                let $site = Site::through_proxy(&url, PebbleOptions::default()).await;
                $body
            })*
        }
    };
}

on_each_faulty_site! {
    async fn what_is_no_chain_is_a_failed_attempt_and_one_order(site: Site) {
        let secret = KeyPair::generate().unwrap().serialize_pem();
        let (stranger, _) = authority("stranger");
        let page = "<html>busy</html>\n".to_owned();
        for (place, (more, code, word)) in [
            (secret.clone(), "acme_bad_chain", "private key"),
            (page, "acme_bad_chain", "outside"),
            (stranger, "acme_broken_chain", "did not sign"),
        ].into_iter().enumerate() {
            site.proxy().rewrite_chains(move |chain| format!("{chain}{more}"));
            let path = ask(&site, &json!({"dnsNames": [format!("added-{place}.example.com")]})).await;

            let failed = site.until(&path, |now| now["status"]["failedIssuanceAttempts"] == 1).await;

            let error = &failed["status"]["lastError"];
            assert_eq!((&error["code"], &error["class"]), (&json!(code), &json!("validation")));
            assert!(error["detail"].as_str().unwrap().contains(word), "{error}");
            assert_eq!(site.pebble.orders_created(), place + 1, "no other order would end better");
            assert_eq!(site.get(&format!("{path}/fullchain.pem")).await.status, 404);
            let orders = site.get(&format!("/orders?certificate={}", failed["id"].as_str().unwrap())).await.body;
            assert_eq!(orders["items"][0]["state"], "errored", "{orders}");
            let told = site.get(&format!("{path}/explain")).await.body.to_string();
            assert!(told.contains("cannot be used") && !told.contains(&secret[40..80]), "{told}");
        }

        site.proxy().rewrite_chains(str::to_owned);
        let path = ask(&site, &json!({"dnsNames": ["later.example.com"]})).await;
        assert_ready(&site.until(&path, is_ready).await);
    }

    async fn a_certificate_that_no_order_would_cure_costs_one_order(site: Site) {
        let (csr, key) = csr(&["mine.example.com"]);
        let other = KeyPair::generate().unwrap();
        let (authority, issuer) = authority("stranger");
        let leaf = |key: &KeyPair, name: &str| leaf(&issuer, key, &[name]);
        for (place, (leaf, code)) in [
            (leaf(&other, "mine.example.com"), "acme_wrong_key"),
            (leaf(&key, "other.example.com"), "acme_missing_names"),
        ].into_iter().enumerate() {
            let sent = [&*leaf, &*authority].concat();
            site.proxy().rewrite_chains(move |_| sent.clone());
            let path = ask(&site, &json!({"csr": csr, "name": format!("attempt-{place}")})).await;

            let failed = site.until(&path, |now| now["status"]["failedIssuanceAttempts"] == 1).await;

            assert_eq!(failed["status"]["lastError"]["code"], code);
            assert_eq!(site.pebble.certificates_issued(), place + 1);
        }
    }

    async fn a_ca_that_adds_a_name_is_used_and_told(site: Site) {
        let (csr, key) = csr(&["mine.example.com"]);
        let (authority, issuer) = authority("generous");
        let leaf = leaf(&issuer, &key, &["mine.example.com", "www.mine.example.com"]);
        let sent = [leaf, authority].concat();
        let expected = sent.clone();
        site.proxy().rewrite_chains(move |_| sent.replace('\n', "\r\n"));

        let path = ask(&site, &json!({"csr": csr})).await;
        let served = site.until(&path, is_ready).await;

        assert_ready(&served);
        assert_eq!(download(&site, &served, "fullchain.pem").await, expected);
        let events = site.get("/events?limit=500").await.body.to_string();
        assert!(events.contains("NamesAdded") && events.contains("www.mine.example.com"), "{events}");
        assert_eq!(site.pebble.orders_created(), 1);
    }

    async fn a_chain_is_served_in_one_form_however_it_came(site: Site) {
        site.proxy().rewrite_chains(|chain| {
            let at = chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
            let (leaf, rest) = chain.split_at(at);
            [rest, leaf].concat().trim_end().replace('\n', "\r\n")
        });

        let path = ask(&site, &json!({"dnsNames": ["form.example.com"]})).await;
        let issued = site.until(&path, is_ready).await;

        let full = download(&site, &issued, "fullchain.pem").await;
        let (leaf, above) = (download(&site, &issued, "cert.pem").await, download(&site, &issued, "chain.pem").await);
        let key = download(&site, &issued, "privkey.pem").await;
        assert_eq!([&*leaf, &*above].concat(), full);
        assert_eq!((leaf.matches("BEGIN").count(), above.matches("BEGIN").count()), (1, 1));
        assert_eq!(download(&site, &issued, "combined.pem").await, [&*key, &*full].concat());
        assert!(!full.contains('\r') && full.ends_with("-----END CERTIFICATE-----\n"), "{full:?}");
        assert!(full.lines().all(|line| line.len() <= 64), "{full}");
        assert_key_signs_for(&key, &full);
        let events = site.get("/events?limit=500").await.body.to_string();
        assert!(events.contains("ChainSorted"), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_that_cannot_be_used_is_passed_over() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let pebble = PebbleOptions { alternate_roots: 2, ..PebbleOptions::default() };
    let site = Site::through_proxy(&url, pebble).await;
    let name = common_name(&site.pebble.alternate_root_pem(2).await);
    let solvers = json!([site.dns_solver()]);
    site.create_issuer("other", &solvers, &json!({"preferredChain": name})).await;
    let sent = AtomicUsize::new(0);
    site.proxy().rewrite_chains(move |chain| match sent.fetch_add(1, Ordering::Relaxed) {
        0 => chain.to_owned(),
        _ => format!("{chain}<html>"),
    });

    let issued = site.issue("other", &["passed.example.com"]).await;

    assert_ready(&issued);
    let chain = download(&site, &issued, "fullchain.pem").await;
    assert_key_signs_for(&download(&site, &issued, "privkey.pem").await, &chain);
    assert!(!chain.contains("html"), "{chain}");
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(
        events.contains("PreferredChainNotUsed") && events.contains("outside of its PEM"),
        "{events}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_leads_elsewhere_than_the_one_before_is_told_on_sqlite() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    leads_elsewhere(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_leads_elsewhere_than_the_one_before_is_told_on_postgres() {
    leads_elsewhere(&crate::support::postgres::fresh_database().await).await;
}

async fn leads_elsewhere(database: &str) {
    let pebble = PebbleOptions { alternate_roots: 2, ..PebbleOptions::default() };
    let site = Site::through_proxy(database, pebble).await;
    let name = common_name(&site.pebble.alternate_root_pem(2).await);
    let solvers = json!([site.dns_solver()]);
    site.create_issuer("elsewhere", &solvers, &json!({"preferredChain": name})).await;
    site.ready("elsewhere").await;
    let issued = site.issue("dns", &["chain.example.com"]).await;
    assert_ready(&issued);
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
    let told = async || {
        let events = site.get("/events?limit=500").await.body;
        let all = events["items"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["reason"] == "ChainChanged").collect::<Vec<_>>()
    };

    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
    site.until(&path, |now| now["status"]["revision"] == 2).await;
    assert_eq!(told().await, Vec::<Value>::new(), "it leads where it led");

    let elsewhere = json!({"issuerRef": {"kind": "ClusterIssuer", "name": "elsewhere"}});
    site.patch(&path, &elsewhere).await.expect_status(200);
    site.until(&path, |now| now["status"]["revision"] == 3).await;
    let told = told().await;
    assert_eq!(told.len(), 1, "{told:?}");
    let words = format!("The chain leads to \"{name}\", where the one before led to \"");
    assert!(told[0]["message"].as_str().unwrap().starts_with(&words), "{told:?}");
    let metrics = site.get("/metrics").await;
    let counted = "certwright_chain_changes_total{issuer=\"elsewhere\",kind=\"ClusterIssuer\"}";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

fn common_name(pem: &str) -> String {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

fn is_ready(now: &Value) -> bool {
    now["status"]["phase"] == "Ready"
}

/// Asks for a certificate; where it is.
async fn ask(site: &Site, more: &Value) -> String {
    let mut body = json!({"issuerRef": {"name": "dns", "kind": "ClusterIssuer"}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = site.post("/certificates", &body).await.expect_status(202);
    format!("/certificates/{}", made["id"].as_str().unwrap())
}

/// A root of nobody's.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem().replace("\r\n", "\n");
    (pem, Issuer::new(params, key))
}

fn leaf(issuer: &Issuer<'static, KeyPair>, key: &KeyPair, names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = certwright::clock::Clock::now(&certwright::clock::SystemClock);
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(90);
    params.signed_by(key, issuer).unwrap().pem().replace("\r\n", "\n")
}
