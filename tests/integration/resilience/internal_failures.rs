//! Steps that fail inside: their row says so, whatever it was, and is tried ever more seldom.

use std::cell::Cell;
use std::sync::Once;

use certwright::domain::id::IssuerId;
use certwright::domain::issuer::Account;
use certwright::storage::{Scope, issuers};
use serde_json::{Value, json};
use sqlx::Connection as _;
use time::Duration;

use crate::support::world::{World, id, on_every_database, sqlite};

thread_local! {
    /// Whether this test's steps panic where they can.
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Steps run on the thread of their test, so that no other test is disturbed.
fn panic_at_failpoints() {
    static SET_UP: Once = Once::new();
    SET_UP.call_once(|| {
        for place in ["after_new_account", "before_check", "before_post"] {
            fail::cfg_callback(place, || assert!(!PANICS.get(), "the step's bug")).unwrap();
        }
    });
    PANICS.set(true);
}

async fn ready_issuer(world: &World) {
    let issuer = id(&world.create_issuer().await);
    let mut tx = world.db.begin();
    let key = IssuerId(issuer.parse().unwrap());
    let (found, lease) = issuers::find(&mut tx, key, &Scope::Everything).await.unwrap().unwrap();
    let server = found.acme.server.clone();
    let account = Account { url: "https://ca.example/a".into(), server, email: None };
    let ready = found.registered(account, world.now()).issuer.rested(world.now());
    issuers::save(&mut tx, &ready, &lease).await.unwrap();
    tx.commit().await.unwrap();
}

async fn reasons(world: &World, about: &str) -> Vec<Value> {
    let events = world.get(&format!("/events?{about}&limit=500")).await.json();
    events["items"].as_array().unwrap().iter().map(|event| event["reason"].clone()).collect()
}

on_every_database! {
    async fn a_certificate_whose_csr_cannot_be_made_fails_in_words(world: World) {
        ready_issuer(&world).await;
        let certificate = id(&world.create_certificate("web").await);
        // No library makes a CSR of it.
        world.db_change(&certificate, |mut found| {
            found.spec.dns_names = vec!["bücher.example.com".into()];
            found
        }).await;

        world.worker().work_due().await.unwrap();

        let path = format!("/certificates/{certificate}");
        let shown = world.get(&path).await.json();
        assert_eq!(shown["status"]["lastError"]["code"], "internal_error", "{shown:#}");
        assert_eq!(shown["status"]["failedIssuanceAttempts"], 1, "{shown:#}");
        let said = world.get(&format!("{path}/explain")).await.json();
        assert_eq!((&said["doing"], &said["why"]["code"]), (&json!("backingOff"), &json!("internal_error")));
        assert!(said["actions"].to_string().contains("log"), "{said:#}");
        assert!(reasons(&world, &format!("resource=certificates/{certificate}")).await.contains(&json!("Failed")));

        // It goes on by itself, with the pauses of every failed attempt.
        world.clock.advance(Duration::minutes(70));
        world.worker().work_due().await.unwrap();
        let shown = world.get(&path).await.json();
        assert_eq!(shown["status"]["failedIssuanceAttempts"], 2, "{shown:#}");
    }

    async fn an_issuer_whose_step_panics_says_so(world: World) {
        let issuer = id(&world.create_issuer().await);
        panic_at_failpoints();

        world.worker().work_due().await.unwrap();

        let shown = world.get(&format!("/issuers/{issuer}")).await.json();
        assert_eq!(shown["status"]["lastError"]["code"], "internal_error", "{shown:#}");
        assert!(!shown.to_string().contains("bug"), "{shown:#}");
        assert_eq!(world.worker().work_due().await.unwrap(), 0, "it has a pause");
    }

    async fn an_order_whose_steps_panic_ends_as_a_failed_attempt(world: World) {
        ready_issuer(&world).await;
        let token = json!({"namespace": "certwright", "name": "cloudflare", "stringData": {"api-token": "t"}});
        world.post("/secrets", token).await.accepted();
        let certificate = id(&world.create_certificate("web").await);
        let order = world.db_order(&certificate).await;
        panic_at_failpoints();
        let path = format!("/orders/{}", order.id);

        world.worker().work_due().await.unwrap();
        let shown = world.get(&path).await.json();
        assert_eq!(shown["lastError"]["code"], "internal_error", "{shown:#}");

        let mut steps = 1;
        for _ in 0..48 {
            world.clock.advance(Duration::minutes(30) + Duration::seconds(30));
            steps += world.worker().work_due().await.unwrap();
        }
        assert!((2..=49).contains(&steps), "{steps} steps in a day");
        let shown = world.get(&format!("/certificates/{certificate}")).await.json();
        assert_eq!(shown["status"]["failedIssuanceAttempts"], 1, "{shown:#}");
    }

    async fn a_webhook_whose_delivery_panics_says_so_and_rests(world: World) {
        let hook = json!({"url": "https://127.0.0.1/", "events": ["issuer.failed"]});
        let hook = id(&world.post("/webhooks", hook).await.accepted());
        world.post(&format!("/webhooks/{hook}/test"), json!({})).await;
        panic_at_failpoints();

        world.deliver().await;

        let shown = world.get(&format!("/webhooks/{hook}")).await.json();
        assert!(shown.to_string().contains("Something inside failed"), "{shown:#}");
    }
}

/// What cannot be read has no place to say so: the log has, and pauses grow.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_put_off_ever_longer() {
    let (_folder, url) = sqlite();
    let world = World::on(&url).await;
    ready_issuer(&world).await;
    world.create_certificate("web").await;
    let mut raw = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE certificates SET spec = '{}'").execute(&mut raw).await.unwrap();
    let worker = world.worker();

    for minutes in [2, 4, 8, 16] {
        assert_eq!(worker.work_due().await.unwrap(), 1, "after {minutes} min");
        let (at, holder): (i64, Option<String>) =
            sqlx::query_as("SELECT next_action_at, leased_by FROM certificates")
                .fetch_one(&mut raw)
                .await
                .unwrap();
        let pause = i128::from(at) - world.now().unix_timestamp_nanos() / 1_000_000;
        assert_eq!((pause, holder), (minutes * 60_000, None));
        assert_eq!(worker.work_due().await.unwrap(), 0);
        world.clock.advance(Duration::minutes(i64::try_from(minutes).unwrap()));
    }
}
