//! Permissions, and what other principals never learn.

use axum::http::Method;
use certwright::api;
use certwright::domain::failure::{Failure, code};
use certwright::domain::throttle::Scope;
use certwright::storage::{Page, throttles};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::world::{World, acme, certificate, id, on_every_database};

on_every_database! {
    async fn every_route_wants_an_api_key_unless_it_says_that_it_is_open(world: World) {
        for (method, path, operation) in operations() {
            let path = path.replace("{id}", &Uuid::nil().to_string());
            let reply = world.ask(method.clone(), &path).without_key().send().await;

            if operation["security"] == json!([{}]) {
                assert_eq!(reply.status, 200, "{method} {path} is open");
                continue;
            }
            reply.is_problem(401, "unauthenticated");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        }
        for path in ["/openapi.json", "/docs/"] {
            assert_eq!(world.ask(Method::GET, path).without_key().send().await.status, 200);
        }
    }

    async fn what_is_not_a_known_key_is_refused(world: World) {
        let unknown = format!("Bearer cw_{}", "A".repeat(43));
        let cut_off = format!("Bearer {}", &world.admin[..world.admin.len() - 1]);
        for wrong in ["", "Bearer", "Bearer ", "Bearer cw_", "Bearer cw_short", "Basic YTpi", "Bearer a.b.c", &cut_off, &unknown] {
            let ask = world.ask(Method::GET, "/whoami").without_key().header("authorization", wrong);
            ask.send().await.is_problem(401, "unauthenticated");
        }
        assert_eq!(world.get("/whoami").await.json()["permissions"], json!(["*"]));
    }

    async fn a_missing_permission_is_named(world: World) {
        let nobody = world.key(&["none"], &["default"]).await;
        for (method, path, operation) in operations() {
            if operation["security"] == json!([{}]) || path == "/whoami" {
                continue;
            }
            let path = path.replace("{id}", &Uuid::nil().to_string()).replace("{name}", "none");
            let problem = world
                .ask(method, &path)
                .with_key(&nobody)
                .send()
                .await
                .is_problem(403, "permission_denied");
            assert!(problem["detail"].as_str().unwrap().contains(':'), "{problem}");
        }
    }

    async fn reading_a_certificate_is_not_reading_its_key(world: World) {
        world.create_issuer().await;
        let certificate = world.create_certificate("web").await;
        let order = world.db_order(&id(&certificate)).await;
        world.db_issue(&order).await;
        let reader = world.key(&["certificates:read"], &["default"]).await;
        let holder = world.key(&["certificates:readKey"], &["default"]).await;
        let path = format!("/certificates/{}/privkey.pem", id(&certificate));

        let denied = world.ask(Method::GET, &path).with_key(&reader).send().await;
        let problem = denied.is_problem(403, "permission_denied");
        assert!(problem["detail"].as_str().unwrap().contains("certificates:readKey"));
        let key = world.ask(Method::GET, &path).with_key(&holder).send().await;
        assert_eq!((key.status, key.header("cache-control")), (200, "no-store"));
        assert!(key.text.starts_with("-----BEGIN PRIVATE KEY-----"));
        let events = world.get(&format!("/events?resource={}", id(&certificate))).await.json();
        assert!(events.to_string().contains("PrivateKeyExported"));
    }

    async fn what_belongs_to_another_namespace_does_not_exist(world: World) {
        let foreign = foreign(&world).await;
        let stranger = world.key(&["*"], &["ours"]).await;
        let mut walked = 0;
        for (method, path, _) in operations() {
            let collection = path.split('/').nth(1).unwrap();
            // Policies belong to no namespace: `policies::resource` has theirs.
            if !path.contains("{id}") || collection == "policies" {
                continue;
            }
            let collection = path.split('/').nth(1).unwrap().to_owned();
            let body = match (collection.as_str(), &method) {
                ("certificates", _) if path.ends_with("{id}/csr") => json!({"csr": "text"}),
                ("certificates", _) if path.ends_with("{id}/revoke") => json!({}),
                ("certificates", _) => json!({"labels": {"a": "b"}}),
                ("secrets", _) => json!({"stringData": {"a": "b"}}),
                ("requests", _) => json!({"reason": "why not"}),
                ("api-keys", _) => json!({"formerValidFor": "1h"}),
                ("webhooks", _) if path.ends_with("{id}/redeliver") => {
                    json!({"since": "2026-11-24T12:00:00Z"})
                }
                ("webhooks", _) => json!({}),
                _ => json!({"name": "foreign-issuer", "namespace": "theirs", "acme": acme()}),
            };
            let path = path
                .replace("{id}", foreign[&collection].as_str().unwrap())
                .replace("{delivery}", "019ab000-0000-7000-8000-000000000000");
            let ask = world.ask(method.clone(), &path).with_key(&stranger).json(&body);
            let reply = ask.header("x-keystore-password", "correct horse").send().await;

            if OF_THE_WHOLE_SERVICE.contains(&collection.as_str()) {
                reply.is_problem(403, "permission_denied");
            } else {
                reply.is_problem(404, "not_found");
            }
            assert!(!reply.text.contains("foreign"), "{method} {path}: {}", reply.text);
            walked += 1;
        }
        assert!(walked >= 18, "{walked}");
    }

    async fn lists_hold_nothing_of_another_namespace(world: World) {
        foreign(&world).await;
        let stranger = world.key(&["*"], &["ours"]).await;
        for (method, path, operation) in operations() {
            let is_open = operation["security"] == json!([{}]);
            let lists = method == Method::GET && !path.contains('{') && !is_open;
            if !lists || ["/healthz", "/readyz", "/whoami", "/api-keys", "/policies"].contains(&&*path) {
                continue;
            }
            if OF_THE_WHOLE_SERVICE.contains(&&path[1..]) {
                let reply = world.ask(Method::GET, &path).with_key(&stranger).send().await;
                reply.is_problem(403, "permission_denied");
                continue;
            }
            for path in [path.clone(), format!("{path}?namespace=theirs")] {
                let reply = world.ask(Method::GET, &path).with_key(&stranger).send().await;
                if reply.status == 400 && path.starts_with("/challenges?") {
                    continue;
                }
                assert_eq!(reply.json()["items"], json!([]), "{path}");
            }
            let all = world.get(&path).await.json();
            assert_ne!(all["items"], json!([]), "{path} has something to hide");
        }
    }

    async fn nothing_is_made_outside_the_keys_namespaces(world: World) {
        world.create_issuer().await;
        let ours = world.key(&["*"], &["ours"]).await;
        let mut elsewhere = certificate("web");
        elsewhere["namespace"] = json!("theirs");
        let issuer = json!({"name": "a", "namespace": "theirs", "acme": acme()});
        let cluster = json!({"kind": "ClusterIssuer", "name": "a", "acme": acme()});
        let secret = json!({"name": "a", "namespace": "theirs", "stringData": {"a": "b"}});
        for (path, body) in [
            ("/certificates", elsewhere),
            ("/issuers", issuer),
            ("/issuers", cluster),
            ("/secrets", secret),
        ] {
            let reply = world.ask(Method::POST, path).with_key(&ours).json(&body).send().await;
            reply.is_problem(403, "permission_denied");
        }
        assert!(world.certificates().await.is_empty());
    }

    async fn a_key_of_one_namespace_may_read_but_not_change_a_cluster_issuer(world: World) {
        let issuer = world.create_issuer().await;
        let ours = world.key(&["*"], &["ours"]).await;
        let path = format!("/issuers/{}", id(&issuer));

        assert_eq!(world.ask(Method::GET, &path).with_key(&ours).send().await.status, 200);
        let deleted = world.ask(Method::DELETE, &path).with_key(&ours).send().await;
        deleted.is_problem(403, "permission_denied");
    }
}

