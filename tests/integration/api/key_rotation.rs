//! The life of an API key: its role, its end, its use and its values.

use axum::http::Method;
use serde_json::{Value, json};
use time::Duration;

use crate::support::patience::{until, within};
use crate::support::sse::Served;
use crate::support::world::{Reply, World, certificate, id, on_every_database};

on_every_database! {
    async fn a_role_is_a_set_of_permissions(world: World) {
        for (role, may, may_not) in [
            ("admin", "*", "none"),
            ("operator", "issuers:write", "certificates:readKey"),
            ("operator", "webhooks:write", "apiKeys:read"),
            ("requester", "certificates:readKey", "issuers:write"),
            ("reader", "orders:read", "secrets:read"),
        ] {
            let made = make(&world, json!({"name": role, "role": role, "permissions": ["challenges:read"]})).await;
            let who = get(&world, "/whoami", value(&made)).await.json();
            let has = |word: &str| who["permissions"].as_array().unwrap().contains(&json!(word));
            assert_eq!((&made["role"], &who["role"]), (&json!(role), &json!(role)));
            assert_eq!(made["permissions"], who["permissions"]);
            assert!(has(may) && has("challenges:read") && !has(may_not), "{who}");
        }
    }

    async fn a_key_is_shown_with_who_made_it_and_by_its_name(world: World) {
        let admin = world.get("/whoami").await.json();
        let wanted = json!({"name": "web deploy/1", "role": "reader", "namespaces": ["a"],
            "description": "of the pipeline", "expiresAt": "2026-12-24T00:00:00Z"});
        let made = make(&world, wanted).await;

        let shown = world.get(&format!("/api-keys/{}", id(&made))).await;
        let key = shown.json();
        assert_eq!(key["createdBy"], json!({"kind": "apiKey", "id": admin["id"], "name": "admin"}));
        assert_eq!((&key["description"], &key["expiresAt"]), (&json!("of the pipeline"), &json!("2026-12-24T00:00:00Z")));
        assert_eq!((&key["lastUsedAt"], &key["rotation"], key.get("key")), (&json!(null), &json!(null), None));
        let named = world.get("/api-keys/by-name/web%20deploy%2F1").await;
        assert_eq!((named.json(), named.header("etag")), (key, shown.header("etag")));
        assert_eq!(world.get("/api-keys?name=web%20deploy%2F1").await.json()["items"].as_array().unwrap().len(), 1);
        world.get("/api-keys/by-name/none").await.is_problem(404, "not_found");

        let other = make(&world, json!({"name": "web deploy/1", "role": "reader", "namespaces": ["b"]})).await;
        world.get("/api-keys/by-name/web%20deploy%2F1").await.is_problem(409, "ambiguous_name");
        let tenant = world.key(&["apiKeys:read"], &["b"]).await;
        let named = get(&world, "/api-keys/by-name/web%20deploy%2F1", &tenant).await.json();
        assert_eq!(id(&named), id(&other), "others are none of its business");
        let stranger = world.key(&["certificates:read"], &["a"]).await;
        get(&world, "/api-keys/by-name/web%20deploy%2F1", &stranger).await.is_problem(403, "permission_denied");

        let renewed = world.ask(Method::POST, "/api-keys/by-name/web%20deploy%2F1/rotate").send().await;
        renewed.is_problem(409, "ambiguous_name");
        assert_eq!(world.delete(&format!("/api-keys/{}", id(&other))).await.status, 204);
        let renewed = world.post("/api-keys/by-name/web%20deploy%2F1/rotate", json!({})).await;
        assert_eq!((renewed.status, &renewed.json()["id"]), (200, &made["id"]), "{}", renewed.text);
        let gone = world.delete("/api-keys/by-name/web%20deploy%2F1").await;
        assert_eq!((gone.status, world.get(&format!("/api-keys/{}", id(&made))).await.status), (204, 404));
    }

    async fn a_rotated_key_has_two_values_until_the_end_of_the_former_one(world: World) {
        let made = make(&world, json!({"name": "ci", "role": "reader"})).await;
        let path = format!("/api-keys/{}/rotate", id(&made));

        let rotated = world.post(&path, json!({"formerValidFor": "2h"})).await;
        assert_eq!((rotated.status, rotated.header("cache-control")), (200, "no-store"), "{}", rotated.text);
        let rotated = rotated.json();
        assert_eq!(rotated["rotation"], json!({"rotatedAt": "2026-11-24T12:00:00Z", "formerValidUntil": "2026-11-24T14:00:00Z"}));
        assert_eq!(id(&rotated), id(&made));
        for key in [&made, &rotated] {
            assert_eq!(id(&get(&world, "/whoami", value(key)).await.json()), id(&made));
        }

        world.clock.advance(Duration::hours(2));
        let problem = get(&world, "/whoami", value(&made)).await.is_problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("rotated"), "{problem}");
        assert_eq!(get(&world, "/whoami", value(&rotated)).await.status, 200);
        let shown = world.get(&format!("/api-keys/{}", id(&made))).await;
        assert!(!shown.text.contains("cw_"), "{}", shown.text);
    }

    async fn a_key_has_never_more_than_two_values_and_a_leaked_one_ends_at_once(world: World) {
        let made = make(&world, json!({"name": "ci", "role": "reader"})).await;
        let path = format!("/api-keys/{}/rotate", id(&made));
        let second = world.ask(Method::POST, &path).send().await.json();
        let third = world.ask(Method::POST, &path).send().await.json();
        assert_eq!(third["rotation"]["formerValidUntil"], "2026-11-25T12:00:00Z", "a day by itself");

        get(&world, "/whoami", value(&made)).await.is_problem(401, "unauthenticated");
        for key in [&second, &third] {
            assert_eq!(get(&world, "/whoami", value(key)).await.status, 200);
        }

        let fourth = world.post(&path, json!({"formerValidFor": "0s"})).await.json();
        for key in [&second, &third] {
            get(&world, "/whoami", value(key)).await.is_problem(401, "unauthenticated");
        }
        assert_eq!(get(&world, "/whoami", value(&fourth)).await.status, 200);
        for strange in ["721h", "soon"] {
            let refused = world.post(&path, json!({"formerValidFor": strange})).await;
            refused.is_problem(422, "validation_failed");
        }
    }

    async fn nobody_rotates_or_ends_a_key_that_may_do_more(world: World) {
        let keeper = make(&world, json!({"name": "keeper", "permissions": ["apiKeys:write", "apiKeys:read"]})).await;
        let admin = world.get("/api-keys/by-name/admin").await.json();
        let operator = make(&world, json!({"name": "operator", "role": "operator"})).await;
        let peer = make(&world, json!({"name": "peer", "permissions": ["apiKeys:read"]})).await;
        let ask = async |method: Method, key: &Value, action: &str| {
            let path = format!("/api-keys/{}{action}", id(key));
            world.ask(method, &path).with_key(value(&keeper)).send().await
        };

        for beyond in [&admin, &operator] {
            ask(Method::POST, beyond, "/rotate").await.is_problem(403, "permission_denied");
            ask(Method::DELETE, beyond, "").await.is_problem(403, "permission_denied");
        }
        assert_eq!(world.get("/whoami").await.status, 200);
        assert_eq!(ask(Method::POST, &peer, "/rotate").await.status, 200);
        assert_eq!(ask(Method::POST, &keeper, "/rotate").await.status, 200, "itself");
        assert_eq!(ask(Method::DELETE, &peer, "").await.status, 204);
    }

    async fn a_key_that_ends_gets_no_value_of_one_that_outlasts_it_nor_ends_it(world: World) {
        let key = async |name: &str, end: Value| make(&world, json!({"name": name, "role": "reader", "expiresAt": end})).await;
        let short = make(&world, json!({"name": "short", "role": "admin", "expiresAt": "2026-11-24T13:00:00Z"})).await;
        let (endless, later) = (key("endless", json!(null)).await, key("later", json!("2026-11-24T13:00:01Z")).await);
        let sooner = key("sooner", json!("2026-11-24T12:59:59Z")).await;
        let ask = async |method: Method, key: &Value, action: &str| {
            let path = format!("/api-keys/{}{action}", id(key));
            world.ask(method, &path).with_key(value(&short)).send().await
        };

        for beyond in [&endless, &later] {
            let problem = ask(Method::POST, beyond, "/rotate").await.is_problem(403, "permission_denied");
            assert!(problem["detail"].as_str().unwrap().contains("outlasts"), "{problem}");
            ask(Method::POST, beyond, "/rotate?dryRun=true").await.is_problem(403, "permission_denied");
            ask(Method::DELETE, beyond, "").await.is_problem(403, "permission_denied");
            assert_eq!(get(&world, "/whoami", value(beyond)).await.status, 200, "its value counts on");
        }
        assert_eq!(ask(Method::POST, &sooner, "/rotate").await.status, 200);
        assert_eq!(ask(Method::DELETE, &sooner, "").await.status, 204);
        let own = ask(Method::POST, &short, "/rotate").await.json();
        assert_eq!(own["expiresAt"], short["expiresAt"], "a new value ends like the former one");
    }

    async fn a_key_is_refused_from_its_end_on_and_makes_none_that_outlasts_it(world: World) {
        let wanted = json!({"name": "short", "role": "admin", "expiresAt": "2026-11-24T13:00:00Z"});
        let made = make(&world, wanted).await;
        let create = async |end: Value| {
            let wanted = json!({"name": "more", "role": "reader", "expiresAt": end});
            world.ask(Method::POST, "/api-keys").with_key(value(&made)).json(&wanted).send().await
        };
        create(json!("2026-11-24T13:00:00Z")).await.accepted();
        for later in [json!("2026-11-24T13:00:01Z"), json!(null)] {
            let problem = create(later).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/expiresAt", "{problem}");
        }

        world.clock.advance(Duration::hours(1));
        let problem = get(&world, "/whoami", value(&made)).await.is_problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("expired"), "{problem}");
        let path = format!("/api-keys/{}", id(&made));
        assert_eq!(world.get(&path).await.json()["expiresAt"], "2026-11-24T13:00:00Z", "it is still listed");
    }

    async fn the_day_of_the_last_use_is_shown(world: World) {
        let made = make(&world, json!({"name": "ci", "role": "reader"})).await;
        let path = format!("/api-keys/{}", id(&made));
        let used_at = async || world.get(&path).await.json()["lastUsedAt"].clone();
        assert_eq!(used_at().await, json!(null));

        for day in ["2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"] {
            get(&world, "/whoami", value(&made)).await;
            // It is written beside the request.
            until("the day", async || used_at().await == day).await;
            world.clock.advance(Duration::days(1));
        }
    }

    async fn what_is_held_ends_with_its_key(world: World) {
        world.create_issuer().await;
        let wanted = json!({"name": "short", "role": "admin", "expiresAt": "2026-11-24T13:00:00Z"});
        let made = make(&world, wanted).await;
        let served = Served::of(&world).await;
        let (mut stream, _) = served.follow(value(&made), "", None).await;
        let held = world.ask(Method::POST, "/certificates").with_key(value(&made));
        let held = held.header("prefer", "wait=300").json(&certificate("held"));

        let (answer, ()) = tokio::join!(within("the end of the key", held.send()), async {
            until("the certificate", async || !world.certificates().await.is_empty()).await;
            world.clock.advance(Duration::hours(1));
        });

        answer.is_problem(401, "unauthenticated");
        within("the end of the stream", async { while stream.next().await.is_some() {} }).await;
    }

    async fn what_is_held_ends_with_the_value_that_it_was_asked_for_with(world: World) {
        world.create_issuer().await;
        let made = make(&world, json!({"name": "leaked", "role": "admin"})).await;
        let held = world.ask(Method::POST, "/certificates").with_key(value(&made));
        let held = held.header("prefer", "wait=300").json(&certificate("held"));

        let (answer, ()) = tokio::join!(within("the end of the value", held.send()), async {
            until("the certificate", async || !world.certificates().await.is_empty()).await;
            let path = format!("/api-keys/{}/rotate", id(&made));
            world.post(&path, json!({"formerValidFor": "0s"})).await;
        });

        answer.is_problem(401, "unauthenticated");
    }
}

async fn make(world: &World, wanted: Value) -> Value {
    world.post("/api-keys", wanted).await.accepted()
}

fn value(made: &Value) -> &str {
    made["key"].as_str().unwrap()
}

async fn get(world: &World, path: &str, key: &str) -> Reply {
    world.ask(Method::GET, path).with_key(key).send().await
}
