//! Dry runs: everything is judged and answered, and nothing is stored.

use axum::http::Method;
use serde_json::{Value, json};

use super::{allow, path, policy};
use crate::house::audit::db_ask_for_approval;
use crate::support::world::{Reply, World, id, on_every_database};

on_every_database! {
    async fn a_policy_that_is_only_tried_is_judged_and_not_stored(world: World) {
        let made = allow(&world, "team", "team", &["team.example.com"]).await;
        let before = seen(&world).await;
        let next = policy("team", "team", &["other.example.com"]);

        let created = ask(&world, Method::POST, "/policies", &policy("new", "team", &["new.example.com"])).await;
        assert_eq!((created.status, &created.json()["name"]), (202, &json!("new")), "{}", created.text);
        assert_eq!(created.header("location"), "", "there is nothing at its place");
        let replaced = ask(&world, Method::PUT, &path(&made), &next).await;
        assert_eq!((replaced.status, &replaced.json()["generation"]), (200, &json!(2)), "{}", replaced.text);
        let withdrawn = ask(&world, Method::DELETE, &path(&made), &Value::Null).await;
        assert_eq!(withdrawn.status, 204, "{}", withdrawn.text);

        for answer in [created, replaced, withdrawn] {
            assert_eq!(answer.header("dry-run"), "true");
        }
        assert_eq!(seen(&world).await, before);
        assert_eq!(world.put(&path(&made), next).await.header("dry-run"), "");
    }

    async fn what_would_be_refused_is_refused_in_a_dry_run_too(world: World) {
        let made = allow(&world, "team", "team", &["team.example.com"]).await;
        let tenant = world.key(&["*"], &["team"]).await;
        let again = policy("team", "team", &["team.example.com"]);

        ask(&world, Method::POST, "/policies", &again).await.is_problem(409, "already_exists");
        let mut wrong = policy("new", "team", &["team.example.com"]);
        wrong["namespaces"] = json!(["Team"]);
        ask(&world, Method::POST, "/policies", &wrong).await.is_problem(422, "validation_failed");
        ask(&world, Method::PUT, &path(&made), &policy("other", "team", &[])).await.is_problem(422, "validation_failed");
        let stale = world.ask(Method::DELETE, &format!("{}?dryRun=true", path(&made)));
        stale.header("if-match", "\"other\"").send().await.is_problem(412, "precondition_failed");
        let misspelled = world.ask(Method::DELETE, &format!("{}?dryrun=true", path(&made)));
        misspelled.send().await.is_problem(400, "malformed_request");
        let bound = world.ask(Method::POST, "/policies?dryRun=true").with_key(&tenant).json(&again);
        bound.send().await.is_problem(403, "permission_denied");
    }

    async fn a_decision_that_is_only_tried_leaves_the_request_waiting(world: World) {
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let request = db_ask_for_approval(&world, &id(&made)).await;
        let (before, reason) = (seen(&world).await, json!({"reason": "as agreed"}));

        for (verb, condition) in [("approve", "Approved"), ("deny", "Denied")] {
            let tried = ask(&world, Method::POST, &format!("/requests/{request}/{verb}"), &reason).await;
            assert_eq!((tried.status, tried.header("dry-run")), (200, "true"), "{}", tried.text);
            assert!(tried.text.contains(condition), "{}", tried.text);
        }
        assert_eq!(seen(&world).await, before);
        let empty = json!({"reason": " "});
        let path = format!("/requests/{request}/approve");
        ask(&world, Method::POST, &path, &empty).await.is_problem(422, "validation_failed");
        assert_eq!(world.post(&path, reason.clone()).await.status, 200);
        ask(&world, Method::POST, &path, &reason).await.is_problem(409, "not_pending");
    }
}

async fn ask(world: &World, method: Method, path: &str, body: &Value) -> Reply {
    let ask = world.ask(method, &format!("{path}?dryRun=true"));
    if body.is_null() { ask.send().await } else { ask.json(body).send().await }
}

/// What a dry run must leave as it is.
async fn seen(world: &World) -> Vec<String> {
    let mut seen = Vec::new();
    for path in ["/policies", "/requests", "/certificates", "/events", "/audit"] {
        seen.push(world.get(&format!("{path}?limit=500")).await.text);
    }
    seen
}
