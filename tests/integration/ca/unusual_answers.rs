//! A whole issuance from a CA that speaks oddly: what nobody needs costs nothing, what ends an order
//! is told, and what one tenant was told no other reads.

use std::sync::{Arc, Mutex};

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::issuance::assert_ready;
use crate::support::databases;
use crate::support::fault_proxy::words::{with_json, with_text};
use crate::support::fault_proxy::{Answer, Kind, problem};
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

/// Each of these on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, url) = super::databases::sqlite_url();
                super::$name(&url).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::fresh_database().await).await;
            })*
        }
    };
}

on_both! {
    odd_members_cost_neither_the_certificate_nor_a_second_order,
    answers_that_cannot_be_read_are_asked_for_and_not_made_up_for,
    an_order_whose_status_means_the_end_ends_and_is_told,
    an_order_that_was_carried_out_before_is_not_placed_again,
    what_a_ca_told_one_order_no_other_reads,
    a_changed_account_binding_is_said_to_have_no_effect,
}

async fn odd_members_cost_neither_the_certificate_nor_a_second_order(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    site.proxy().say_otherwise(|kind, _, answer| match kind {
        Kind::Directory => with_json(answer, |body| {
            body["meta"]["profiles"]["odd"] = json!(null);
            body["meta"]["caaIdentities"] = json!(5);
        }),
        Kind::NewOrder | Kind::Order | Kind::Finalize => with_json(answer, |body| {
            for member in ["expires", "error", "notBefore", "notAfter", "replaces"] {
                body[member] = json!(null);
            }
        }),
        Kind::Authorization => with_json(answer, odd_authorization),
        _ => answer,
    });

    let issued = site.issue("dns", &["*.odd.example.com", "odd.example.com"]).await;

    assert_ready(&issued);
    assert_eq!(site.proxy().requests(Kind::NewOrder), 1);
}

fn odd_authorization(body: &mut Value) {
    body["expires"] = json!(null);
    if body["wildcard"] != json!(true) {
        body["wildcard"] = json!(null);
    }
    let name = body["identifier"]["value"].as_str().unwrap().to_uppercase();
    body["identifier"] = json!({"type": null, "value": format!("{name}.")});
    if body["status"] != "pending" {
        return;
    }
    let all = body["challenges"].as_array_mut().unwrap();
    let dns = all.iter().find(|it| it["type"] == "dns-01").unwrap().clone();
    let with = |member: &str, value: Value| {
        let mut odd = dns.clone();
        odd[member] = value;
        odd
    };
    let mut old = with("status", json!("invalid"));
    old["url"] = json!("https://ca.invalid/old");
    old["error"] = json!("of yesterday");
    let odd = [
        json!(null),
        old,
        with("url", json!(null)),
        with("status", json!("asleep")),
        json!({"type": "http-01", "url": "https://ca.invalid/c", "token": "YWJj==", "status": "pending"}),
        json!({"type": "device-attest-01", "url": "https://ca.invalid/d", "token": 5, "status": "pending"}),
    ];
    for (place, challenge) in odd.into_iter().enumerate() {
        all.insert(place, challenge);
    }
}

async fn answers_that_cannot_be_read_are_asked_for_and_not_made_up_for(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    site.proxy().say_otherwise(|kind, _, answer| match kind {
        Kind::NewOrder => with_text(answer, "<html>thank you</html>".into()),
        Kind::Finalize | Kind::Challenge | Kind::Account => with_text(answer, String::new()),
        _ => answer,
    });

    let issued = site.issue("dns", &["unreadable.example.com"]).await;

    assert_ready(&issued);
    assert_eq!(site.proxy().requests(Kind::NewOrder), 1, "its Location counts");
    assert_eq!(site.proxy().requests(Kind::Finalize), 1, "it was taken");
}

async fn an_order_whose_status_means_the_end_ends_and_is_told(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    site.proxy().say_otherwise(|kind, _, answer| match kind {
        Kind::Order => with_json(answer, |body| body["status"] = json!("deactivated")),
        _ => answer,
    });

    let ended = site.issue("dns", &["ended.example.com"]).await;

    assert_eq!(ended["status"]["phase"], "Failed", "{ended:#}");
    assert_eq!(ended["status"]["lastError"]["code"], "acme_order_ended", "{ended:#}");
    assert_eq!(ended["status"]["failedIssuanceAttempts"], 1, "{ended:#}");
    assert_eq!(site.proxy().requests(Kind::NewOrder), 1, "the next attempt comes later");
}

