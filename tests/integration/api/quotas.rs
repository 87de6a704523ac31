//! What a namespace may have, and what a principal may hold at the same time.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use certwright::api::{CallerLimits, NamespaceLimits};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::manifests::{send, stream};
use crate::support::patience::{until, within};
use crate::support::world::{Reply, World, certificate, id, on_every_database};

on_every_database! {
    async fn a_namespace_has_no_more_certificates_than_it_may(world: World) {
        let world = limited(world, NamespaceLimits { certificates: NonZeroU32::new(2), open_orders: None }).await;
        let first = create(&world, "a").await.accepted();
        create(&world, "b").await.accepted();

        let problem = create(&world, "c").await.is_problem(403, "quota_exceeded");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("`default` may have 2") && detail.contains("limits.certificates_per_namespace"), "{detail}");
        for query in ["", "?dryRun=true"] {
            let applied = send(&world, &format!("/apply{query}"), &manifests(&["d"])).await;
            applied.is_problem(403, "quota_exceeded");
        }
        create(&world, "a").await.is_problem(409, "already_exists");
        let mut elsewhere = certificate("c");
        elsewhere["namespace"] = json!("team");
        world.post("/certificates", elsewhere).await.accepted();

        let path = format!("/certificates/{}", id(&first));
        assert_eq!(world.patch(&path, json!({"labels": {"a": "b"}})).await.status, 200);
        assert_eq!(world.delete(&path).await.status, 204);
        assert_eq!(send(&world, "/apply", &manifests(&["d"])).await.status, 200);
        assert_eq!(send(&world, "/apply", &manifests(&["d"])).await.status, 200, "nothing new");
        let mut names: Vec<_> = world.certificates().await.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        assert_eq!(names, ["b", "c", "d"]);
    }

    async fn a_stream_of_manifests_that_is_too_much_leaves_nothing_behind(world: World) {
        let world = limited(world, NamespaceLimits { certificates: NonZeroU32::new(2), open_orders: None }).await;

        let refused = send(&world, "/apply", &manifests(&["a", "b", "c"])).await;

        refused.is_problem(403, "quota_exceeded");
        assert!(world.certificates().await.is_empty());
    }

    async fn of_those_who_race_for_the_last_places_none_gets_one_too_many(world: World) {
        let world = limited(world, NamespaceLimits { certificates: NonZeroU32::new(4), open_orders: NonZeroU32::new(3) }).await;
        let names: Vec<_> = (0..16).map(|number| format!("web-{number}")).collect();

        let answers = join_all(names.iter().map(|name| create(&world, name))).await;

        let many = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((many(202), many(429)), (3, 13), "{answers:#?}");
        assert_eq!(world.certificates().await.len(), 3);
    }

    async fn no_more_is_issued_at_once_than_may(world: World) {
        let world = limited(world, NamespaceLimits { certificates: None, open_orders: NonZeroU32::new(1) }).await;
        let first = create(&world, "a").await.accepted();

        let refused = create(&world, "b").await;
        let problem = refused.is_problem(429, "too_many_requests");
        assert!(problem["detail"].as_str().unwrap().contains("limits.open_orders_per_namespace"), "{problem}");
        assert_eq!((refused.header("ratelimit-policy"), refused.header("ratelimit")), ("\"open-orders\";q=1", "\"open-orders\";r=0;t=30"));
        assert_eq!(refused.header("retry-after"), "30");

        let order = world.db_order(&id(&first)).await;
        create(&world, "b").await.is_problem(429, "too_many_requests");
        world.db_issue(&order).await;
        let second = create(&world, "b").await.accepted();
        let renew = async |one: &Value| world.ask(Method::POST, &format!("/certificates/{}/renew", id(one))).send().await;
        renew(&first).await.is_problem(429, "too_many_requests");
        renew(&second).await.accepted();
        let path = format!("/certificates/{}", id(&first));
        world.patch(&path, json!({"dnsNames": ["other.example.com"]})).await.is_problem(429, "too_many_requests");
        assert_eq!(world.patch(&path, json!({"labels": {"a": "b"}})).await.status, 200);
    }

    async fn a_key_follows_no_more_streams_than_it_may(world: World) {
        let world = world.limited(CallerLimits::default().holding(NonZeroU32::new(1), None));
        let other = world.key(&["events:read"], &["default"]).await;
        let open = follow(&world, &world.admin).await;
        assert_eq!(open.status(), 200);

        let refused = world.ask(Method::GET, "/events").header("accept", "text/event-stream").send().await;
        refused.is_problem(429, "too_many_requests");
        assert_eq!((refused.header("ratelimit-policy"), refused.header("retry-after")), ("\"event-streams\";q=1", "5"));
        assert_eq!(world.get("/events").await.status, 200, "a page is no stream");
        assert_eq!(follow(&world, &other).await.status(), 200, "another key has places of its own");

        drop(open);
        assert_eq!(follow(&world, &world.admin).await.status(), 200);
    }

    async fn no_more_requests_of_a_key_wait_than_may(world: World) {
        let world = world.limited(CallerLimits::default().holding(None, NonZeroU32::new(1)));
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let path = format!("/certificates/{}", id(&made));
        let wait = |seconds: &str| world.ask(Method::GET, &path).header("prefer", &format!("wait={seconds}")).send();
        let order = world.db_order(&id(&made)).await;

        // It may find the place taken by one that only looks whether it is.
        let patiently = async {
            loop {
                let held = wait("300").await;
                if held.status != 429 {
                    return held;
                }
            }
        };
        let (held, ()) = tokio::join!(within("the certificate", patiently), async {
            until("a place that is taken", async || wait("0").await.status == 429).await;
            let refused = wait("0").await;
            refused.is_problem(429, "too_many_requests");
            assert_eq!(refused.header("ratelimit-policy"), "\"waits\";q=1");
            let create = world.ask(Method::POST, "/certificates").header("prefer", "wait=1").json(&certificate("b"));
            create.send().await.is_problem(429, "too_many_requests");
            assert_eq!(world.certificates().await.len(), 1, "what cannot wait is not begun");
            assert_eq!(world.get(&path).await.status, 200, "who does not wait needs no place");
            world.db_issue(&order).await;
        });

        assert_eq!((held.status, held.header("preference-applied")), (200, "wait=300"));
        assert_eq!(wait("0").await.status, 200);
    }
}

/// An open stream; it ends when it is dropped.
async fn follow(world: &World, key: &str) -> Response {
    let request = Request::get("/events").header("host", "certwright.test");
    let request = request.header("accept", "text/event-stream");
    let request = request.header("authorization", format!("Bearer {key}"));
    world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn limited(world: World, namespaces: NamespaceLimits) -> World {
    let world = world.limited(CallerLimits::default().within(namespaces));
    world.create_issuer().await;
    world
}

async fn create(world: &World, name: &str) -> Reply {
    world.post("/certificates", certificate(name)).await
}

/// Certificates of the namespace `default`, as manifests.
fn manifests(names: &[&str]) -> String {
    let one = |name: &&str| {
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name},
            "spec": {"secretName": name, "dnsNames": [format!("{name}.example.com")],
                     "issuerRef": {"name": "le", "kind": "ClusterIssuer"}},
        })
    };
    stream(&names.iter().map(one).collect::<Vec<_>>())
}
