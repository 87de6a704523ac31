//! Web pages of other origins.

use axum::http::Method;

use super::compression::varies_by;
use crate::support::asking::Reply;
use crate::support::world::{World, on_every_database};

const OURS: &str = "https://app.example.com";

on_every_database! {
    async fn a_page_of_a_listed_origin_may_ask(world: World) {
        let world = world.open_to_pages_of(&["https://one.example.com", OURS]);

        let may = preflight(&world, OURS, "PATCH").await;
        assert_eq!((may.status, may.header("access-control-allow-origin")), (200, OURS));
        assert!(may.header("access-control-allow-methods").contains("PATCH"));
        let headers = may.header("access-control-allow-headers");
        for name in ["authorization", "content-type", "if-match", "idempotency-key", "prefer"] {
            assert!(headers.contains(name), "{name} is not in {headers}");
        }
        assert_eq!(may.header("access-control-max-age"), "300");

        let answer = world.ask(Method::GET, "/whoami").header("origin", OURS).send().await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, OURS));
        assert!(varies_by(&answer, "origin"), "{:?}", answer.headers);
        for name in ["etag", "location", "link", "retry-after", "x-request-id"] {
            assert!(answer.header("access-control-expose-headers").contains(name), "{name}");
        }
        for answer in [may, answer] {
            assert_eq!(answer.header("access-control-allow-credentials"), "", "a page has a key of its own");
        }
        // It says so of refusals, too: a page could not read them otherwise.
        let refused = world.ask(Method::GET, "/whoami").without_key().header("origin", OURS).send().await;
        refused.is_problem(401, "unauthenticated");
        assert_eq!(refused.header("access-control-allow-origin"), OURS);
    }

    async fn a_page_of_another_origin_may_not(world: World) {
        let world = world.open_to_pages_of(&[OURS]);
        for origin in [
            "https://evil.example.com", "http://app.example.com", "https://app.example.com:8443",
            "https://app.example.com.evil.example", "https://APP.example.com", "null",
        ] {
            let answer = world.ask(Method::GET, "/whoami").header("origin", origin).send().await;
            for answer in [preflight(&world, origin, "POST").await, answer] {
                assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
            }
        }
    }

    async fn nothing_is_open_to_pages_by_itself(world: World) {
        preflight(&world, OURS, "POST").await.is_problem(405, "method_not_allowed");
        let answer = world.ask(Method::GET, "/whoami").header("origin", OURS).send().await;
        let told = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!((answer.status, told), (200, None));
    }
}

async fn preflight(world: &World, origin: &str, method: &str) -> Reply {
    let ask = world.ask(Method::OPTIONS, "/certificates").without_key().header("origin", origin);
    let ask = ask.header("access-control-request-method", method);
    ask.header("access-control-request-headers", "authorization,content-type").send().await
}
