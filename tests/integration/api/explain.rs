//! What `GET /certificates/{id}/explain` says: through the API, and about real counterparts.

use axum::http::Method;
use certwright::domain::backoff::Jitter;
use certwright::domain::failure::{Failure, code};
use certwright::domain::order::Outcome;
use serde_json::{Value, json};

use crate::support::pebble::PebbleOptions;
use crate::support::site::{Site, SiteOptions, on_each_site};
use crate::support::world::{World, id, on_every_database};
use crate::support::{ClosedPort, free_port};

on_every_database! {
    async fn a_certificate_that_waits_for_its_issuer_says_so_at_once(world: World) {
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let error = &made["status"]["lastError"];
        assert_eq!(error["code"], "issuer_not_ready", "{made:#}");
        let why = "Referenced ClusterIssuer \"le\" is not ready (Registering): The ACME account is being registered";
        assert_eq!(error["detail"], why, "{made:#}");
        assert_eq!(events_of(&world, &made).await, ["Issuing", "IssuerNotReady"]);

        let path = explain_path(&made);
        let said = world.get(&path).await.json();

        assert_eq!(said["doing"], "waitingForIssuer", "{said:#}");
        assert_eq!(said["phase"], "Issuing");
        assert!(said["summary"].as_str().unwrap().contains("ClusterIssuer \"le\""), "{said:#}");
        assert!(said["next"]["at"].is_string());

        world.db_register().await;
        let starting = world.create_certificate("api").await;
        assert_eq!(starting["status"]["lastError"], Value::Null, "{starting:#}");
        assert_eq!(world.get(&explain_path(&starting)).await.json()["doing"], "starting");
        assert_eq!(events_of(&world, &starting).await, ["Issuing"]);
    }

    async fn an_attempt_that_failed_says_why_when_it_goes_on_and_what_helps(world: World) {
        world.create_issuer().await;
        let path = explain_path(&world.create_certificate("web").await);
        let caa = Failure::of(code::ACME_CAA, "CAA for web");
        let failure = Failure { instance: Some("https://ca.example/unpause".into()),
            ..Failure::of(code::ACME_PAUSED, "too many failures") };

        fail(&world, &path, Outcome::Failed(caa)).await;
        let said = world.get(&path).await.json();
        assert_eq!((&said["doing"], &said["phase"]), (&json!("backingOff"), &json!("Failed")));
        assert_eq!(said["why"]["code"], "acme_caa");
        assert_eq!(said["next"]["at"], "2026-11-24T13:00:00Z");
        assert!(said["summary"].as_str().unwrap().contains("CAA"), "{said:#}");
        assert!(said["actions"].to_string().contains("/renew"), "{said:#}");

        fail(&world, &path, Outcome::Blocked(failure)).await;
        let said = world.get(&path).await.json();
        assert_eq!((&said["doing"], &said["phase"]), (&json!("blocked"), &json!("Blocked")));
        assert!(said["actions"].to_string().contains("https://ca.example/unpause"), "{said:#}");
    }

    async fn an_order_under_way_and_its_end_are_told(world: World) {
        world.create_issuer().await;
        let path = explain_path(&world.create_certificate("web").await);
        let order = world.db_order(&path[14..50]).await;

        let said = world.get(&path).await.json();
        assert_eq!(said["doing"], "waitingForProofs", "{said:#}");
        assert_eq!(said["order"], format!("/orders/{}", order.id));
        assert_eq!(said["deadline"], "2026-11-25T12:00:00Z");

        world.db_issue(&order).await;
        let said = world.get(&path).await.json();
        assert_eq!((&said["doing"], &said["phase"]), (&json!("waitingForRenewal"), &json!("Ready")));
        assert_eq!(said["why"], Value::Null);
        assert_eq!(said["actions"], json!([]));
        assert_eq!(said["next"]["at"], "2027-01-23T12:00:00Z");
    }

    async fn curl_gets_a_few_lines_and_strangers_get_nothing(world: World) {
        world.create_issuer().await;
        let path = explain_path(&world.create_certificate("web").await);

        let text = world.ask(Method::GET, &path).header("accept", "text/plain").send().await;
        assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
        assert!(text.text.starts_with("web: Issuing\n"), "{}", text.text);
        assert!(text.text.contains("\nnext:"), "{}", text.text);

        let known = world.get(&path).await.header("etag").to_owned();
        let again = world.ask(Method::GET, &path).header("if-none-match", &known).send().await;
        assert_eq!(again.status, 304);

        let stranger = world.key(&["certificates:read"], &["other"]).await;
        let refused = world.ask(Method::GET, &path).with_key(&stranger).send().await;
        refused.is_problem(404, "not_found");
    }
}

mod about_real_counterparts {
    use super::*;

