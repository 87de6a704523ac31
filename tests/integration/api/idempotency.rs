//! Idempotency: a request that arrives twice is done once.

use axum::http::Method;
use certwright::domain::certificate::{Certificate, State};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::manifests::CLUSTER_ISSUER;
use crate::policies::allow;
use crate::support::world::{Reply, World, acme, certificate, id, on_every_database};

on_every_database! {
    async fn the_same_request_gets_the_same_answer(world: World) {
        world.create_issuer().await;
        let first = send(&world, "one", &certificate("web")).await;
        let made = first.accepted();
        world.patch(first.header("location"), json!({"labels": {"a": "b"}})).await;

        let second = send(&world, "one", &certificate("web")).await;
        assert_eq!(second.accepted()["id"], made["id"]);
        assert_eq!(second.header("idempotency-replayed"), "true");
        assert_eq!(second.header("location"), first.header("location"));
        assert_eq!(first.header("idempotency-replayed"), "");
        assert_eq!(world.certificates().await.len(), 1);
    }

    async fn a_replay_shows_the_resource_as_it_is_now(world: World) {
        world.create_issuer().await;
        let first = send(&world, "one", &certificate("web")).await;
        let path = first.header("location").to_owned();
        world.patch(&path, json!({"labels": {"a": "b"}})).await;

        let second = send(&world, "one", &certificate("web")).await;
        let present = world.get(&path).await;
        assert_eq!(second.accepted(), present.json());
        assert_eq!(second.header("etag"), present.header("etag"));
        assert_eq!(second.json()["labels"], json!({"a": "b"}));

        world.delete(&path).await;
        let problem = send(&world, "one", &certificate("web")).await.is_problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains("new Idempotency-Key"), "{problem}");
    }

    async fn a_replay_waits_as_it_is_asked_to(world: World) {
        world.create_issuer().await;
        let made = id(&send(&world, "one", &certificate("web")).await.accepted());
        let order = world.db_order(&made).await;
        let replay = async {
            let wanted = certificate("web");
            let ask = world.ask(Method::POST, "/certificates").header("idempotency-key", "one");
            ask.header("prefer", "wait=120").json(&wanted).send().await
        };
        let (second, ()) = futures_util::future::join(replay, world.db_issue(&order)).await;
        assert_eq!(second.accepted()["status"]["phase"], "Ready");
        assert_eq!(second.header("preference-applied"), "wait=120");
    }

    async fn an_action_is_done_once_too(world: World) {
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let order = world.db_order(&id(&made)).await;
        world.db_issue(&order).await;
        let renew = format!("/certificates/{}/renew", id(&made));
        let ask = || world.ask(Method::POST, &renew).header("idempotency-key", "one").send();
        assert_eq!(ask().await.accepted()["status"]["phase"], "Renewing");
        world.db_change(&id(&made), |one| Certificate { state: State::Idle, ..one }).await;

        let again = ask().await;
        assert_eq!((again.accepted()["status"]["phase"].as_str(), again.header("idempotency-replayed")), (Some("Ready"), "true"));
    }

    async fn one_of_two_keys_is_enough_and_its_value_is_not_kept(world: World) {
        let wanted = json!({"name": "ci", "permissions": ["certificates:read"]});
        let ask = || world.ask(Method::POST, "/api-keys").header("idempotency-key", "one").json(&wanted);
        let first = ask().send().await;
        let second = ask().send().await;
        assert_eq!((first.status, second.status), (201, 201));
        assert!(first.json()["key"].is_string(), "{}", first.text);
        assert!(second.json().get("key").is_none_or(Value::is_null), "{}", second.text);
        assert_eq!(second.json(), world.get(first.header("location")).await.json());
        assert_eq!(world.get("/api-keys?name=ci").await.json()["items"].as_array().unwrap().len(), 1);
    }

    async fn manifests_are_applied_once_under_a_key(world: World) {
        let ask = || {
            let ask = world.ask(Method::POST, "/apply").header("idempotency-key", "one");
            ask.header("content-type", "application/yaml").text(CLUSTER_ISSUER).send()
        };
        let first = ask().await;
        let second = ask().await;
        assert_eq!((first.status, second.status), (200, 200), "{}", first.text);
        assert_eq!(second.json(), first.json());
        assert_eq!(second.header("idempotency-replayed"), "true");
    }

    async fn another_request_under_the_same_key_is_refused(world: World) {
        world.create_issuer().await;
        send(&world, "one", &certificate("web")).await.accepted();

        let other = send(&world, "one", &certificate("other")).await;
        other.is_problem(422, "idempotency_key_reused");
        assert_eq!(world.certificates().await.len(), 1);
    }

    async fn twenty_at_once_make_one(world: World) {
        world.create_issuer().await;
        let body = certificate("web");
        let replies = join_all((0..20).map(|_| send(&world, "one", &body))).await;

        let made: Vec<_> = replies
            .iter()
            .filter(|reply| reply.status == 202)
            .map(|reply| id(&reply.json()))
            .collect();
        assert!(!made.is_empty() && made.iter().all(|one| *one == made[0]), "{made:?}");
        for reply in &replies {
            if reply.status != 202 {
                reply.is_problem(409, "idempotency_in_flight");
            }
        }
        let fresh =
            replies.iter().filter(|reply| reply.status == 202 && reply.header("idempotency-replayed").is_empty());
        assert_eq!(fresh.count(), 1);
        assert_eq!(world.certificates().await.len(), 1);
    }

    async fn a_refusal_is_not_remembered(world: World) {
        let refused = send(&world, "one", &certificate("web")).await;
        refused.is_problem(422, "validation_failed");
        world.create_issuer().await;

        send(&world, "one", &certificate("web")).await.accepted();
    }

    async fn a_key_is_the_callers_own_and_is_forgotten_after_a_day(world: World) {
        world.create_issuer().await;
        send(&world, "one", &certificate("web")).await.accepted();
        let other = world.key(&["*"], &["default"]).await;
        allow(&world, "theirs", "default", &["theirs.example.com"]).await;
        let theirs = world
            .ask(Method::POST, "/certificates")
            .with_key(&other)
            .header("idempotency-key", "one")
            .json(&certificate("theirs"))
            .send()
            .await;
        theirs.accepted();

        world.clock.advance(time::Duration::hours(25));
        let fresh = send(&world, "one", &certificate("tomorrow")).await;
        assert_eq!(fresh.accepted()["name"], "tomorrow");
    }

    async fn issuers_and_secrets_are_made_once_too(world: World) {
        let issuer = json!({"name": "own", "acme": acme()});
        let secret = json!({"name": "own", "stringData": {"api-token": "canary-secret-value"}});
        for (path, body) in [("/issuers", issuer), ("/secrets", secret)] {
            let ask = || world.ask(Method::POST, path).header("idempotency-key", path).json(&body);
            let first = ask().send().await.accepted();
            let second = ask().send().await;
            assert_eq!((second.accepted(), second.header("idempotency-replayed")), (first, "true"));
        }
    }

    async fn a_key_of_the_wrong_length_is_refused(world: World) {
        world.create_issuer().await;
        for key in ["", &"k".repeat(256)] {
            send(&world, key, &certificate("web")).await.is_problem(400, "malformed_request");
        }
        send(&world, &"k".repeat(255), &certificate("web")).await.accepted();
    }
}

async fn send(world: &World, key: &str, body: &Value) -> Reply {
    world.ask(Method::POST, "/certificates").header("idempotency-key", key).json(body).send().await
}