/// What lies in no namespace, for keys that are bound to none.
const OF_THE_WHOLE_SERVICE: &[&str] = &["audit", "metrics", "throttles"];

/// Every operation of the document.
fn operations() -> Vec<(Method, String, Value)> {
    let document = serde_json::to_value(api::document()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if operation.get("operationId").is_some() {
                operations.push((method, path.clone(), operation.clone()));
            }
        }
    }
    assert!(operations.len() > 25, "{}", operations.len());
    operations
}

/// One of everything in the namespace `theirs`, by collection.
async fn foreign(world: &World) -> Value {
    let issuer = json!({"name": "foreign-issuer", "namespace": "theirs", "acme": acme()});
    let issuer = world.post("/issuers", issuer).await.accepted();
    let secret = json!({"name": "foreign-secret", "namespace": "theirs", "stringData": {"a": "b"}});
    let secret = world.post("/secrets", secret).await.accepted();
    let certificate = json!({
        "name": "foreign", "namespace": "theirs", "issuerRef": {"name": "foreign-issuer"},
        "dnsNames": ["foreign.example.com"],
    });
    let certificate = world.post("/certificates", certificate).await.accepted();
    let order = world.db_order(&id(&certificate)).await;
    world.db_issue(&order).await;
    let key = json!({"name": "theirs", "permissions": ["*"], "namespaces": ["theirs"]});
    let key = world.post("/api-keys", key).await.accepted();
    let webhook = json!({"namespace": "theirs", "url": "https://1.1.1.1/foreign"});
    let webhook = world.post("/webhooks", webhook).await.accepted();
    let (until, why) =
        (world.now() + time::Duration::HOUR, Failure::of(code::ACME_RATE_LIMITED, ""));
    let mut tx = world.db.begin();
    throttles::hold(&mut tx, "endpoint foreign", &Scope::Endpoint, until, &why, world.now())
        .await
        .unwrap();
    let throttle = throttles::list(&mut tx, Page::first(1), world.now()).await.unwrap()[0].id;
    tx.commit().await.unwrap();
    json!({
        "api-keys": id(&key), "webhooks": id(&webhook),
        "issuers": id(&issuer), "secrets": id(&secret), "certificates": id(&certificate),
        "throttles": throttle.0, "orders": order.id.0, "requests": order.request.0, "challenges": order.challenges[0].id.0,
    })
}
