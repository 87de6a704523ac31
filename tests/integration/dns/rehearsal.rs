//! What a DNS provider refuses is looked at every few minutes, at its expense and not at the CA's.

use serde_json::json;
use time::Duration;

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind;
use crate::support::postgres::fresh_database;

#[tokio::test]
async fn a_permission_that_is_given_is_noticed_within_half_an_hour_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    noticed(&url).await;
}

#[tokio::test]
async fn a_permission_that_is_given_is_noticed_within_half_an_hour_on_postgres() {
    noticed(&fresh_database().await).await;
}

async fn noticed(database: &str) {
    let driven = Driven::on(database, &json!({})).await;
    driven.cloudflare.forbid_edits("example.com");
    driven.ask_for("web").await;
    until_blocked(&driven).await;
    let orders = driven.proxy.requests(Kind::NewOrder);
    driven.cloudflare.forget_calls();

    let end = driven.world.now() + Duration::hours(2);
    while driven.world.now() < end {
        driven.world.clock.advance(Duration::minutes(5));
        driven.step().await;
    }

    assert_eq!(phase(&driven).await, "Blocked");
    assert_eq!(driven.proxy.requests(Kind::NewOrder), orders, "the CA is not asked");
    let calls = driven.cloudflare.calls();
    let asked = driven.cloudflare.called().len();
    assert!((4..=40).contains(&asked), "{asked}: {calls:?}");

    driven.cloudflare.allow_edits("example.com");
    driven.world.clock.advance(Duration::minutes(33));
    driven.until_all_ready().await;

    assert_eq!(driven.proxy.requests(Kind::NewOrder), orders + 1);
    until_nothing_is_left(&driven).await;
}

/// Until the looks and the order have cleaned up.
async fn until_nothing_is_left(driven: &Driven) {
    for _ in 0..100 {
        if driven.cloudflare.records("example.com").is_empty() {
            return;
        }
        driven.pass().await;
        driven.step().await;
    }
    panic!("records are left: {:?}", driven.cloudflare.records("example.com"));
}

async fn until_blocked(driven: &Driven) {
    for _ in 0..100 {
        driven.step().await;
        if phase(driven).await == "Blocked" {
            return;
        }
        driven.pass().await;
    }
    panic!("it is not blocked: {:#?}", driven.world.certificates().await);
}

async fn phase(driven: &Driven) -> String {
    let all = driven.world.certificates().await;
    all[0]["status"]["phase"].as_str().unwrap().to_owned()
}
