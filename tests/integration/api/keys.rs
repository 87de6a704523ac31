//! API keys: created, shown once, and deleted.

use axum::http::Method;
use serde_json::json;

use crate::support::world::{World, id, on_every_database};

on_every_database! {
    async fn a_new_key_may_do_what_it_was_made_for(world: World) {
        let wanted = json!({"name": "reader", "permissions": ["certificates:read"], "namespaces": ["team"]});
        let made = world.post("/api-keys", wanted).await;
        let key = made.accepted()["key"].as_str().unwrap().to_owned();

        assert_eq!(made.header("cache-control"), "no-store");
        assert_eq!(world.ask(Method::GET, "/certificates").with_key(&key).send().await.status, 200);
        world.ask(Method::GET, "/secrets").with_key(&key).send().await.is_problem(403, "permission_denied");
        let whoami = world.ask(Method::GET, "/whoami").with_key(&key).send().await.json();
        assert_eq!((&whoami["name"], &whoami["namespaces"]), (&json!("reader"), &json!(["team"])));
        let listed = world.get("/api-keys").await;
        assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2, "{}", listed.text);
        assert!(!listed.text.contains(&key) && listed.json()["items"][1]["key"].is_null());
    }

    async fn a_deleted_key_is_refused_at_once_and_none_deletes_itself(world: World) {
        let made = world.post("/api-keys", json!({"name": "gone", "permissions": ["*"]})).await.accepted();
        let (path, key) = (format!("/api-keys/{}", id(&made)), made["key"].as_str().unwrap());

        world.ask(Method::DELETE, &path).with_key(key).send().await.is_problem(403, "permission_denied");
        assert_eq!(world.delete(&path).await.status, 204);
        world.ask(Method::GET, "/whoami").with_key(key).send().await.is_problem(401, "unauthenticated");
        world.delete(&path).await.is_problem(404, "not_found");
    }

    async fn a_key_gives_no_more_than_it_has(world: World) {
        let key = world.key(&["apiKeys:write", "apiKeys:read", "certificates:read"], &["team"]).await;
        for (body, pointer) in [
            (json!({"name": "a", "permissions": ["*"], "namespaces": ["team"]}), "/permissions/0"),
            (json!({"name": "a", "permissions": ["secrets:write"], "namespaces": ["team"]}), "/permissions/0"),
            (json!({"name": "a", "permissions": ["certificates:read"]}), "/namespaces"),
            (json!({"name": "a", "permissions": ["certificates:read"], "namespaces": ["team", "other"]}), "/namespaces"),
            (json!({"name": "a", "permissions": ["certificates:raed"], "namespaces": ["team"]}), "/permissions/0"),
            (json!({"name": "a", "permissions": [], "namespaces": ["team"]}), "/permissions"),
            (json!({"name": "a", "role": "admin", "namespaces": ["team"]}), "/role"),
            (json!({"name": "a", "role": "reader", "namespaces": ["team"]}), "/role"),
            (json!({"name": "a", "namespaces": ["team"]}), "/permissions"),
            (json!({"name": "a", "role": "root", "namespaces": ["team"]}), "/role"),
            (json!({"name": "a", "permissions": ["certificates:read"], "namespaces": ["team"], "expiresAt": "2026-11-24T12:00:00Z"}), "/expiresAt"),
            (json!({"name": "a", "permissions": ["certificates:read"], "namespaces": ["team"], "expiresAt": "tomorrow"}), "/expiresAt"),
            (json!({"name": "a", "permissions": ["certificates:read"], "namespaces": ["team"], "description": "x".repeat(501)}), "/description"),
            (json!({"name": " ", "permissions": ["certificates:read"], "namespaces": ["team"]}), "/name"),
            (json!({"name": "a", "permissions": ["certificates:read"], "namespaces": []}), "/namespaces"),
        ] {
            let ask = world.ask(Method::POST, "/api-keys").with_key(&key).json(&body);
            let problem = ask.send().await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
        let listed = world.ask(Method::GET, "/api-keys").with_key(&key).send().await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "not those that may do more: {listed}");
        let admin = world.get("/api-keys").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
        let ask = world.ask(Method::DELETE, &format!("/api-keys/{admin}")).with_key(&key);
        ask.send().await.is_problem(404, "not_found");
    }
}
