//! How much callers may do, and how often fail.

use std::num::NonZeroU32;

use axum::http::Method;
use certwright::api::CallerLimits;
use serde_json::json;
use time::Duration;

use crate::support::world::{Reply, World, id, on_every_database};

on_every_database! {
    async fn whoever_guesses_keys_is_asked_to_wait_and_nobody_else(world: World) {
        let world = world.limited(CallerLimits::new(NonZeroU32::new(10), None));
        let wrong = format!("cw_{}", "A".repeat(43));
        for key in (0..10).map(|n| if n % 2 == 0 { wrong.as_str() } else { "a.b.c" }) {
            guess(&world, key, "192.0.2.1").await.is_problem(401, "unauthenticated");
        }

        let refused = guess(&world, &wrong, "192.0.2.1").await;
        refused.is_problem(429, "too_many_requests");
        assert_eq!(refused.header("retry-after"), "6");
        assert_eq!(refused.header("ratelimit"), "\"failed-authentications\";r=0;t=6");
        assert_eq!(refused.header("ratelimit-policy"), "\"failed-authentications\";q=10;w=60");
        assert_eq!(guess(&world, &world.admin, "192.0.2.1").await.status, 200, "a key that counts");
        guess(&world, &wrong, "192.0.2.2").await.is_problem(401, "unauthenticated");
        let without = world.ask(Method::GET, "/whoami").without_key().from("192.0.2.1").send().await;
        without.is_problem(401, "unauthenticated");

        world.clock.advance(Duration::seconds(6));
        guess(&world, &wrong, "192.0.2.1").await.is_problem(401, "unauthenticated");
        guess(&world, &wrong, "192.0.2.1").await.is_problem(429, "too_many_requests");
    }

    async fn an_address_by_name_counts_once(world: World) {
        let path = "/certificates/by-name/default/www";
        let world = world.limited(CallerLimits::new(NonZeroU32::new(2), Some((NonZeroU32::MIN, NonZeroU32::new(2).unwrap()))));
        let wrong = || world.ask(Method::GET, path).with_key("cw_wrong").from("192.0.2.1").send();
        for _ in 0..2 {
            wrong().await.is_problem(401, "unauthenticated");
        }
        wrong().await.is_problem(429, "too_many_requests");
        for _ in 0..2 {
            world.get(path).await.is_problem(404, "not_found");
        }
        world.get(path).await.is_problem(429, "too_many_requests");
    }

    async fn the_addresses_of_one_subscriber_are_counted_together(world: World) {
        let world = world.limited(CallerLimits::new(NonZeroU32::new(1), None));
        guess(&world, "cw_wrong", "2001:db8::1").await.is_problem(401, "unauthenticated");
        guess(&world, "cw_wrong", "2001:db8::2").await.is_problem(429, "too_many_requests");
        guess(&world, "cw_wrong", "2001:db8:0:1::2").await.is_problem(401, "unauthenticated");
        guess(&world, "cw_wrong", "192.0.2.1").await.is_problem(401, "unauthenticated");
        guess(&world, "cw_wrong", "::ffff:192.0.2.1").await.is_problem(429, "too_many_requests");
    }

    async fn requests_of_one_key_take_nothing_from_another(world: World) {
        let made = world.post("/api-keys", json!({"name": "one", "role": "reader"})).await.accepted();
        let rate = NonZeroU32::new(2).zip(NonZeroU32::new(3));
        let world = world.limited(CallerLimits::new(None, rate));
        let ask = async || guess(&world, made["key"].as_str().unwrap(), "192.0.2.1").await;
        for _ in 0..3 {
            assert_eq!(id(&ask().await.json()), id(&made));
        }

        let refused = ask().await;
        refused.is_problem(429, "too_many_requests");
        assert_eq!((refused.header("retry-after"), refused.header("ratelimit-policy")), ("1", "\"requests\";q=2;w=1"));
        assert_eq!(world.get("/whoami").await.status, 200);
        world.clock.advance(Duration::milliseconds(500));
        assert_eq!(ask().await.status, 200);
        ask().await.is_problem(429, "too_many_requests");
    }

    async fn each_answer_says_what_is_left_of_the_limit(world: World) {
        let world = world.limited(CallerLimits::new(None, NonZeroU32::new(2).zip(NonZeroU32::new(3))));
        let left = async || {
            let answer = world.get("/whoami").await;
            assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=2;w=1");
            answer.header("ratelimit").to_owned()
        };
        assert_eq!(left().await, "\"requests\";r=2;t=1");
        assert_eq!(left().await, "\"requests\";r=1;t=1");
        assert_eq!(left().await, "\"requests\";r=0;t=2");
        assert_eq!(left().await, "\"requests\";r=0;t=1", "this one was refused");
        world.clock.advance(Duration::milliseconds(1500));
        assert_eq!(world.get("/nothing").await.status, 404);
        assert_eq!(left().await, "\"requests\";r=2;t=1", "what needs no key is not counted");
    }

    async fn the_requests_of_one_address_take_nothing_from_another(world: World) {
        let rate = NonZeroU32::new(1).zip(NonZeroU32::new(2));
        let world = world.limited(CallerLimits::new(None, None).from_address(rate));
        assert_eq!(guess(&world, &world.admin, "192.0.2.1").await.status, 200);
        guess(&world, "cw_wrong", "192.0.2.1").await.is_problem(401, "unauthenticated");

        let refused = guess(&world, &world.admin, "192.0.2.1").await;
        refused.is_problem(429, "too_many_requests");
        assert_eq!(refused.header("ratelimit"), "\"requests-of-address\";r=0;t=1");
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(guess(&world, &world.admin, "192.0.2.2").await.status, 200);
        world.clock.advance(Duration::seconds(1));
        assert_eq!(guess(&world, &world.admin, "192.0.2.1").await.status, 200);
    }
}

async fn guess(world: &World, key: &str, from: &str) -> Reply {
    world.ask(Method::GET, "/whoami").with_key(key).from(from).send().await
}
