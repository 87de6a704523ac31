//! Who has to say who it is, and what one permission does not include. `matrix` has the rest.

use axum::http::Method;
use certwright::api;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::world::{World, acme, certificate, id, on_every_database};

on_every_database! {
    async fn every_route_wants_an_api_key_unless_it_says_that_it_is_open(world: World) {
        for (method, path, operation) in operations() {
            let path = path.replace("{id}", &Uuid::nil().to_string()).replace("{code}", "not-found");
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

/// Every operation of the document.
pub(crate) fn operations() -> Vec<(Method, String, Value)> {
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
