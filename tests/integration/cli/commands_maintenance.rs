//! The client's commands for maintenance: deletion, new keys, redelivery.

use serde_json::{Value, json};

use crate::issuance::assert_ready;
use crate::support::databases;
use crate::support::person::Person;
use crate::support::receiver::{Receiver, Reply};
use crate::support::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_can_be_given_up_at_the_ca_first() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let issued = site.issue("dns", &["gone.example.com"]).await;
    let serial = issued["status"]["serialNumber"].as_str().unwrap().to_lowercase();

    for (arguments, part) in [
        (
            ["delete", "secret/cloudflare", "cert/gone.example.com", "--revoke"],
            "--revoke goes with",
        ),
        (
            ["delete", "ciss/http", "cert/gone.example.com", "--deactivate"],
            "--deactivate goes with",
        ),
    ] {
        let refused = person.run(&arguments);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(part) && refused.out.is_empty(), "{refused:?}");
    }
    let deleted = person.run(&["delete", "cert", "gone.example.com", "--revoke"]).succeeded();
    assert_eq!(
        deleted.out,
        "certificate.cert-manager.io \"gone.example.com\" is deleted once what was issued is revoked\n"
    );
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
    site.until(&path, |found| found["code"] == "not_found").await;
    assert_eq!(site.pebble.status_of(&serial).await["Status"], "Revoked");

    site.ready("http").await;
    let deleted = person.run(&["delete", "clusterissuer", "http", "--deactivate"]).succeeded();
    assert_eq!(
        deleted.out,
        "clusterissuer.cert-manager.io \"http\" is deleted once its account is deactivated\n"
    );
    site.until("/issuers?name=http", |found| found["items"] == json!([])).await;
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(events.contains("\"AccountDeactivated\""), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuers_account_gets_a_new_key_and_comes_to_its_end() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    site.ready("dns").await;
    let listed = person.run(&["issuers", "list"]).succeeded();
    let account = account(&site, "dns").await;
    assert!(
        listed.out.starts_with("KIND            NAMESPACE   NAME   READY   ACCOUNT\n"),
        "{listed:?}"
    );
    assert!(listed.out.contains(&account), "{listed:?}");

    let asked = person.run(&["issuers", "rotate-account-key", "dns"]).succeeded();
    assert!(
        asked
            .out
            .starts_with("clusterissuer/dns is getting a new account key; `certwright describe"),
        "{asked:?}"
    );
    site.until("/events?limit=500", |found| found.to_string().contains("\"AccountKeyRotated\""))
        .await;
    site.ready("dns").await;
    assert_eq!(super::commands_maintenance::account(&site, "dns").await, account);
    assert_ready(&site.issue("dns", &["after.example.com"]).await);

    let unknown = person.run(&["issuers", "rotate-account-key", "dns", "--kind", "Issuer"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let asked = person.run(&["issuers", "deactivate-account", "dns"]).succeeded();
    assert!(
        asked.out.starts_with("clusterissuer/dns is having its account deactivated"),
        "{asked:?}"
    );
    let over = |found: &Value| found.to_string().contains("\"account_deactivated\"");
    site.until("/issuers?name=dns", over).await;
    let late = person.run(&["issuers", "rotate-account-key", "dns"]);
    assert!(late.code == Some(1) && late.err.contains("had its account deactivated"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_a_new_secret_and_what_it_missed() {
    let (_folder, url) = databases::sqlite_url();
    let receiver = Receiver::start().await;
    let port = receiver.url().parse::<url::Url>().unwrap().port().unwrap().to_string();
    let settings = [("outbound.allow_http", "true"), ("outbound.ports", &*port)];
    let site = Site::configured(&url, &settings).await;
    let person = Person::of(&site);
    let made =
        person.run(&["webhooks", "create", &receiver.url(), "--event", "certificate.issued"]);
    let made = made.succeeded();
    let id = made.err.split(['/', ' ']).nth(1).unwrap();
    // A test is tried once.
    receiver.will_answer([Reply::Status(400)]);
    person.run(&["webhooks", "test", id]);

    let listed = person.run(&["webhooks", "deliveries", id, "--state", "dead"]).succeeded();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = listed.out.lines().map(words).collect();
    assert_eq!(lines[0], ["ID", "TYPE", "STATE", "ATTEMPTS", "ANSWER", "AGE"], "{listed:?}");
    assert_eq!(lines[1][1..5], ["webhook.test", "dead", "1", "400"], "{listed:?}");
    let delivery = &*lines[1][0];
    let again = person.run(&["webhooks", "redeliver", id, delivery]).succeeded();
    assert_eq!(again.out, format!("delivery/{delivery} is on its way again\n"));
    let got = receiver.until(2).await;
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"));
    let path = format!("/webhooks/by-name/default/{id}/deliveries/{delivery}");
    site.until(&path, |found| found["state"] == "delivered").await;

    site.issue("dns", &["told.example.com"]).await;
    receiver.until(3).await;
    site.until(
        &format!("/webhooks/by-name/default/{id}/deliveries?type=certificate.issued"),
        |found| found["items"][0]["state"] == "delivered",
    )
    .await;
    let since = ["webhooks", "redeliver", id, "--since", "2026-01-01T00:00:00Z"];
    let again = person.run(&since).succeeded();
    assert_eq!(again.out, format!("webhook/{id}: deliveries on their way again: 1\n"));
    let got = receiver.until(4).await;
    assert_eq!(got[2].header("webhook-id"), got[3].header("webhook-id"), "no test among them");
    assert_eq!(person.run(&since[..3]).code, Some(2), "which of them?");
    assert_eq!(person.run(&[&since[..], &[delivery]].concat()).code, Some(2), "one or all?");

    let rotated = person.run(&["webhooks", "rotate", id, "--former-valid-for", "0s"]).succeeded();
    assert!(rotated.out.starts_with("whsec_") && rotated.out.lines().count() == 1, "{rotated:?}");
    assert!(rotated.out != made.out && !rotated.err.contains("whsec_"), "{rotated:?}");
    person.run(&["webhooks", "test", id]).succeeded();
    let signatures = receiver.until(5).await[4].header("webhook-signature").to_owned();
    assert_eq!(signatures.split(' ').count(), 1, "the former secret signs no more");
    let refused = person.run(&["webhooks", "rotate", id, "--former-valid-for", "9000h"]);
    assert!(refused.code == Some(1) && refused.err.contains("/formerValidFor"), "{refused:?}");
}

/// The CA's name for the issuer's account.
async fn account(site: &Site, issuer: &str) -> String {
    let found = site.get(&format!("/issuers?name={issuer}")).await.body;
    found["items"][0]["status"]["acme"]["uri"].as_str().unwrap().to_owned()
}
