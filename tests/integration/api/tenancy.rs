//! A principal that is bound to a namespace neither reads nor changes resources of others.

use axum::http::Method;
use certwright::storage::grants::{self, Table};
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use crate::support::databases::sqlite_url;
use crate::support::former_schema::{self, execute};
use crate::support::postgres::fresh_database;
use crate::support::receiver::{Receiver, Reply};
use crate::support::world::{World, certificate, id, on_every_database};
use crate::webhooks::{deliveries, deliveries_path, hooked, ordered_as, path, renew};

on_every_database! {
    async fn a_narrowed_webhook_hands_nothing_of_others_to_a_tenant(world: World) {
        let (theirs, hook) = hooked(&world, json!({"namespace": "a", "namespaces": ["a", "b"]})).await;
        let tenant = world.key(&["webhooks:read", "webhooks:write"], &["a"]).await;
        let (ours, others) = (issued_in(&world, "a").await, issued_in(&world, "b").await);
        world.deliver().await;
        // One more of each: the first is tried again later, the second waits behind it.
        theirs.usually_answers(Reply::Status(500));
        for certificate in [&ours, &others] {
            renew(&world, certificate).await;
            renew(&world, certificate).await;
        }
        world.deliver().await;
        world.patch(&path(&hook), json!({"namespaces": ["a"]})).await.json();
        let sent = theirs.got().len();

        let mine = Receiver::start().await;
        let ask = |method: Method, path: String| world.ask(method, &path).with_key(&tenant);
        let moved = ask(Method::PATCH, path(&hook)).json(&json!({"url": mine.url()}));
        assert_eq!(moved.send().await.status, 200);
        let again = ask(Method::POST, format!("{}/redeliver", path(&hook)));
        again.json(&json!({"since": "2020-01-01T00:00:00Z"})).send().await.accepted();
        for delivery in deliveries(&world, &hook, "?limit=500").await {
            let path = format!("{}/{}", deliveries_path(&hook), id(&delivery));
            let shown = ask(Method::GET, path.clone()).send().await;
            let resent = ask(Method::POST, format!("{path}/redeliver")).send().await;
            if is_about(&delivery, &others) {
                shown.is_problem(404, "not_found");
                resent.is_problem(404, "not_found");
                let by_admin = world.post(&format!("{path}/redeliver"), json!({})).await;
                by_admin.is_problem(422, "validation_failed");
            } else {
                assert_eq!((shown.status, resent.status), (200, 202));
            }
        }
        for _ in 0..3 {
            world.clock.advance(Duration::hours(1));
            world.deliver().await;
        }

        let listed = ask(Method::GET, format!("{}?limit=500", deliveries_path(&hook))).send().await.json();
        let listed = listed["items"].as_array().unwrap().clone();
        assert!(listed.len() >= 3 && listed.iter().all(|one| is_about(one, &ours)), "{listed:#?}");
        let got = mine.got();
        assert!(got.len() >= 3 && got.iter().all(|one| one.json()["data"]["namespace"] == "a"));
        assert_eq!(theirs.got().len(), sent, "nothing more went to where it led before");
    }

    async fn what_was_kept_back_is_sent_when_it_is_asked_for_again(world: World) {
        let (receiver, hook) = hooked(&world, json!({"namespace": "a", "namespaces": ["a", "b"]})).await;
        issued_in(&world, "b").await;
        world.patch(&path(&hook), json!({"namespaces": ["a"]})).await.json();
        world.deliver().await;
        assert_eq!(receiver.got().len(), 0);

        world.patch(&path(&hook), json!({"namespaces": ["*"]})).await.json();
        let since = json!({"since": "2020-01-01T00:00:00Z"});
        world.post(&format!("{}/redeliver", path(&hook)), since).await.accepted();
        world.deliver().await;

        assert_eq!(receiver.types(), ["certificate.issued"]);
    }

    async fn a_page_of_keys_is_full_of_those_that_one_may_see(world: World) {
        let ours: Vec<_> = make_keys(&world, &json!(["a"]), 3).await;
        make_keys(&world, &json!(null), 4).await;
        make_keys(&world, &json!(["a", "b"]), 2).await;
        let last = make_keys(&world, &json!(["a"]), 1).await;
        let tenant = world.key(&["apiKeys:read"], &["a"]).await;

        let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
        loop {
            let page = world.ask(Method::GET, &format!("/api-keys{query}")).with_key(&tenant).send().await.json();
            let items = page["items"].as_array().unwrap();
            assert!(!items.is_empty(), "{page}");
            seen.extend(items.iter().map(id));
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            assert_eq!(items.len(), 2, "{page}");
            query = format!("?limit=2&cursor={cursor}");
        }

        let own = world.ask(Method::GET, "/whoami").with_key(&tenant).send().await.json();
        assert_eq!(seen, [&ours[..], &last[..], &[id(&own)]].concat());
    }

    async fn a_key_ends_none_that_may_do_more(world: World) {
        let admin = id(&world.get("/whoami").await.json());
        let make = async |permissions: Value, namespaces: Value| {
            let wanted = json!({"name": "one", "permissions": permissions, "namespaces": namespaces});
            world.post("/api-keys", wanted).await.accepted()
        };
        let keeper = make(json!(["apiKeys:write", "certificates:read"]), json!(null)).await;
        let tenant = make(json!(["apiKeys:write", "certificates:read"]), json!(["a"])).await;
        let (more, less) = (make(json!(["secrets:write"]), json!(["a"])).await, make(json!(["certificates:read"]), json!(["a"])).await);
        let delete = async |by: &Value, id: &str| {
            let key = by["key"].as_str().unwrap();
            world.ask(Method::DELETE, &format!("/api-keys/{id}")).with_key(key).send().await
        };

        delete(&keeper, &admin).await.is_problem(403, "permission_denied");
        delete(&tenant, &admin).await.is_problem(404, "not_found");
        for by in [&keeper, &tenant] {
            delete(by, &id(&more)).await.is_problem(403, "permission_denied");
        }
        delete(&tenant, &id(&keeper)).await.is_problem(404, "not_found");
        assert_eq!(delete(&tenant, &id(&less)).await.status, 204);
        assert_eq!(delete(&keeper, &id(&tenant)).await.status, 204);
        assert_eq!(world.get("/whoami").await.status, 200);
    }
}

