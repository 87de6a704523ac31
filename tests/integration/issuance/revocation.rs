//! Taking certificates back at a real CA, and what clients see of it.

use serde_json::{Value, json};

use super::{assert_ready, download};
use crate::support::databases;
use crate::support::pebble::PebbleOptions;
use crate::support::site::{Site, on_each_site};
use crate::support::world::{World, id, on_every_database};

mod asked {
    use super::*;

    on_every_database! {
        async fn what_cannot_be_revoked_is_refused_with_the_reason(world: World) {
            world.create_issuer().await;
            let made = world.create_certificate("web").await;
            let path = format!("/certificates/{}/revoke", id(&made));
            let early = world.post(&path, json!({})).await.is_problem(404, "not_issued");
            assert!(early["detail"].as_str().unwrap().contains("revision"), "{early}");

            let order = world.db_order(&id(&made)).await;
            world.db_issue(&order).await;
            let problem = world.post(&path, json!({"reason": "boredom"})).await.is_problem(422, "validation_failed");
            let detail = problem["errors"][0]["detail"].as_str().unwrap();
            for known in ["unspecified", "keyCompromise", "superseded", "cessationOfOperation", "affiliationChanged"] {
                assert!(detail.contains(known), "{detail}");
            }
            world.post(&path, json!({"revision": 7})).await.is_problem(404, "not_issued");
            world.post(&path, json!({"why": "so"})).await.is_problem(422, "validation_failed");
            world.clock.advance(time::Duration::days(91));
            let over = world.post(&path, json!({})).await.is_problem(422, "validation_failed");
            assert_eq!(over["errors"][0]["pointer"], "/revision");
        }

        async fn a_wish_is_stored_shown_and_joined(world: World) {
            world.create_issuer().await;
            let made = world.create_certificate("web").await;
            let order = world.db_order(&id(&made)).await;
            world.db_issue(&order).await;
            let path = format!("/certificates/{}", id(&made));
            let wish = json!({"reason": "superseded"});
            let accepted = world.post(&format!("{path}/revoke"), wish.clone()).await.accepted();
            world.post(&format!("{path}/revoke"), wish).await.accepted();

            let shown = &accepted["status"]["revocation"];
            assert_eq!((&shown["reason"], &shown["revision"], &shown["revokedAt"]), (&json!("superseded"), &json!(1), &Value::Null));
            assert_eq!(accepted["status"]["phase"], "Ready");
            let events = world.get("/events?limit=500").await.text;
            assert_eq!(events.matches("RevocationRequested").count(), 1, "{events}");
        }

        async fn what_waits_to_be_deleted_cannot_be_changed_and_keeps_its_issuer(world: World) {
            world.create_issuer().await;
            let made = world.create_certificate("web").await;
            let order = world.db_order(&id(&made)).await;
            world.db_issue(&order).await;
            let path = format!("/certificates/{}", id(&made));

            let waiting = world.delete(&format!("{path}?revoke=true")).await.accepted();

            assert_eq!(waiting["deletionTimestamp"], "2026-11-24T12:00:00Z");
            world.patch(&path, json!({"labels": {"a": "b"}})).await.is_problem(409, "being_deleted");
            world.post(&format!("{path}/renew"), json!({})).await.is_problem(409, "being_deleted");
            world.post(&format!("{path}/revoke"), json!({})).await.is_problem(409, "being_deleted");
            assert_eq!(world.delete(&path).await.status, 204, "who does not want to wait");
            assert_eq!(world.get(&path).await.status, 404);
            let issuer = world.get("/issuers").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
            let problem = world.delete(&format!("/issuers/{issuer}")).await;
            problem.is_problem(409, "issuer_in_use");
        }

        async fn what_was_never_issued_is_deleted_at_once(world: World) {
            world.create_issuer().await;
            let made = world.create_certificate("web").await;
            let path = format!("/certificates/{}", id(&made));
            assert_eq!(world.delete(&format!("{path}?revoke=yes")).await.status, 400);
            assert_eq!(world.delete(&format!("{path}?revoke=true")).await.status, 204);
        }
    }
}