async fn an_order_that_was_carried_out_before_is_not_placed_again(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    let done = Arc::new(Mutex::new(None));
    let (seen, again) = (Arc::clone(&done), Arc::clone(&done));
    site.proxy().say_otherwise(move |kind, path, answer| match kind {
        Kind::Order => with_json(answer, |body| {
            if body["status"] == "valid" {
                *seen.lock().unwrap() = Some((path.to_owned(), body.clone()));
            }
        }),
        _ => answer,
    });
    assert_ready(&site.issue("dns", &["again.example.com"]).await);
    assert!(done.lock().unwrap().is_some(), "the order was seen to be valid");
    let before = site.proxy().requests(Kind::NewOrder);
    let base = site.proxy().directory_url().replace("/dir", "");
    site.proxy().say_otherwise(move |kind, _, answer| match (kind, &*again.lock().unwrap()) {
        (Kind::NewOrder, Some((path, body))) => {
            let mut answer = with_text(answer, body.to_string());
            let location = HeaderValue::try_from(format!("{base}{path}")).unwrap();
            answer.headers_mut().insert(header::LOCATION, location);
            answer
        }
        _ => answer,
    });

    let second = json!({"name": "second"});
    let failed = site.ask_for("dns", &["again.example.com"], &second, 60).await.expect_status(202);

    assert_eq!(failed["status"]["phase"], "Failed", "{failed:#}");
    assert_eq!(failed["status"]["lastError"]["code"], "acme_order_reused", "{failed:#}");
    assert_eq!(
        site.proxy().requests(Kind::NewOrder) - before,
        1,
        "another would be the same again"
    );
}

async fn what_a_ca_told_one_order_no_other_reads(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    site.proxy().answer_instead(|kind, _, _, _| (kind == Kind::NewOrder).then(limited));
    let first = site.ask_for("dns", &["a.example.com"], &json!({}), 0).await.expect_status(202);
    let error = |of: &Value| of["status"]["lastError"].clone();
    let path = |of: &Value| format!("/certificates/{}", of["id"].as_str().unwrap());
    let told = site.until(&path(&first), |found| error(found)["code"] == "acme_rate_limited").await;
    assert!(error(&told).to_string().contains("secret-of-a"), "who was told reads it: {told:#}");

    let other = json!({"namespace": "other"});
    let second = site.ask_for("dns", &["b.example.com"], &other, 0).await.expect_status(202);
    let held =
        site.until(&path(&second), |found| error(found)["code"] == "acme_rate_limited").await;

    let retry_at = |of: &Value| error(of)["retryAt"].as_str().unwrap()[..19].to_owned();
    assert_eq!(retry_at(&held), retry_at(&told), "it waits as long: {held:#}");
    let orders = site.get("/orders?namespace=other").await.body;
    let events = site.get("/events?namespace=other").await.body;
    let explained = site.get(&format!("{}/explain", path(&second))).await.body;
    for said in [&held, &orders, &events, &explained] {
        assert!(!said.to_string().contains("secret-of-a"), "{said:#}");
    }
    assert_eq!(site.proxy().requests(Kind::NewOrder), 1, "only the first has asked");
}

fn limited() -> Answer {
    let words = "too many certificates (50) already issued for \"example.com\" in the last 168h0m0s: secret-of-a.example.com";
    let answer = problem(StatusCode::TOO_MANY_REQUESTS, "rateLimited", words);
    let mut answer = with_json(answer, |body| {
        body["instance"] = json!("https://ca.example/secret-of-a");
        body["subproblems"] = json!([{"type": "urn:ietf:params:acme:error:rateLimited",
            "detail": "secret-of-a", "identifier": {"type": "dns", "value": "secret-of-a.example.com"}}]);
    });
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3600"));
    answer
}

async fn a_changed_account_binding_is_said_to_have_no_effect(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    let made = site.create_issuer("bound", &json!([site.dns_solver()]), &json!({})).await;
    site.ready("bound").await;
    let path = format!("/issuers/{}", made["id"].as_str().unwrap());
    let mac = json!({"name": "eab", "stringData": {"secret": "bWFjLWtleS1tYWMta2V5"}});
    site.post("/secrets", &mac).await.expect_status(201);
    let mut wanted = json!({"kind": made["kind"], "name": made["name"], "acme": made["acme"]});
    wanted["acme"]["externalAccountBinding"] =
        json!({"keyID": "other", "keySecretRef": {"name": "eab", "key": "secret"}});

    site.put(&path, &wanted).await.expect_status(200);

    let events = site.get("/events?limit=500").await.body;
    let all = events["items"].as_array().unwrap();
    let told = all.iter().find(|one| one["reason"] == "ExternalAccountBindingNotUsed");
    let told = told.unwrap_or_else(|| panic!("{events:#}"));
    assert_eq!(told["type"], "Warning", "{told:#}");
    assert!(told["message"].as_str().unwrap().contains("another issuer"), "{told:#}");
}