    on_each_site! {
        async fn what_dns_provider_and_ca_object_to_is_explained(site: Site) {
            let closed = ClosedPort::new();
            let nobody = json!({"server": format!("https://{}/dir", closed.address())});
            site.create_issuer("nobody", &json!([{"http01": {}}]), &nobody).await;
            let mut solver = site.dns_solver();
            solver["dns01"].as_object_mut().unwrap().retain(|field, _| field == "cloudflare");
            site.create_issuer("no-zone", &json!([solver]), &json!({})).await;
            site.cloudflare.forbid_edits("example.com");
            // No server listens there.
            let silent = std::net::IpAddr::from([127, 0, 0, 9]);
            site.cloudflare.add_nameserver("example.org", "ns2.example.org", silent);

            let zone = explained(&site, "no-zone", "www.example.net", &json!({}), "cloudflare_zone_not_found").await;
            assert!(zone["summary"].as_str().unwrap().contains("www.example.net"), "{zone:#}");
            assert!(zone["actions"].to_string().contains("Zone:Read"), "{zone:#}");

            let token = explained(&site, "dns", "edit.example.com", &json!({}), "cloudflare_permission_denied").await;
            assert_eq!(token["doing"], "blocked");
            assert!(token["actions"].to_string().contains("DNS:Edit"), "{token:#}");

            let profile = json!({"profile": "tlsclient"});
            let profile = explained(&site, "dns", "p.example.com", &profile, "acme_unknown_profile").await;
            assert!(profile["summary"].as_str().unwrap().contains("shortlived"), "{profile:#}");

            let down = explained(&site, "nobody", "down.example.com", &json!({}), "acme_unreachable").await;
            assert_eq!(down["doing"], "waitingForIssuer");
            assert!(down["summary"].as_str().unwrap().contains("The CA is down"), "{down:#}");

            let asked = site.ask_for("dns", &["slow.example.org"], &json!({}), 0).await.expect_status(202);
            let said = site.until(&explain_path(&asked), |said| {
                said["observations"].as_array().is_some_and(|seen| seen.len() == 2)
            }).await;
            assert_eq!(said["doing"], "waitingForProofs", "{said:#}");
            let sees = |server: &str| {
                let all = said["observations"].as_array().unwrap();
                let of = |one: &&Value| one["by"].as_str().unwrap().starts_with(server);
                all.iter().find(of).unwrap()["seen"].clone()
            };
            assert_eq!((sees("ns.example.org"), sees("ns2.example.org")), (json!(true), json!(false)));
            assert!(said["summary"].as_str().unwrap().contains("ns2.example.org cannot be asked"), "{said:#}");
            assert!(said["actions"].to_string().contains("port 53"), "{said:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_ca_rejects_is_explained() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let port = free_port();
    let blocked_domains = vec!["example.org".into()];
    let options = SiteOptions {
        pebble: PebbleOptions { blocked_domains, ..Default::default() },
        http01_port: port,
        responder: ([127, 0, 0, 1], port).into(),
    };
    let site = Site::with(&url, options).await;

    let code = "acme_rejected_identifier";
    let said = explained(&site, "dns", "www.example.org", &json!({}), code).await;

    assert!(said["summary"].as_str().unwrap().contains("www.example.org"), "{said:#}");
    assert!(said["actions"].to_string().contains("Remove the name"), "{said:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_that_answers_something_else_is_explained_without_its_words() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let router = axum::Router::new().fallback(async || "It works!");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let options = SiteOptions {
        pebble: PebbleOptions::default(),
        http01_port: port,
        responder: ([127, 0, 0, 1], free_port()).into(),
    };
    let site = Site::with(&url, options).await;

    let asked = site.ask_for("http", &["web.example.com"], &json!({}), 0).await.expect_status(202);
    let said = site
        .until(&explain_path(&asked), |said| !said["observations"].as_array().unwrap().is_empty())
        .await;

    let seen = &said["observations"][0];
    assert_eq!((&seen["dnsName"], &seen["seen"]), (&json!("web.example.com"), &json!(false)));
    assert_eq!(seen["what"], "answered 200 with 9 bytes that are not the proof");
    assert!(said["summary"].as_str().unwrap().contains("Port 80 does not answer"), "{said:#}");
    assert!(said["actions"].to_string().contains("/.well-known/acme-challenge/"), "{said:#}");
}

/// The explanation of a certificate for this name, once it has this error.
async fn explained(site: &Site, issuer: &str, name: &str, more: &Value, code: &str) -> Value {
    let asked = site.ask_for(issuer, &[name], more, 0).await.expect_status(202);
    site.until(&explain_path(&asked), |said| said["why"]["code"] == code).await
}

async fn fail(world: &World, path: &str, outcome: Outcome) {
    let now = world.now();
    world
        .db_change(&path[14..50], |found| {
            found.order_failed(outcome, 0, now, Jitter::NONE).certificate
        })
        .await;
}

/// Reasons, the first event first.
async fn events_of(world: &World, certificate: &Value) -> Vec<String> {
    let found = world.get(&format!("/events?resource={}", id(certificate))).await.json();
    let all = found["items"].as_array().unwrap().iter();
    all.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

fn explain_path(certificate: &Value) -> String {
    format!("/certificates/{}/explain", id(certificate))
}
