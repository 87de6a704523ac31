//! Long-lived answers end when their key is deleted.

use std::time::Duration;

use axum::http::Method;
use certwright::storage::Db;
use serde_json::json;

use crate::storage::events::{NOW, record, someone};
use crate::support::postgres::fresh_database;
use crate::support::receiver::Reply;
use crate::support::sse::Served;
use crate::support::world::{Reply as Answer, World, certificate, id, on_every_database};
use crate::webhooks::hooked;

const GUARD: Duration = Duration::from_mins(2);

on_every_database! {
    async fn a_held_request_ends_when_its_key_is_deleted(world: World) {
        held_request_ends(&world, &world).await;
    }

    async fn a_stream_ends_when_its_key_is_deleted(world: World) {
        stream_ends(&world, &world).await;
    }

    async fn a_held_test_ends_when_its_key_is_deleted(world: World) {
        let (receiver, hook) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Hang);
        let made = key(&world).await;
        let path = format!("/webhooks/{}/test", id(&hook));
        let test = world.ask(Method::POST, &path).with_key(made["key"].as_str().unwrap());

        let (answer, ()) = tokio::join!(within(test.header("prefer", "wait=300").send()), async {
            until(async || {
                let path = format!("/webhooks/{}/deliveries", id(&hook));
                !world.get(&path).await.json()["items"].as_array().unwrap().is_empty()
            }).await;
            delete(&world, &made).await;
        });

        answer.is_problem(401, "unauthenticated");
    }

    async fn a_stream_goes_on_when_other_keys_are_deleted(world: World) {
        let (made, other) = (key(&world).await, key(&world).await);
        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(made["key"].as_str().unwrap(), "", None).await;

        delete(&world, &other).await;
        record(&world.db, someone(), "afterwards", NOW).await;

        assert_eq!(stream.messages(1).await, ["afterwards"]);
    }
}

#[tokio::test]
async fn another_replica_ends_what_was_asked_for_with_a_deleted_key() {
    let url = fresh_database().await;
    let (one, other) = (World::on(&url).await, World::over(Db::connect(&url).await.unwrap()).await);

    held_request_ends(&one, &other).await;
    stream_ends(&one, &other).await;
}

/// A request to `world` that waits, whose key is deleted at `by`.
async fn held_request_ends(world: &World, by: &World) {
    world.create_issuer().await;
    let made = key(world).await;
    let create = world.ask(Method::POST, "/certificates").with_key(made["key"].as_str().unwrap());
    let create = create.header("prefer", "wait=300").json(&certificate("held"));

    let (answer, ()) = tokio::join!(within(create.send()), async {
        until(async || !world.certificates().await.is_empty()).await;
        delete(by, &made).await;
    });

    answer.is_problem(401, "unauthenticated");
}

/// A stream of `world`, whose key is deleted at `by`: nothing of what happens afterwards shows.
async fn stream_ends(world: &World, by: &World) {
    let made = key(world).await;
    let served = Served::of(world).await;
    let (mut stream, _) = served.follow(made["key"].as_str().unwrap(), "", None).await;

    delete(by, &made).await;
    record(&by.db, someone(), "afterwards", NOW).await;

    assert_eq!(stream.next().await, None);
}

async fn key(world: &World) -> serde_json::Value {
    world.post("/api-keys", json!({"name": "one", "permissions": ["*"]})).await.accepted()
}

async fn delete(world: &World, key: &serde_json::Value) {
    assert_eq!(world.delete(&format!("/api-keys/{}", id(key))).await.status, 204);
}

async fn within(answer: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(GUARD, answer).await.expect("it ends with its key")
}

async fn until(holds: impl AsyncFn() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let come = async {
        while !holds().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(GUARD, come).await.expect("it comes to it");
}