#[tokio::test]
async fn deliveries_of_before_find_their_namespace_on_sqlite() {
    let (_folder, url) = sqlite_url();
    deliveries_of_before_find_their_namespace(&url).await;
}

#[tokio::test]
async fn deliveries_of_before_find_their_namespace_on_postgres() {
    deliveries_of_before_find_their_namespace(&fresh_database().await).await;
}

async fn deliveries_of_before_find_their_namespace(url: &str) {
    let world = World::on(url).await;
    let wide = json!({"namespace": "a", "namespaces": ["a", "b"]});
    let (_receiver, hook) = hooked(&world, wide).await;
    let (ours, others) = (issued_in(&world, "a").await, issued_in(&world, "b").await);
    for certificate in [&ours, &others] {
        // Only the message is left.
        world.delete(&format!("/certificates/{certificate}")).await;
    }
    world.db.close().await;
    // A delivery from before deliveries had a namespace, with a webhook that was narrowed since.
    former_schema::turn_back(url, 12).await;
    let former = [
        "ALTER TABLE deliveries DROP COLUMN namespace",
        "ALTER TABLE orders DROP COLUMN course",
        "DELETE FROM webhook_subscriptions WHERE namespace = 'b'",
    ];
    execute(url, &former).await;
    former_schema::make(url, former_schema::LAST).await;

    let world = World::on(url).await;
    let found = deliveries(&world, &hook, "?limit=500").await;
    let states = |about: &str| -> Vec<Value> {
        let about = found.iter().filter(|one| is_about(one, about));
        about.map(|one| one["state"].clone()).collect()
    };
    assert!(!states(&others).is_empty() && states(&others).iter().all(|state| state == "held"));
    assert!(states(&ours).iter().any(|state| state == "pending"), "{found:#?}");
    let both = world.key(&["webhooks:read"], &["a", "b"]).await;
    let ask = world.ask(Method::GET, &deliveries_path(&hook)).with_key(&both);
    let seen = ask.send().await.json();
    assert!(!seen["items"].as_array().unwrap().is_empty());
    for one in seen["items"].as_array().unwrap() {
        assert!(is_about(one, &ours), "{one}");
    }
}

#[tokio::test]
async fn a_narrowed_key_gets_no_old_answer_again_on_sqlite() {
    let (_folder, url) = sqlite_url();
    a_narrowed_key_gets_no_old_answer_again(&url).await;
}

#[tokio::test]
async fn a_narrowed_key_gets_no_old_answer_again_on_postgres() {
    a_narrowed_key_gets_no_old_answer_again(&fresh_database().await).await;
}

async fn a_narrowed_key_gets_no_old_answer_again(url: &str) {
    let world = World::on(url).await;
    let key = world.key(&["secrets:write"], &["a", "b"]).await;
    let create = async |world: &World, namespace: &str| {
        let wanted = json!({"namespace": namespace, "name": "one", "stringData": {"k": "v"}});
        let ask = world.ask(Method::POST, "/secrets").with_key(&key);
        ask.header("idempotency-key", namespace).json(&wanted).send().await
    };
    for namespace in ["a", "b"] {
        create(&world, namespace).await.accepted();
    }
    world.db.close().await;
    let narrow = "UPDATE api_keys SET namespaces = '[\"a\"]' WHERE name = 'limited'";
    execute(url, &[narrow]).await;

    let world = World::on(url).await;
    sign_anew(&world).await;
    assert_eq!(create(&world, "a").await.header("idempotency-replayed"), "true");
    create(&world, "b").await.is_problem(403, "permission_denied");
}

/// As if the service itself had written all API keys as they are.
async fn sign_anew(world: &World) {
    let mut tx = world.db.begin();
    for grant in grants::list(&mut tx, Table::ApiKeys, Uuid::nil(), 100).await.unwrap() {
        let mac = world.sealer.sign(&grant.text);
        assert!(grants::sign(&mut tx, Table::ApiKeys, &grant, &mac).await.unwrap());
    }
    tx.commit().await.unwrap();
}

/// A certificate of this namespace that was issued; its identifier.
async fn issued_in(world: &World, namespace: &str) -> String {
    let mut wanted = certificate(&format!("web-{namespace}"));
    wanted["namespace"] = json!(namespace);
    let id = ordered_as(world, wanted).await;
    renew(world, &id).await;
    id
}

fn is_about(delivery: &Value, certificate: &str) -> bool {
    delivery["resource"] == format!("/certificates/{certificate}")
}

async fn make_keys(world: &World, namespaces: &Value, count: usize) -> Vec<String> {
    let mut made = Vec::new();
    for _ in 0..count {
        let wanted =
            json!({"name": "one", "permissions": ["apiKeys:read"], "namespaces": namespaces});
        made.push(id(&world.post("/api-keys", wanted).await.accepted()));
        world.clock.advance(Duration::seconds(1));
    }
    made
}
