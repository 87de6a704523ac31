//! Accounts: bound, imported, with a new key, given up; and what a CA that wants a person does.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::issuance::{assert_ready, clean};
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::pebble::PebbleOptions;
use crate::support::site::{Site, on_each_site};
use crate::support::world::{World, cluster_issuer, id, on_every_database};

mod asked {
    use super::*;

    on_every_database! {
        async fn a_key_of_another_kind_is_refused_with_what_helps(world: World) {
            let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem();
            let values = json!({"tls.key": rsa, "noise": "noise"});
            let secret = json!({"namespace": "certwright", "name": "mine", "stringData": values});
            world.post("/secrets", secret).await.accepted();
            for (reference, why) in [
                (json!({"name": "mine"}), "ECDSA on P-256"),
                (json!({"name": "mine", "key": "noise"}), "PEM"),
                (json!({"name": "mine", "key": "none"}), "no key `none`"),
            ] {
                let mut issuer = cluster_issuer("own");
                issuer["acme"]["privateKeySecretRef"] = reference;
                let problem = world.post("/issuers", issuer).await.is_problem(422, "validation_failed");
                assert_eq!(problem["errors"][0]["pointer"], "/acme/privateKeySecretRef");
                assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
            }
            let mut new = cluster_issuer("own");
            new["acme"]["privateKeySecretRef"] = json!({"name": "not-there"});
            world.post("/issuers", new).await.accepted();
        }

        async fn an_account_that_is_not_there_can_be_neither_changed_nor_given_up(world: World) {
            let issuer = world.create_issuer().await;
            let path = format!("/issuers/{}", id(&issuer));
            for action in ["rotate-account-key", "deactivate-account"] {
                let answer = world.post(&format!("{path}/{action}"), json!({})).await;
                answer.is_problem(409, "account_not_ready");
            }
            let limited = world.key(&["issuers:write"], &["default"]).await;
            let ask = world.ask(Method::POST, &format!("{path}/rotate-account-key"));
            ask.with_key(&limited).send().await.is_problem(403, "permission_denied");
            let bad = json!({"keyID": "", "keyAlgorithm": "HS512", "keySecretRef": {"name": "eab"}});
            let mut bound = cluster_issuer("bound");
            bound["acme"]["externalAccountBinding"] = bad;
            let problem = world.post("/issuers", bound).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
        }
    }
}

