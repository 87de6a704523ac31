//! Forms of answers, and what changes with the program only: the description, the version, the pages about problems.

use axum::http::Method;
use serde_json::json;

use super::compression::varies_by;
use crate::support::asking::Reply;
use crate::support::world::{World, id, on_every_database};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

on_every_database! {
    async fn the_form_is_the_one_that_the_client_likes_best(world: World) {
        world.create_issuer().await;
        let explain = format!("/certificates/{}/explain", id(&world.create_certificate("web").await));
        for (path, accept, form) in [
            (&*explain, "*/*", "application/json"),
            (&explain, "application/json;q=0.1, text/plain;q=0.2", "text/plain; charset=utf-8"),
            (&explain, "text/plain;q=0, */*", "application/json"),
            ("/events", "text/event-stream;q=0, application/json", "application/json"),
            ("/events", "application/json, text/event-stream;q=0.9", "application/json"),
            ("/problems", BROWSER, "text/html; charset=utf-8"),
            ("/problems", "*/*", "text/markdown; charset=utf-8"),
            ("/problems", "application/problem+json", "text/markdown; charset=utf-8"),
        ] {
            let answer = accepting(&world, path, accept).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, form), "{path} {accept}");
            assert!(varies_by(&answer, "accept"), "{path}");
        }
    }

    async fn a_form_that_there_is_not_is_refused_with_those_that_there_are(world: World) {
        world.create_issuer().await;
        let explain = format!("/certificates/{}/explain", id(&world.create_certificate("web").await));
        for (path, forms) in [
            (&*explain, ["application/json", "text/plain"]),
            ("/events", ["application/json", "text/event-stream"]),
            ("/problems", ["text/markdown", "text/html"]),
            ("/problems/internal", ["text/markdown", "text/html"]),
        ] {
            for accept in ["image/png", "*/*;q=0"] {
                let refused = accepting(&world, path, accept).await.is_problem(406, "not_acceptable");
                let detail = refused["detail"].as_str().unwrap();
                assert!(forms.iter().all(|form| detail.contains(form)), "{path}: {detail}");
            }
        }
        assert_eq!(accepting(&world, "/certificates", "image/png").await.status, 200, "it has one form");
    }

    async fn the_type_of_a_problem_leads_to_a_page_about_it(world: World) {
        let refused = world.ask(Method::GET, "/whoami").without_key().send().await;
        let refused = refused.is_problem(401, "unauthenticated");
        let address = refused["type"].as_str().unwrap();

        let text = world.ask(Method::GET, address).without_key().send().await;
        assert!(text.text.starts_with("# unauthenticated\n") && text.text.contains("**What to do:** Send `Author"), "{}", text.text);
        let page = accepting(&world, address, BROWSER).await;
        assert!(page.text.starts_with("<!DOCTYPE html>") && page.text.contains("<h1>unauthenticated</h1>"), "{}", page.text);
        assert!(page.text.contains("<strong>What to do:</strong>") && !page.text.contains(".md\""), "{}", page.text);
        assert_eq!(page.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");

        let all = accepting(&world, "/problems", BROWSER).await;
        assert!(all.text.contains("<a href=\"/problems/unauthenticated\">"), "{}", all.text);
        for nothing in ["/problems/none", "/problems/Internal", "/problems/%2e%2e"] {
            world.get(nothing).await.is_problem(404, "not_found");
        }
    }

    async fn what_changes_with_the_program_only_is_sent_once(world: World) {
        for path in ["/openapi.json", "/docs/", "/docs/swagger-ui.css", "/version", "/problems", "/problems/internal"] {
            let first = world.ask(Method::GET, path).without_key().send().await;
            assert_eq!((first.status, first.header("cache-control")), (200, "no-cache"), "{path}");
            let tag = first.header("etag");

            let again = world.ask(Method::GET, path).without_key().header("if-none-match", tag).send().await;
            assert_eq!((again.status, again.header("etag"), again.text.as_str()), (304, tag, ""), "{path}");
            let other = world.ask(Method::GET, path).header("if-none-match", "\"other\"").send().await;
            assert_eq!((other.status, other.text), (200, first.text), "{path}");
        }
        let html = accepting(&world, "/problems/internal", "text/html").await;
        assert_ne!(html.header("etag"), world.get("/problems/internal").await.header("etag"), "each form has its tag");
    }

    async fn anybody_may_know_the_version_and_nothing_more(world: World) {
        let shown = world.ask(Method::GET, "/version").without_key().send().await.json();

        let mut shown = shown.as_object().unwrap().clone();
        // A build that knows no commit tells none.
        shown.remove("commit");
        let expected = json!({"version": env!("CARGO_PKG_VERSION"), "apiVersion": "1"});
        assert_eq!(&shown, expected.as_object().unwrap());
    }
}

async fn accepting(world: &World, path: &str, forms: &str) -> Reply {
    world.ask(Method::GET, path).header("accept", forms).send().await
}
