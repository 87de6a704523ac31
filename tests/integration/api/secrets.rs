//! Secrets are write-only.

use axum::http::Method;
use certwright::domain::certificate::State;
use certwright::storage::secrets;
use serde_json::json;

use crate::support::world::{CANARIES, World, acme, id, on_every_database};

on_every_database! {
    async fn only_the_names_of_the_values_are_shown(world: World) {
        let body = json!({
            "name": "cloudflare", "stringData": {"api-token": "canary-secret-value"},
            "data": {"extra": "Y2FuYXJ5LXNlY3JldC12YWx1ZQ=="},
        });
        let reply = world.post("/secrets", body).await;
        let made = reply.accepted();

        assert_eq!(made["keys"], json!(["api-token", "extra"]));
        assert_eq!(world.get(reply.header("location")).await.json(), made);
        assert_eq!(world.get("/secrets").await.json()["items"], json!([made]));
        assert_eq!(
            db_values(&world, "default", "cloudflare").await,
            json!({"api-token": "canary-secret-value", "extra": "canary-secret-value"})
        );
    }

    async fn replacing_leaves_nothing_of_the_former_values(world: World) {
        let body = json!({"name": "a", "stringData": {"old": "1", "token": "2"}});
        let path = format!("/secrets/{}", id(&world.post("/secrets", body).await.accepted()));
        world.clock.advance(time::Duration::seconds(1));

        let replaced = world.put(&path, json!({"stringData": {"token": "3"}})).await.json();
        assert_eq!(replaced["keys"], json!(["token"]));
        assert_eq!(replaced["updatedAt"], "2026-11-24T12:00:01Z");
        assert_eq!(db_values(&world, "default", "a").await, json!({"token": "3"}));
        let other = world.put(&path, json!({"name": "b", "stringData": {"token": "3"}})).await;
        assert_eq!(other.is_problem(422, "validation_failed")["errors"][0]["code"], "immutable");
        assert_eq!(world.delete(&path).await.status, 204);
        world.get(&path).await.is_problem(404, "not_found");
    }

    async fn what_cannot_be_a_secret_is_refused_without_repeating_it(world: World) {
        for (body, pointer, code) in [
            (json!({"name": "a"}), "/stringData", "required"),
            (json!({"stringData": {"a": "b"}}), "/name", "required"),
            (json!({"name": "a", "stringData": {"no spaces": "b"}}), "/stringData/no spaces", "invalid"),
            (json!({"name": "a", "stringData": "canary-secret-value"}), "/stringData", "wrong_type"),
            (json!({"name": "a", "stringData": {"a": ["canary-secret-value"]}}), "/stringData/a", "wrong_type"),
            (json!({"name": "a", "data": {"a": "canary-secret-value!"}}), "/data/a", "invalid"),
            (json!({"name": "a", "data": {"a": "/w=="}}), "/data/a", "invalid"),
        ] {
            let reply = world.post("/secrets", body).await;
            let problem = reply.is_problem(422, "validation_failed");
            let fault = &problem["errors"][0];
            assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
            assert!(!reply.text.contains("canary"), "{}", reply.text);
        }
    }

    async fn a_changed_secret_wakes_what_waits_for_it(world: World) {
        world.create_issuer().await;
        world.post("/issuers", json!({"name": "own", "acme": acme()})).await.accepted();
        let of_cluster = id(&world.create_certificate("web").await);
        let mut own = crate::support::world::certificate("own");
        own["issuerRef"] = json!({"name": "own"});
        let of_own = id(&world.post("/certificates", own).await.accepted());
        let later = world.now() + time::Duration::hours(9);
        let block = async || {
            for one in [&of_cluster, &of_own] {
                world.db_change(one, |mut found| {
                    found.state = State::Blocked;
                    found.next_action_at = later;
                    found
                }).await;
            }
        };
        let next = async |one: &str| {
            let shown = world.get(&format!("/certificates/{one}")).await.json();
            shown["status"]["nextAttemptAt"] == "2026-11-24T12:00:00Z"
        };

        block().await;
        let secret = json!({"name": "cloudflare", "stringData": {"api-token": "a"}});
        world.post("/secrets", secret.clone()).await.accepted();
        assert_eq!((next(&of_cluster).await, next(&of_own).await), (false, true));
        block().await;
        let mut cluster = secret;
        cluster["namespace"] = json!("certwright");
        world.post("/secrets", cluster).await.accepted();
        assert_eq!((next(&of_cluster).await, next(&of_own).await), (true, false));
    }

    async fn no_answer_ever_holds_a_secret(world: World) {
        let secret = json!({"name": "a", "stringData": {"t": "canary-secret-value"}});
        let secret = world.post("/secrets", secret).await.accepted();
        world.post("/secrets", json!({"name": "a", "stringData": {"t": "canary-secret-value"}})).await;
        let issuer = world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let order = world.db_order(&id(&made)).await;
        world.db_issue(&order).await;
        for path in [
            format!("/secrets/{}", id(&secret)), format!("/issuers/{}", id(&issuer)),
            format!("/certificates/{}", id(&made)), format!("/certificates/{}/revisions", id(&made)),
            format!("/certificates/{}/fullchain.pem", id(&made)),
            format!("/orders/{}", order.id), format!("/requests/{}", order.request),
            format!("/challenges/{}", order.challenges[0].id), "/secrets".into(), "/issuers".into(),
            "/certificates".into(), "/orders".into(), "/requests".into(), "/challenges".into(),
            "/events".into(), "/whoami".into(), "/openapi.json".into(),
        ] {
            assert_eq!(world.get(&path).await.status, 200, "{path}");
        }
        let wrong = format!("/whoami?key={}", world.admin);
        world.ask(Method::GET, &wrong).send().await;

        let answers = world.answers.lock().unwrap();
        assert!(answers.len() > 20);
        for (path, text) in &*answers {
            for canary in CANARIES.iter().copied().chain([&*world.admin]) {
                assert!(!text.contains(canary) && !text.contains(&base64(canary)), "{path}: {text}");
            }
        }
    }
}

/// Without the last characters, which depend on what follows.
fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(&text.as_bytes()[..text.len() / 3 * 3])
}

async fn db_values(world: &World, namespace: &str, name: &str) -> serde_json::Value {
    let mut tx = world.db.read().await.unwrap();
    let (id, sealed) = secrets::data(&mut tx, namespace, name).await.unwrap().unwrap();
    let plain = world.sealer.open(&secrets::data_place(namespace, id), &sealed).unwrap();
    serde_json::from_slice(plain.expose()).unwrap()
}