on_each_site! {
    async fn a_compromised_key_is_revoked_everywhere_and_replaced_even_if_it_was_to_be_kept(site: Site) {
        let more = json!({"privateKey": {"rotationPolicy": "Never"}, "revisionHistoryLimit": 3});
        let issued = site.ask_for("dns", &["bad.example.com"], &more, 60).await.expect_status(202);
        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
        let first = serial(&issued);
        let key = download(&site, &issued, "privkey.pem").await;
        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
        let second = serial(&site.until(&path, |now| now["status"]["revision"] == 2).await);

        let wish = json!({"reason": "keyCompromise"});
        site.post(&format!("{path}/revoke"), &wish).await.expect_status(202);

        let anew = site.until(&path, |now| now["status"]["revision"] == 3 && now["status"]["phase"] == "Ready").await;
        assert_ne!(download(&site, &anew, "privkey.pem").await, key);
        site.until(&format!("{path}/revisions"), |found| {
            found["items"].as_array().unwrap().iter().filter(|one| one["revokedAt"].is_string()).count() == 2
        }).await;
        for serial in [&first, &second] {
            let status = site.pebble.status_of(serial).await;
            assert_eq!((&status["Status"], &status["Reason"]), (&json!("Revoked"), &json!(1)), "{status}");
        }
        assert_eq!(site.pebble.status_of(&serial(&anew)).await["Status"], "Valid");
        let revisions = site.get(&format!("{path}/revisions")).await.body;
        let revoked: Vec<_> = revisions["items"].as_array().unwrap().iter().map(|one| one["revokedAt"].is_string()).collect();
        assert_eq!(revoked, [false, true, true], "{revisions}");
        let events = site.get("/events?limit=500").await.body.to_string();
        assert!(events.contains("PrivateKeyReplaced") && events.contains("\"Revoked\""), "{events}");
    }

    async fn a_deleted_certificate_is_revoked_before_it_goes(site: Site) {
        let issued = site.issue("dns", &["gone.example.com"]).await;
        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());

        let waiting = site.delete(&format!("{path}?revoke=true")).await.expect_status(202);

        assert!(waiting["deletionTimestamp"].is_string(), "{waiting}");
        site.until(&path, |now| now["code"] == "not_found").await;
        let status = site.pebble.status_of(&serial(&issued)).await;
        assert_eq!((&status["Status"], &status["Reason"]), (&json!("Revoked"), &json!(5)), "{status}");
    }

    async fn an_older_revision_is_revoked_alone(site: Site) {
        let issued = site.issue("dns", &["older.example.com"]).await;
        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
        let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;

        let wish = json!({"reason": "superseded", "revision": 1});
        site.post(&format!("{path}/revoke"), &wish).await.expect_status(202);

        let told = site.until(&path, |now| now["status"]["revocation"]["revokedAt"].is_string()).await;
        assert_eq!((&told["status"]["revision"], &told["status"]["phase"]), (&json!(2), &json!("Ready")));
        assert_eq!(site.pebble.status_of(&serial(&issued)).await["Status"], "Revoked");
        assert_eq!(site.pebble.status_of(&serial(&renewed)).await["Status"], "Valid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_is_down_is_told_when_it_is_back_and_everybody_can_see_the_wait() {
    let (_folder, url) = databases::sqlite_url();
    let mut site = Site::through_proxy(&url, PebbleOptions::default()).await;
    let issued = site.issue("dns", &["wait.example.com"]).await;
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
    site.proxy().down(true);

    site.delete(&format!("{path}?revoke=true")).await.expect_status(202);

    let waiting =
        site.until(&path, |now| now["status"]["revocation"]["lastError"].is_object()).await;
    assert!(waiting["deletionTimestamp"].is_string(), "{waiting}");
    // What is wanted outlives a restart.
    site.stop().await;
    site.start_again().await;
    site.proxy().down(false);
    site.until(&path, |now| now["code"] == "not_found").await;
    assert_eq!(site.pebble.status_of(&serial(&issued)).await["Status"], "Revoked");
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(events.contains("RevocationDelayed") && events.contains("\"Deleted\""), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_an_account_that_is_gone_is_revoked_by_its_own_key() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, PebbleOptions::default()).await;
    let mut all = Vec::new();
    for (name, key) in [
        ("p256", json!({"algorithm": "ECDSA"})),
        ("p384", json!({"algorithm": "ECDSA", "size": 384})),
        ("rsa", json!({"algorithm": "RSA"})),
    ] {
        let more = json!({"privateKey": key});
        let name = format!("{name}.example.com");
        let issued = site.ask_for("dns", &[&name], &more, 60).await.expect_status(202);
        assert_ready(&issued);
        all.push(issued);
    }
    let issuer =
        site.get("/issuers?name=dns").await.body["items"][0]["id"].as_str().unwrap().to_owned();
    let issuer = format!("/issuers/{issuer}");
    site.post(&format!("{issuer}/deactivate-account"), &json!({})).await.expect_status(202);
    site.until(&issuer, |now| now["status"]["lastError"]["code"] == "account_deactivated").await;

    for issued in all {
        let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
        site.post(&format!("{path}/revoke"), &json!({})).await.expect_status(202);

        let revoked =
            site.until(&path, |now| now["status"]["revocation"]["revokedAt"].is_string()).await;

        assert_eq!(site.pebble.status_of(&serial(&issued)).await["Status"], "Revoked");
        assert_eq!(revoked["status"]["phase"], "Revoked", "nobody is there to issue it anew");
        assert_eq!(revoked["status"]["conditions"][0]["reason"], "Revoked");
    }
}

fn serial(certificate: &Value) -> String {
    certificate["status"]["serialNumber"].as_str().unwrap().to_owned()
}
