//! `kill -9` beside an issuance: while somebody is told, an account's key is replaced, a certificate is
//! revoked. As in `crash`, the real program dies where something has been done and not yet been
//! remembered, and is started again.

use serde_json::json;

use crate::support::installation::{Database, Installation, Program, items};
use crate::support::receiver::Receiver;

/// Expands each scenario once per database.
macro_rules! on_both {
    ($($name:ident: $scenario:expr;)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() { $scenario(Database::Sqlite).await; })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $name() { $scenario(Database::Postgres).await; })*
        }
    };
}

on_both! {
    k11_death_between_commit_and_delivery_delays_the_message: delivery_survives;
    k12_death_between_delivery_and_mark_repeats_the_same_message: mark_survives;
    k15_death_after_a_key_change_locks_nobody_out: account_key_change_survives;
    k17_death_after_a_revocation_revokes_once_and_issues_anew: revocation_survives;
}

async fn delivery_survives(database: Database) {
    assert_eq!(told(database, "before_post").await, (0, 1));
}

async fn mark_survives(database: Database) {
    assert_eq!(told(database, "after_post").await, (1, 2));
}

/// How many messages had come when the program died at `at`, and how many have in the end; all of
/// them the same one.
async fn told(database: Database, at: &str) -> (usize, usize) {
    let site = Installation::on(database).await;
    let receiver = Receiver::start().await;
    let program = site.start_with(&format!("{at}=return")).await;
    site.set_up(&program).await;
    let hook = json!({"url": receiver.url(), "events": ["certificate.issued"]});
    let hook = site.post(&program, "/webhooks", &hook).await.unwrap();
    assert_eq!(hook.status, 201, "{hook:?}");
    site.ask_for(&program, "a").await.unwrap();
    program.die().await;
    let before = receiver.got().len();

    let mut program = site.start().await;
    site.until_all_ready(&mut program, 1).await;
    let path = format!("/webhooks/{}/deliveries", hook.body["id"].as_str().unwrap());
    site.until(&mut program, &path, |found| {
        items(found).len() == 1 && items(found)[0]["state"] == "delivered"
    })
    .await;

    let got = receiver.got();
    for again in &got {
        assert_eq!(again.kind(), "certificate.issued");
        assert_eq!(again.body, got[0].body);
        assert_eq!(again.header("webhook-id"), got[0].header("webhook-id"));
    }
    (before, got.len())
}

/// The CA knows the account by the next key, and nobody has remembered that.
async fn account_key_change_survives(database: Database) {
    let site = Installation::on(database).await;
    let mut program = site.start_with("after_key_change=return").await;
    site.set_up(&program).await;
    let issuer = until_registered(&site, &mut program).await;
    site.post(&program, &format!("/issuers/{issuer}/rotate-account-key"), &json!({})).await.ok();
    program.die().await;

    let mut program = site.start().await;
    site.until(&mut program, "/events?limit=500", |found| {
        items(found).iter().any(|event| event["reason"] == "AccountKeyRotated")
    })
    .await;
    until_registered(&site, &mut program).await;
    site.ask_for(&program, "a").await.unwrap();
    site.until_all_ready(&mut program, 1).await;
    assert_eq!(site.pebble.accounts_created(), 1);
}

async fn until_registered(site: &Installation, program: &mut Program) -> String {
    let found = site
        .until(program, "/issuers", |found| {
            items(found).iter().any(|one| one["status"]["conditions"][0]["status"] == "True")
        })
        .await;
    items(&found)[0]["id"].as_str().unwrap().to_owned()
}

/// The CA has taken the certificate back, and nobody has remembered that.
async fn revocation_survives(database: Database) {
    let site = Installation::on(database).await;
    let mut program = site.start_with("after_revoke=return").await;
    site.set_up(&program).await;
    site.ask_for(&program, "a").await.unwrap();
    let first = site.until_all_ready(&mut program, 1).await.remove(0);
    let path = format!("/certificates/{}/revoke", first["id"].as_str().unwrap());
    site.post(&program, &path, &json!({"reason": "superseded"})).await.ok();
    program.die().await;

    let mut program = site.start().await;
    site.until(&mut program, "/certificates", |found| {
        items(found)[0]["status"]["revision"] == 2 && items(found)[0]["status"]["phase"] == "Ready"
    })
    .await;
    let serial = first["status"]["serialNumber"].as_str().unwrap();
    assert_eq!(site.pebble.status_of(serial).await["Status"], "Revoked");
    assert_eq!(site.pebble.certificates_issued(), 2, "the revoked one and its successor");
}
