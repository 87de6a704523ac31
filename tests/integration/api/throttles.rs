//! Who is asked to wait by a CA, and lifting it.

use axum::http::Method;
use certwright::domain::failure::{Failure, code};
use certwright::domain::throttle::{Asker, Scope as Limit};
use certwright::storage::throttles;
use serde_json::json;
use time::Duration;
use time::format_description::well_known::Rfc3339;

use crate::support::world::{World, on_every_database};

const SERVER: &str = "https://ca.example/directory";

/// Stores what a CA says when it has enough of a registered domain; its end.
async fn throttled(world: &World, domain: &str, hours: i64) -> String {
    let asker = Asker { server: SERVER, account: "", names: &[] };
    let limit = Limit::RegisteredDomain(domain.to_owned());
    let until = world.now() + Duration::hours(hours);
    let why = Failure {
        scope: Some(limit.clone()),
        ..Failure::of(code::ACME_RATE_LIMITED, "too many certificates")
    };
    let mut tx = world.db.begin();
    let key = asker.key(&limit);
    throttles::hold(&mut tx, &key, &limit, until, &why, world.now()).await.unwrap();
    tx.commit().await.unwrap();
    until.format(&Rfc3339).unwrap()
}

on_every_database! {
    async fn whoever_is_bound_to_nothing_sees_who_waits_for_whom_until_when(world: World) {
        let until = throttled(&world, "example.com", 26).await;
        throttled(&world, "example.org", 1).await;

        let listed = world.get("/throttles").await.json();

        let [one, other] = &listed["items"].as_array().unwrap()[..] else { panic!("{listed}") };
        assert_eq!(one["countedBy"], "ca.example:443");
        assert_eq!(one["limit"], json!({"kind": "registeredDomain", "of": "example.com"}));
        assert_eq!(one["until"], until);
        assert_eq!(one["lastError"]["detail"], "too many certificates");
        assert_eq!(other["limit"]["of"], "example.org");

        world.clock.advance(Duration::hours(2));
        let listed = world.get("/throttles").await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "what has ended holds nobody");
    }

    async fn a_throttle_that_is_lifted_holds_nobody(world: World) {
        throttled(&world, "example.com", 26).await;
        let listed = world.get("/throttles").await.json();
        let path = format!("/throttles/{}", listed["items"][0]["id"].as_str().unwrap());

        assert_eq!(world.delete(&path).await.status, 204);

        assert_eq!(world.get("/throttles").await.json()["items"], json!([]));
        world.delete(&path).await.is_problem(404, "not_found");
    }

    async fn a_key_that_is_bound_to_a_namespace_neither_sees_nor_lifts(world: World) {
        throttled(&world, "example.com", 26).await;
        let listed = world.get("/throttles").await.json();
        let path = format!("/throttles/{}", listed["items"][0]["id"].as_str().unwrap());
        let key = world.key(&["throttles:read", "throttles:write"], &["default"]).await;

        for (method, path) in [(Method::GET, "/throttles"), (Method::DELETE, path.as_str())] {
            let reply = world.ask(method, path).with_key(&key).send().await;
            reply.is_problem(403, "permission_denied");
        }
    }
}
