//! What is waited for, and for how long: days pass in single steps, at a real CA.

use std::sync::Arc;

use certwright::domain::id::OrderId;
use certwright::domain::issuer::WAKES_AGAIN_AFTER;
use certwright::domain::order::{End, Order, State};
use certwright::storage::{Scope, orders};
use certwright::worker::Worker;
use serde_json::{Value, json};
use time::Duration;

use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::world::{World, cluster_issuer, id, on_every_database};

on_every_database! {
    async fn a_ca_that_does_not_take_a_certificate_back_is_asked_for_three_days(world: World) {
        let (world, worker, _pebble) = at_pebble(world).await;
        // None that this CA has issued.
        let kept = strange(&world, "kept").await;
        let gone = strange(&world, "gone").await;
        world.post(&format!("{kept}/revoke"), json!({})).await.accepted();
        world.delete(&format!("{gone}?revoke=true")).await.accepted();

        worker.work_due().await.unwrap();
        let delayed = |found: Value| found["status"]["revocation"]["lastError"]["code"].clone();
        for path in [&kept, &gone] {
            assert_eq!(delayed(world.get(path).await.json()), "acme_malformed", "{path}");
        }
        world.clock.advance(Duration::hours(72) - Duration::minutes(1));
        assert_eq!(worker.work_due().await.unwrap(), 2, "it is asked to the end");
        assert_eq!(world.get(&gone).await.status, 200, "there is a minute left");
        assert!(!events(&world).await.contains("RevocationFailed"));

        world.clock.advance(Duration::minutes(1));
        assert_eq!(worker.work_due().await.unwrap(), 2);

        assert_eq!(world.get(&gone).await.status, 404, "it is deleted all the same");
        let over = world.get(&kept).await.json();
        assert_eq!((&over["status"]["phase"], &over["status"]["revocation"]["revokedAt"]), (&json!("Ready"), &Value::Null));
        assert_eq!(delayed(over), "acme_malformed", "and says why");
        let events = events(&world).await;
        assert_eq!((events.matches("RevocationFailed").count(), events.matches("\"Deleted\"").count()), (2, 1), "{events}");
        world.clock.advance(Duration::hours(2));
        assert_eq!(worker.work_due().await.unwrap(), 0, "nobody is asked any more");
    }

    async fn a_new_account_key_waits_ten_minutes_for_orders_and_not_longer(world: World) {
        let (world, worker, _pebble) = at_pebble(world).await;
        let made = world.create_certificate("slow").await;
        let order = world.db_order(&id(&made)).await;
        // It waits for something else, all the time.
        db_set(&world, order.id, |order| order.next_action_at = Some(order.deadline)).await;
        let issuer = format!("/issuers/{}", order.issuer);
        let account = world.get(&issuer).await.json()["status"]["acme"]["uri"].clone();
        world.post(&format!("{issuer}/rotate-account-key"), json!({})).await.accepted();

        for pause in [Duration::ZERO, Duration::minutes(10) - Duration::seconds(1)] {
            world.clock.advance(pause);
            assert_eq!(worker.work_due().await.unwrap(), 1);
            assert_eq!(reason(&world, &issuer).await, "RotatingAccountKey", "{pause}");
            assert!(!events(&world).await.contains("AccountKeyRotated"), "{pause}");
        }
        world.clock.advance(Duration::seconds(2));
        assert_eq!(worker.work_due().await.unwrap(), 1);

        assert!(events(&world).await.contains("\"AccountKeyRotated\""));
        assert_eq!(worker.work_due().await.unwrap(), 1, "the account is looked at by its new key");
        assert_eq!(reason(&world, &issuer).await, "ACMEAccountRegistered");
        assert_eq!(world.get(&issuer).await.json()["status"]["acme"]["uri"], account);
        assert_eq!(world.get(&format!("/orders/{}", order.id)).await.json()["state"], "pending", "it goes on");
    }
}

/// A world whose `ClusterIssuer` `le` has an account at a real CA.
async fn at_pebble(world: World) -> (World, Arc<Worker>, Pebble) {
    let (world, pebble) =
        (world.with_account_keys(), Pebble::start(PebbleOptions::default()).await);
    let worker = world.worker();
    let mut issuer = cluster_issuer("le");
    issuer["acme"]["server"] = json!(pebble.directory_url());
    issuer["acme"]["caBundle"] = json!(pebble.ca_bundle());
    let path = format!("/issuers/{}", id(&world.post("/issuers", issuer).await.accepted()));
    assert_eq!(worker.work_due().await.unwrap(), 1);
    assert_eq!(reason(&world, &path).await, "ACMEAccountRegistered");
    world.clock.advance(WAKES_AGAIN_AFTER);
    assert_eq!(worker.work_due().await.unwrap(), 1);
    (world, worker, pebble)
}

/// Where a certificate is that is served, and that no CA knows.
async fn strange(world: &World, name: &str) -> String {
    let made = id(&world.create_certificate(name).await);
    let order = world.db_order(&made).await;
    world.db_issue(&order).await;
    db_set(world, order.id, |order| {
        let url = order.url().map(str::to_owned);
        (order.state, order.next_action_at) = (State::Done { url, end: End::Valid }, None);
    })
    .await;
    format!("/certificates/{made}")
}

async fn db_set(world: &World, id: OrderId, change: impl FnOnce(&mut Order)) {
    let mut tx = world.db.begin();
    let (mut order, lease) = orders::find(&mut tx, id, &Scope::Everything).await.unwrap().unwrap();
    change(&mut order);
    orders::save(&mut tx, &order, &order.challenges, &lease, None).await.unwrap();
    tx.commit().await.unwrap();
}

async fn reason(world: &World, issuer: &str) -> String {
    let found = world.get(issuer).await.json();
    found["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned()
}

async fn events(world: &World) -> String {
    world.get("/events?limit=500").await.text
}
