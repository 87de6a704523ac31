//! Idempotency: a request that arrives twice is done once.

use axum::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::policies::allow;
use crate::support::world::{Reply, World, acme, certificate, id, on_every_database};

on_every_database! {
    async fn the_same_request_gets_the_same_answer(world: World) {
        world.create_issuer().await;
        let first = send(&world, "one", &certificate("web")).await;
        let made = first.accepted();
        world.patch(first.header("location"), json!({"labels": {"a": "b"}})).await;

        let second = send(&world, "one", &certificate("web")).await;
        assert_eq!(second.accepted(), made);
        assert_eq!(second.header("idempotency-replayed"), "true");
        assert_eq!(second.header("location"), first.header("location"));
        assert_eq!(first.header("idempotency-replayed"), "");
        assert_eq!(world.certificates().await.len(), 1);
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
