//! Who is asked to wait by a CA, and lifting it.

use axum::http::Method;
use certwright::domain::backoff::Jitter;
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::IssuerId;
use certwright::domain::throttle::{Asker, Scope as Limit};
use certwright::storage::{Scope, issuers, throttles};
use serde_json::{Value, json};
use time::Duration;
use time::format_description::well_known::Rfc3339;

use crate::support::world::{World, id, on_every_database};

const SERVER: &str = "https://ca.example/directory";

/// Stores what a CA says when it has enough of a registered domain; its end.
async fn throttled(world: &World, domain: &str, hours: i64) -> String {
    held(world, Limit::RegisteredDomain(domain.to_owned()), hours).await
}

async fn held(world: &World, limit: Limit, hours: i64) -> String {
    let asker = Asker { server: SERVER, account: "", names: &[] };
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

    async fn an_issuer_shows_what_its_ca_has_asked_to_wait_for(world: World) {
        let issuer = format!("/issuers/{}", id(&world.create_issuer().await));
        assert_eq!(world.get(&issuer).await.json()["status"]["throttles"], Value::Null);
        let until = throttled(&world, "example.com", 26).await;
        held(&world, Limit::Endpoint, 2).await;

        let shown = world.get(&issuer).await.json()["status"]["throttles"].clone();

        let listed = world.get("/throttles").await.json()["items"].clone();
        assert_eq!(shown, listed, "the same, in the order of their ends");
        assert_eq!(shown[0]["until"], until);
        assert_eq!(shown[0]["limit"], json!({"kind": "registeredDomain", "of": "example.com"}));
        assert_eq!(shown[0]["lastError"]["detail"], "too many certificates");
        let all = world.get("/issuers").await.json();
        assert_eq!(all["items"][0]["status"]["throttles"], Value::Null, "not in a list");
    }

    async fn who_does_not_see_the_list_sees_no_names_of_others_and_not_what_the_ca_said(world: World) {
        let issuer = format!("/issuers/{}", id(&world.create_issuer().await));
        throttled(&world, "example.com", 26).await;
        held(&world, Limit::ExactSet, 9).await;
        held(&world, Limit::Name("www.example.com".into()), 9).await;
        let until = held(&world, Limit::Endpoint, 2).await;
        let bound = world.key(&["issuers:read", "throttles:read"], &["default"]).await;
        let reads = world.unbound_key(&["issuers:read"]).await;

        for key in [bound, reads] {
            let reply = world.ask(Method::GET, &issuer).with_key(&key).send().await;
            let shown = &reply.json()["status"]["throttles"];
            let [one] = &shown.as_array().unwrap()[..] else { panic!("{shown}") };
            assert_eq!((&one["limit"], &one["until"]), (&json!({"kind": "endpoint"}), &json!(until)));
            let text = reply.text;
            assert!(!text.contains("too many") && !text.contains("www"), "{text}");
        }
    }

    async fn an_issuer_that_waits_with_its_registration_is_woken_by_lifting(world: World) {
        let issuer = id(&world.create_issuer().await);
        let until = world.now() + Duration::hours(26);
        held(&world, Limit::Endpoint, 26).await;
        let why = Failure::of(code::ACME_BUSY, "later").not_before(Some(until));
        let mut tx = world.db.begin();
        let key = IssuerId(issuer.parse().unwrap());
        let (found, lease) = issuers::find(&mut tx, key, &Scope::Everything).await.unwrap().unwrap();
        let waits = found.not_registered(why, world.now(), Jitter::NONE);
        issuers::save(&mut tx, &waits, &lease).await.unwrap();
        tx.commit().await.unwrap();
        let path = format!("/issuers/{issuer}");
        let shown = world.get(&path).await.json();
        assert_eq!(shown["status"]["nextAttemptAt"], shown["status"]["throttles"][0]["until"]);

        let throttle = shown["status"]["throttles"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(world.delete(&format!("/throttles/{throttle}")).await.status, 204);

        let now = world.now().format(&Rfc3339).unwrap();
        assert_eq!(world.get(&path).await.json()["status"]["nextAttemptAt"], now);
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
