//! From a POST to a certificate that a real ACME server issued.

pub(crate) mod csr;
pub(crate) mod csr_forms;
pub(crate) mod duration;
pub(crate) mod expiry;
pub(crate) mod formats;
pub(crate) mod honest_failures;
#[cfg(feature = "failpoints")]
pub(crate) mod own_certificate;
pub(crate) mod renewal;
pub(crate) mod revocation;

use std::collections::HashSet;

use futures_util::future::join_all;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::support::nginx::Nginx;
use crate::support::pebble::PebbleOptions;
use crate::support::site::{Site, SiteOptions, on_each_site};
use crate::support::{databases, free_port};

on_each_site! {
    async fn apex_and_wildcard_are_proved_side_by_side_and_cleaned_up(site: Site) {
        let issued = site.issue("dns", &["example.com", "*.example.com"]).await;

        assert_ready(&issued);
        let chain = download(&site, &issued, "fullchain.pem").await;
        assert_eq!(names_of(&chain), HashSet::from(["example.com".into(), "*.example.com".into()]));
        let order = site.until(issued["status"]["order"].as_str().unwrap(), clean).await;
        assert_eq!(order["state"], "valid");
        assert_eq!(order["challenges"].as_array().unwrap().len(), 2, "{order}");
        assert_no_record(&site);
    }

    async fn a_name_is_proved_by_our_own_responder(site: Site) {
        let issued = site.issue("http", &["www.example.com"]).await;

        assert_ready(&issued);
        let order = site.get(issued["status"]["order"].as_str().unwrap()).await.body;
        assert_eq!(order["challenges"][0]["type"], "http-01");
    }

    async fn one_certificate_has_twenty_five_names(site: Site) {
        let names: Vec<_> = (0..25).map(|n| format!("{n}.many.example.com")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();

        let issued = site.issue("dns", &names).await;

        assert_ready(&issued);
        let chain = download(&site, &issued, "fullchain.pem").await;
        assert_eq!(names_of(&chain).len(), 25);
    }

    async fn key_and_chain_belong_together(site: Site) {
        for (n, key) in [
            json!({"algorithm": "ECDSA", "size": 256}),
            json!({"algorithm": "ECDSA", "size": 384}),
            json!({"algorithm": "RSA", "size": 2048}),
        ].into_iter().enumerate() {
            let name = format!("key-{n}.example.com");
            let more = json!({"privateKey": key});
            let issued = site.ask_for("dns", &[&name], &more, 60).await.expect_status(202);

            assert_ready(&issued);
            let key = download(&site, &issued, "privkey.pem").await;
            let chain = download(&site, &issued, "fullchain.pem").await;
            assert_key_signs_for(&key, &chain);
            let (leaf, rest) = (download(&site, &issued, "cert.pem").await, download(&site, &issued, "chain.pem").await);
            assert_eq!(format!("{leaf}{rest}"), chain);
        }
    }

    async fn two_certificates_at_once_share_a_challenge_name(site: Site) {
        let names = ["shared.example.com", "*.shared.example.com"];
        let called = [json!({"name": "one"}), json!({"name": "other"})];

        let asked = called.iter().map(|more| site.ask_for("dns", &names, more, 60));

        for issued in join_all(asked).await {
            assert_ready(&issued.expect_status(202));
        }
    }

    async fn a_delegated_name_is_proved_in_the_other_zone(site: Site) {
        site.cloudflare.set_cname("_acme-challenge.moved.example.com", "moved.example.org");

        let issued = site.issue("dns", &["moved.example.com"]).await;

        assert_ready(&issued);
        let order = site.until(issued["status"]["order"].as_str().unwrap(), clean).await;
        assert_eq!(order["challenges"][0]["record"]["name"], "moved.example.org");
    }

    async fn a_renewal_makes_a_new_revision_and_keeps_the_old_one(site: Site) {
        let issued = site.issue("dns", &["renew.example.com"]).await;
        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
        let old = download(&site, &issued, "fullchain.pem").await;

        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

        let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;
        assert_eq!(renewed["status"]["phase"], "Ready", "{renewed}");
        let revisions = site.get(&format!("{path}/revisions")).await.body;
        assert_eq!(revisions["items"].as_array().unwrap().len(), 2);
        let first = site.get(&format!("{path}/fullchain.pem?revision=1")).await;
        assert_eq!(first.text(), old);
        assert_ne!(download(&site, &renewed, "fullchain.pem").await, old);
    }

    async fn a_profile_of_the_certificate_beats_the_issuers(site: Site) {
        let more = json!({"profile": "shortlived"});
        let issued = site.ask_for("dns", &["short.example.com"], &more, 60).await.expect_status(202);

        assert_ready(&issued);
        let order = site.get(issued["status"]["order"].as_str().unwrap()).await.body;
        assert_eq!(order["profile"], "shortlived");
    }

    async fn the_whole_story_is_in_the_events(site: Site) {
        let issued = site.issue("dns", &["story.example.com"]).await;

        let id = issued["id"].as_str().unwrap();
        let events = site.get(&format!("/events?resource=certificates/{id}")).await.body;
        let reasons: Vec<_> = events["items"].as_array().unwrap().iter()
            .map(|event| event["reason"].as_str().unwrap()).collect();
        for reason in ["Issuing", "Generated", "Requested", "OrderCreated", "Created", "Presented", "DomainVerified", "Complete"] {
            assert!(reasons.contains(&reason), "{reason} is missing from {reasons:?}");
        }
    }

    async fn a_certificate_that_is_deleted_on_its_way_leaves_no_record(site: Site) {
        site.cloudflare.hide_records();
        let asked = site.ask_for("dns", &["gone.example.com"], &json!({}), 0).await.expect_status(202);
        let id = asked["id"].as_str().unwrap();
        site.until("/challenges?state=presented", |found| !found["items"].as_array().unwrap().is_empty()).await;
        assert_eq!(site.cloudflare.records("example.com").len(), 1);

        site.delete(&format!("/certificates/{id}")).await.expect_status(204);

        site.until("/orders", |found| found["items"].as_array().unwrap().iter().all(clean)).await;
        assert_no_record(&site);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_certificates_at_once_are_ordered_once_each_and_leave_no_record() {
    for site in both(PebbleOptions::default).await {
        let names: Vec<_> = (0..100).map(|n| format!("h{n}.example.com")).collect();
        let asked = join_all(names.iter().map(|name| {
            let site = &site;
            async move { site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202) }
        }))
        .await;

        for issued in &asked {
            assert_ready(issued);
        }
        site.until("/orders?limit=500", |found| {
            found["items"].as_array().unwrap().iter().all(clean)
        })
        .await;
        assert_no_record(&site);
        assert_eq!(site.pebble.orders_created(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorizations_that_are_valid_already_are_not_proved_again() {
    let reusing = || PebbleOptions { authz_reuse: Some(100), ..Default::default() };
    for site in both(reusing).await {
        for (name, proofs) in [("first", 1), ("again", 0)] {
            let more = json!({"name": name});
            let issued = site.ask_for("dns", &["again.example.com"], &more, 240).await;
            let issued = issued.expect_status(202);
            assert_ready(&issued);
            let order = site.get(issued["status"]["order"].as_str().unwrap()).await.body;
            assert_eq!(order["challenges"].as_array().unwrap().len(), proofs, "{order:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_work_and_do_nothing_twice() {
    let site = Site::on(&crate::support::postgres::fresh_database().await).await;
    let other = site.replica().await;
    assert_ne!(other, site.api);

    let names: Vec<_> = (0..20).map(|n| format!("shared-{n}.example.com")).collect();
    let site = &site;
    let asked = names.iter().map(|name| async move { site.issue("dns", &[name]).await });

    for issued in join_all(asked).await {
        assert_ready(&issued);
    }
    assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_01_works_behind_nginx() {
    let responder = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let nginx = Nginx::start(responder).await;
    let (folder, url) = databases::sqlite_url();
    let options = SiteOptions {
        pebble: PebbleOptions { nonce_reject: 5, ..Default::default() },
        http01_port: nginx.address().port(),
        responder,
    };
    let site = Site::with(&url, options).await;

    let issued = site.issue("http", &["behind.example.com"]).await;

    assert_ready(&issued);
    drop(folder);
}

/// A site on each database, with a CA of these options.
async fn both(options: impl Fn() -> PebbleOptions) -> Vec<Site> {
    let mut sites = Vec::new();
    let (folder, sqlite) = databases::sqlite_url();
    // The site outlives this function; the folder is swept with the system's temporary files.
    let _kept = folder.keep();
    for url in [sqlite, crate::support::postgres::fresh_database().await] {
        let port = free_port();
        let responder = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let options = SiteOptions { pebble: options(), http01_port: port, responder };
        sites.push(Site::with(&url, options).await);
    }
    sites
}

#[track_caller]
pub(crate) fn assert_ready(certificate: &Value) {
    assert_eq!(certificate["status"]["phase"], "Ready", "{certificate:#}");
    assert!(certificate["status"]["lastError"].is_null(), "{certificate:#}");
    assert_eq!(certificate["status"]["failedIssuanceAttempts"], 0, "{certificate:#}");
}

#[track_caller]
fn assert_no_record(site: &Site) {
    let left = site.cloudflare.records("example.com");
    assert!(left.is_empty(), "{left:?}");
}

/// Whether nothing of an order is left to do.
pub(crate) fn clean(order: &Value) -> bool {
    order["nextActionAt"].is_null()
        && order["challenges"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["presented"] == false))
}

pub(crate) async fn download(site: &Site, certificate: &Value, what: &str) -> String {
    let path = format!("/certificates/{}/{what}", certificate["id"].as_str().unwrap());
    let answer = site.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.text().to_owned()
}

fn names_of(chain: &str) -> HashSet<String> {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let dns = names.value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => panic!("{other:?}"),
    });
    dns.collect()
}

/// A TLS server would refuse to load a key that does not fit its certificate.
pub(crate) fn assert_key_signs_for(key: &str, chain: &str) {
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let chain =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
}
