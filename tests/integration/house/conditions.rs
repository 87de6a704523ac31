//! Conditions and keys of requests: no operation that changes something ignores one.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::auth::operations;
use crate::policies::policy;
use crate::support::world::{World, certificate, cluster_issuer, id, on_every_database};

/// Whether the description of an operation names this header.
fn takes(operation: &Value, header: &str) -> bool {
    let parameters = operation["parameters"].as_array();
    parameters
        .is_some_and(|all| all.iter().any(|one| one["name"] == header && one["in"] == "header"))
}

#[test]
fn every_post_can_be_repeated_and_every_other_change_has_a_condition() {
    for (method, path, operation) in operations() {
        let (is_repeatable, is_conditional) =
            (takes(&operation, "Idempotency-Key"), takes(&operation, "If-Match"));
        match method {
            Method::POST => assert!(is_repeatable, "{path} takes no Idempotency-Key"),
            // A throttle has no representation of its own.
            Method::DELETE if path.starts_with("/throttles/") => assert!(!is_conditional),
            Method::GET => {}
            _ => assert!(is_conditional && !is_repeatable, "{method} {path}"),
        }
        let acts_on_one =
            method == Method::POST && (path.contains("{id}") || path.contains("{name}"));
        // What they do changes no representation of the webhook.
        let is_sending =
            ["/test", "/{id}/redeliver", "/{name}/redeliver"].iter().any(|end| path.ends_with(end));
        if acts_on_one && !is_sending {
            assert!(is_conditional, "{path} takes no If-Match");
        }
    }
}

#[test]
fn every_change_can_be_tried() {
    for (method, path, operation) in operations() {
        if method == Method::GET || operation["operationId"] == "evaluatePolicies" {
            continue;
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        assert!(
            parameters.iter().any(|one| one["name"] == "dryRun"),
            "{method} {path} takes no dryRun"
        );
    }
}

on_every_database! {
    async fn a_condition_that_an_operation_does_not_take_is_refused(world: World) {
        for (method, path, operation) in operations().into_iter().filter(|(method, ..)| method != Method::GET) {
            for (header, value) in [("If-Match", "\"other\""), ("Idempotency-Key", "one")] {
                if takes(&operation, header) {
                    continue;
                }
                let path = path.replace("{id}", &Uuid::nil().to_string()).replace("{delivery}", &Uuid::nil().to_string());
                let path = path.replace("{namespace}", "default").replace("{name}", "web");
                let refused = world.ask(method.clone(), &path).header(header, value).send().await;
                let problem = refused.is_problem(400, "malformed_request");
                assert!(problem["detail"].as_str().unwrap().contains(header), "{method} {path}: {problem}");
            }
        }
    }

    async fn an_outdated_tag_stops_each_kind_of_change(world: World) {
        for (method, path, body) in things(&world).await {
            let ask = world.ask(method.clone(), &path).header("if-match", "\"other\"");
            let reply = if body.is_null() { ask } else { ask.json(&body) };
            reply.send().await.is_problem(412, "precondition_failed");
        }
    }

    async fn the_tag_of_an_answer_is_that_of_the_next_reading(world: World) {
        for (method, path, body) in things(&world).await {
            if method == Method::DELETE {
                continue;
            }
            let ask = world.ask(method.clone(), &path);
            let reply = if body.is_null() { ask } else { ask.json(&body) }.send().await;
            assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text);
            let of_thing = path.split('/').take(3).collect::<Vec<_>>().join("/");
            let read = world.get(&of_thing).await;
            assert_eq!(reply.header("etag"), read.header("etag"), "{method} {path}: {} then {}", reply.text, read.text);
        }
    }

    async fn what_is_there_at_once_is_created_and_what_is_worked_on_accepted(world: World) {
        world.create_issuer().await;
        let secret = json!({"name": "one", "stringData": {"a": "b"}});
        let policy = policy("one", "team", &["one.example.com"]);
        let key = json!({"name": "one", "permissions": ["certificates:read"]});
        for (path, body, status, retry_after) in [
            ("/secrets", secret, 201, ""),
            ("/policies", policy, 201, ""),
            ("/api-keys", key, 201, ""),
            ("/issuers", cluster_issuer("one"), 202, "2"),
            ("/certificates", certificate("web"), 202, "2"),
        ] {
            let made = world.post(path, body).await;
            assert_eq!((made.status, made.header("retry-after")), (status, retry_after), "{path}: {}", made.text);
            assert_eq!(made.header("location"), format!("{path}/{}", id(&made.json())));
            assert_eq!(world.get(made.header("location")).await.header("etag"), made.header("etag"), "{path}");
        }
    }
}

/// A change of each kind that is conditional, and needs no worker and no receiver.
async fn things(world: &World) -> Vec<(Method, String, Value)> {
    let issuer = world.create_issuer().await;
    let mut replaced = cluster_issuer(issuer["name"].as_str().unwrap());
    replaced["acme"]["email"] = json!("other@example.com");
    let made = world.create_certificate("web").await;
    let order = world.db_order(&id(&made)).await;
    world.db_issue(&order).await;
    let secret = json!({"name": "one", "stringData": {"a": "b"}});
    let secret = id(&world.post("/secrets", secret).await.accepted());
    let key = json!({"name": "one", "permissions": ["certificates:read"]});
    let key = id(&world.post("/api-keys", key).await.accepted());
    let path = format!("/certificates/{}", id(&made));
    vec![
        (Method::PATCH, path.clone(), json!({"renewBeforePercentage": 37})),
        (Method::POST, format!("{path}/renew"), Value::Null),
        (Method::POST, format!("{path}/revoke"), json!({})),
        (Method::PUT, format!("/issuers/{}", id(&issuer)), replaced),
        (Method::PUT, format!("/secrets/{secret}"), json!({"stringData": {"a": "c"}})),
        (Method::POST, format!("/api-keys/{key}/rotate"), json!({})),
        (Method::DELETE, format!("/secrets/{secret}"), Value::Null),
        (Method::DELETE, format!("/api-keys/{key}"), Value::Null),
        (Method::DELETE, path, Value::Null),
    ]
}
