//! What the service says when something is wrong: the cause, in the other side's words, and what a
//! person can do; and that it goes on by itself once that was done.

use serde_json::{Value, json};

use crate::support::pebble::PebbleOptions;
use crate::support::site::{Site, SiteOptions, on_each_site};
use crate::support::{ClosedPort, free_port};

on_each_site! {
    async fn a_wrong_cloudflare_token_is_named_and_a_right_one_goes_on(site: Site) {
        let token = site.cloudflare.token().replace('0', "9");
        let wrong = json!({"namespace": "certwright", "name": "wrong", "stringData": {"api-token": token}});
        let secret = site.post("/secrets", &wrong).await.expect_status(201);
        let mut solver = site.dns_solver();
        solver["dns01"]["cloudflare"]["apiTokenSecretRef"]["name"] = json!("wrong");
        site.create_issuer("wrong-token", &json!([solver]), &json!({})).await;

        let asked = site.issue("wrong-token", &["token.example.com"]).await;
        let error = &asked["status"]["lastError"];
        assert_eq!(asked["status"]["phase"], "Blocked", "{asked:#}");
        assert_eq!(error["code"], "cloudflare_invalid_token");
        assert!(error["detail"].as_str().unwrap().contains("9109"), "Cloudflare's own code: {error}");
        let order = site.get(asked["status"]["order"].as_str().unwrap()).await.body;
        assert_eq!((&order["state"], &order["lastError"]), (&json!("errored"), error));

        let right = json!({"stringData": {"api-token": site.cloudflare.token()}});
        let path = format!("/secrets/{}", secret["id"].as_str().unwrap());
        assert!(site.put(&path, &right).await.status < 300);

        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        let issued = site.until(&path, |now| now["status"]["phase"] == "Ready").await;
        assert!(issued["status"]["lastError"].is_null(), "{issued}");
    }

    async fn a_zone_that_is_not_there_is_named(site: Site) {
        let mut solver = site.dns_solver();
        solver["dns01"].as_object_mut().unwrap().retain(|field, _| field == "cloudflare");
        site.create_issuer("no-zone", &json!([solver]), &json!({})).await;

        let asked = site.issue("no-zone", &["www.example.net"]).await;

        let error = &asked["status"]["lastError"];
        assert_eq!(asked["status"]["phase"], "Blocked", "{asked:#}");
        assert_eq!(error["code"], "cloudflare_zone_not_found");
        assert!(error["title"].as_str().unwrap().contains("www.example.net"), "{error}");
    }

    async fn a_token_that_may_not_edit_is_told_which_permission_it_lacks(site: Site) {
        site.cloudflare.forbid_edits("example.com");

        let asked = site.issue("dns", &["edit.example.com"]).await;

        let error = &asked["status"]["lastError"];
        assert_eq!(error["code"], "cloudflare_permission_denied", "{asked:#}");
        assert!(error["detail"].as_str().unwrap().contains("DNS:Edit"), "{error}");
    }

    async fn an_unknown_profile_is_answered_with_the_known_ones(site: Site) {
        let more = json!({"profile": "tlsclient"});
        let asked = site.ask_for("dns", &["profile.example.com"], &more, 60).await.expect_status(202);

        let error = &asked["status"]["lastError"];
        assert_eq!(asked["status"]["phase"], "Blocked", "{asked:#}");
        assert_eq!(error["code"], "acme_unknown_profile");
        for known in ["tlsclient", "default", "shortlived", "tlsserver"] {
            assert!(error["detail"].as_str().unwrap().contains(known), "{error}");
        }
    }

    async fn a_ca_that_cannot_be_reached_is_said_by_the_issuer_and_by_who_waits_for_it(site: Site) {
        let closed = ClosedPort::new();
        let nobody = format!("https://{}/dir", closed.address());
        let issuer = site
            .create_issuer("nobody", &json!([{"http01": {}}]), &json!({"server": nobody}))
            .await;

        let path = format!("/issuers/{}", issuer["id"].as_str().unwrap());
        let issuer = site.until(&path, |now| condition(now)["status"] == "False").await;
        assert_eq!(condition(&issuer)["reason"], "ErrRegisterACMEAccount");
        let message = condition(&issuer)["message"].as_str().unwrap();
        assert!(message.contains("127.0.0.1") && message.contains("cannot be reached"), "{message}");

        let asked = site.ask_for("nobody", &["a.example.com"], &json!({}), 1).await.expect_status(202);
        let error = asked["status"]["lastError"].to_string();
        assert!(error.contains("nobody") && error.contains("cannot be reached"), "{error}");
    }

    async fn a_resolver_that_does_not_answer_is_said_while_it_is_tried_again(site: Site) {
        // The site's DNS knows nothing of this name, and refuses the question for its CNAME.
        let asked = site.ask_for("dns", &["www.example.net"], &json!({}), 0).await.expect_status(202);

        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        let trying =
            site.until(&path, |now| now["status"]["lastError"]["code"] == "dns_lookup_failed").await;

        assert_eq!(trying["status"]["phase"], "Issuing", "{trying:#}");
        let order = site.get(trying["status"]["order"].as_str().unwrap()).await.body;
        assert_eq!(order["lastError"], trying["status"]["lastError"]);
        assert!(order["nextActionAt"].is_string());
    }

    async fn an_issuer_that_comes_late_is_waited_for(site: Site) {
        let asked = site.ask_for("http", &["late.example.com"], &json!({}), 60).await.expect_status(202);
        assert_eq!(asked["status"]["phase"], "Ready", "{asked:#}");
        let missing = site.ask_for("later", &["late.example.com"], &json!({"name": "late"}), 0).await;
        assert_eq!(missing.status, 422, "an issuer that nobody knows is refused at once: {}", missing.body);
    }

    async fn a_proof_that_is_not_visible_yet_says_who_does_not_see_it(site: Site) {
        site.cloudflare.hide_records();
        let asked = site.ask_for("dns", &["slow.example.com"], &json!({}), 0).await.expect_status(202);

        let waiting = site.until("/challenges?state=presented", |found| {
            found["items"][0]["reason"].is_string()
        }).await;
        let reason = waiting["items"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("ns.example.com"), "{reason}");
        site.cloudflare.show_records();

        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    }

    async fn cloudflare_asking_for_a_pause_is_no_failed_attempt(site: Site) {
        site.cloudflare.limit_next(1, "1");

        let issued = site.issue("dns", &["pause.example.com"]).await;

        assert_eq!(issued["status"]["phase"], "Ready", "{issued:#}");
        assert_eq!(issued["status"]["failedIssuanceAttempts"], 0);
    }

    async fn a_stop_in_the_middle_is_gone_on_from(site: Site) {
        let mut site = site;
        site.cloudflare.hide_records();
        let asked = site.ask_for("dns", &["stopped.example.com"], &json!({}), 0).await.expect_status(202);
        site.until("/challenges?state=presented", |found| !found["items"].as_array().unwrap().is_empty()).await;

        site.stop().await;
        site.cloudflare.show_records();
        site.start_again().await;

        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        site.until(&path, |now| now["status"]["phase"] == "Ready").await;
        assert_eq!(site.pebble.orders_created(), 1, "the same order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_ca_rejects_is_said_with_the_cas_words() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let port = free_port();
    let options = SiteOptions {
        pebble: PebbleOptions { blocked_domains: vec!["example.org".into()], ..Default::default() },
        http01_port: port,
        responder: ([127, 0, 0, 1], port).into(),
    };
    let site = Site::with(&url, options).await;

    let asked = site.issue("dns", &["www.example.org"]).await;

    let error = &asked["status"]["lastError"];
    assert_eq!(asked["status"]["phase"], "Blocked", "{asked:#}");
    assert_eq!(error["acmeType"], "urn:ietf:params:acme:error:rejectedIdentifier");
    assert!(error["detail"].as_str().unwrap().contains("www.example.org"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_the_ca_does_not_find_is_said_with_what_it_saw() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    let port = free_port();
    let options = SiteOptions {
        pebble: PebbleOptions::default(),
        // The CA asks where nobody listens, while the self-check is content.
        http01_port: port,
        responder: ([127, 0, 0, 1], port).into(),
    };
    let site = Site::with(&url, options).await;
    let mut solver = site.dns_solver();
    solver["dns01"]["propagation"] = json!({"mode": "none"});
    site.create_issuer("blind", &json!([solver]), &json!({})).await;
    site.cloudflare.hide_records();

    let asked = site.issue("blind", &["blind.example.com"]).await;

    let status = &asked["status"];
    assert_eq!(status["phase"], "Failed", "{asked:#}");
    assert_eq!(status["lastError"]["class"], "validation", "{asked:#}");
    assert_eq!(status["failedIssuanceAttempts"], 1);
    assert!(status["nextAttemptAt"].is_string(), "and when it is tried again: {asked:#}");
}

fn condition(issuer: &Value) -> &Value {
    &issuer["status"]["conditions"][0]
}