on_each_site! {
    async fn a_new_account_key_is_the_same_account(site: Site) {
        let issuer = issuer(&site, "dns").await;
        let before = site.issue("dns", &["before.example.com"]).await;
        assert_ready(&before);
        let account = site.get(&issuer).await.body["status"]["acme"]["uri"].clone();

        site.post(&format!("{issuer}/rotate-account-key"), &json!({})).await.expect_status(202);

        let after = site.until(&issuer, |now| ready(now) == "True").await;
        assert_eq!(after["status"]["acme"]["uri"], account);
        let events = site.get("/events?limit=500").await.body.to_string();
        assert!(events.contains("\"AccountKeyRotated\""), "{events}");
        assert_ready(&site.issue("dns", &["after.example.com"]).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_keys_whose_answer_is_lost_locks_nobody_out() {
    let (_folder, url) = databases::sqlite_url();
    let mut site = Site::through_proxy(&url, PebbleOptions::default()).await;
    let issuer = issuer(&site, "dns").await;
    site.until(&issuer, |now| ready(now) == "True").await;
    site.proxy().lose_answers(Kind::KeyChange, 1);

    site.post(&format!("{issuer}/rotate-account-key"), &json!({})).await.expect_status(202);
    site.until(&issuer, |now| now["status"]["lastError"].is_object()).await;
    // The CA knows the new key only, we do not know that; and then we are stopped.
    site.stop().await;
    site.start_again().await;

    site.until(&issuer, |now| ready(now) == "True").await;
    assert_eq!((site.proxy().faults(Fault::Lost), site.proxy().requests(Kind::KeyChange)), (1, 1));
    assert_ready(&site.issue("dns", &["locked.example.com"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_are_under_way_end_before_the_key_is_changed() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let issuer = issuer(&site, "dns").await;
    site.cloudflare.hide_records();
    let asked = site.ask_for("dns", &["slow.example.com"], &json!({}), 0).await.expect_status(202);
    let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
    site.until("/challenges?state=presented", |found| {
        !found["items"].as_array().unwrap().is_empty()
    })
    .await;

    site.post(&format!("{issuer}/rotate-account-key"), &json!({})).await.expect_status(202);

    site.cloudflare.show_records();
    let served = site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    assert_ready(&served);
    site.until(&issuer, |now| ready(now) == "True").await;
    assert_eq!(site.pebble.orders_created(), 1, "no order was lost to it");
    site.until(served["status"]["order"].as_str().unwrap(), clean).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_bound_to_the_one_that_the_ca_gave_out() {
    let mac = URL_SAFE_NO_PAD.encode([7; 32]);
    let (_folder, url) = databases::sqlite_url();
    let external_accounts = vec![("kid-1".to_owned(), mac.clone())];
    let site =
        Site::through_proxy(&url, PebbleOptions { external_accounts, ..Default::default() }).await;
    let unbound = issuer(&site, "dns").await;
    let refused = site.until(&unbound, |now| ready(now) == "False").await;
    assert_eq!(
        refused["status"]["lastError"]["code"], "acme_external_account_required",
        "{refused}"
    );

    let binding = json!({"externalAccountBinding":
        {"keyID": "kid-1", "keySecretRef": {"name": "eab", "key": "secret"}}});
    let made = site.create_issuer("bound", &json!([site.dns_solver()]), &binding).await;
    let path = format!("/issuers/{}", made["id"].as_str().unwrap());
    let waiting = site.until(&path, |now| ready(now) == "False").await;
    assert_eq!(waiting["status"]["lastError"]["code"], "secret_not_found", "{waiting}");
    let wrong = json!({"namespace": "certwright", "name": "eab", "stringData": {"secret": URL_SAFE_NO_PAD.encode([8; 32])}});
    let secret = site.post("/secrets", &wrong).await.expect_status(201);
    site.until(&path, |now| now["status"]["lastError"]["httpStatus"].is_number()).await;
    let right = json!({"stringData": {"secret": mac}});
    site.put(&format!("/secrets/{}", secret["id"].as_str().unwrap()), &right)
        .await
        .expect_status(200);

    let bound = site.until(&path, |now| ready(now) == "True").await;
    assert_eq!(bound["status"]["acme"]["lastRegisteredEmail"], "user@example.com");
    assert_ready(&site.issue("bound", &["bound.example.com"]).await);
    // The same key again is the same account, whatever became of the binding.
    let mut acme = bound["acme"].clone();
    acme["email"] = json!("other@example.com");
    let again = json!({"kind": "ClusterIssuer", "name": "bound", "acme": acme});
    site.put(&path, &again).await.expect_status(200);
    let changed = site
        .until(&path, |now| now["status"]["acme"]["lastRegisteredEmail"] == "other@example.com")
        .await;
    assert_eq!(changed["status"]["acme"]["uri"], bound["status"]["acme"]["uri"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_key_brings_its_account_along() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let secret = json!({"namespace": "certwright", "name": "mine", "stringData": {"tls.key": pem}});
    site.post("/secrets", &secret).await.expect_status(201);
    let reference = json!({"privateKeySecretRef": {"name": "mine"}});
    let mut accounts = Vec::new();
    for name in ["one", "other"] {
        let made = site.create_issuer(name, &json!([site.dns_solver()]), &reference).await;
        let path = format!("/issuers/{}", made["id"].as_str().unwrap());
        let known = site.until(&path, |now| ready(now) == "True").await;
        accounts.push(known["status"]["acme"]["uri"].clone());
    }
    assert_eq!(accounts[0], accounts[1]);
    assert_ready(&site.issue("other", &["mine.example.com"]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_given_up_issues_nothing_and_can_go_with_its_issuer() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let issuer = issuer(&site, "http").await;
    site.until(&issuer, |now| ready(now) == "True").await;

    site.post(&format!("{issuer}/deactivate-account"), &json!({})).await.expect_status(202);

    let over = site
        .until(&issuer, |now| now["status"]["lastError"]["code"] == "account_deactivated")
        .await;
    assert_eq!(ready(&over), "False");
    let asked = site.ask_for("http", &["www.example.com"], &json!({}), 1).await.expect_status(202);
    assert!(asked["status"]["lastError"].to_string().contains("deactivated"), "{asked}");
    site.post(&format!("{issuer}/rotate-account-key"), &json!({})).await.expect_status(409);

    let other = super::accounts::issuer(&site, "dns").await;
    site.until(&other, |now| ready(now) == "True").await;
    site.delete(&format!("{other}?deactivate=true")).await.expect_status(202);
    site.until(&other, |now| now["code"] == "not_found").await;
    let events = site.get("/events?limit=500").await.body.to_string();
    assert_eq!(events.matches("\"AccountDeactivated\"").count(), 2, "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_wants_a_person_is_said_by_all_with_the_page_and_heals_when_that_was_done() {
    const PAGE: &str = "https://ca.example/terms/v2";
    let (_folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, PebbleOptions::default()).await;
    let issuer = issuer(&site, "dns").await;
    site.proxy().want_action(Some(PAGE));

    let first = site.issue("dns", &["terms.example.com"]).await;

    assert_eq!(first["status"]["phase"], "Blocked", "{first:#}");
    assert_eq!(first["status"]["lastError"]["instance"], PAGE);
    let told = site.until(&issuer, |now| ready(now) == "False").await;
    assert_eq!(told["status"]["lastError"]["instance"], PAGE);
    let second = site.ask_for("dns", &["next.example.com"], &json!({}), 1).await.expect_status(202);
    assert_eq!(second["status"]["lastError"]["instance"], PAGE, "{second:#}");
    assert_eq!(site.proxy().faults(Fault::Action), 1, "nobody else burns an order");

    site.proxy().want_action(None);
    let same = json!({"kind": "ClusterIssuer", "name": "dns", "acme": told["acme"]});
    site.put(&issuer, &same).await.expect_status(200);
    for asked in [first, second] {
        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    }
}

/// Where the issuer of this name is.
async fn issuer(site: &Site, name: &str) -> String {
    let found = site.get(&format!("/issuers?name={name}")).await.body;
    format!("/issuers/{}", found["items"][0]["id"].as_str().unwrap())
}

fn ready(issuer: &Value) -> &str {
    issuer["status"]["conditions"][0]["status"].as_str().unwrap_or_default()
}
