//! Headers for browsers and caches.

use axum::http::Method;
use serde_json::json;

use crate::support::world::{World, id, on_every_database};

on_every_database! {
    async fn no_cache_keeps_an_answer_and_no_frame_shows_it(world: World) {
        world.create_issuer().await;
        let made = world.create_certificate("web").await;
        let certificate = format!("/certificates/{}", id(&made));
        for (path, kept) in [
            ("/certificates", "no-store"),
            ("/whoami", "no-store"),
            ("/healthz", "no-store"),
            ("/openapi.json", "no-cache"),
            ("/nothing", "no-store"),
            ("/events", "no-store"),
            (&certificate, "private, no-cache"),
        ] {
            let answer = world.get(path).await;
            assert_eq!(answer.header("cache-control"), kept, "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
            assert_eq!(answer.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        }
        let refused = world.ask(Method::GET, "/whoami").without_key().send().await;
        assert_eq!(refused.header("cache-control"), "no-store");
    }

    async fn a_reader_that_has_the_answer_is_told_so_still(world: World) {
        world.create_issuer().await;
        let path = format!("/certificates/{}", id(&world.create_certificate("web").await));
        let first = world.get(&path).await;

        let again = world.ask(Method::GET, &path).header("if-none-match", first.header("etag"));
        let again = again.send().await;

        assert_eq!((again.status, again.header("cache-control")), (304, "private, no-cache"));
    }

    async fn the_page_loads_only_what_its_policy_allows(world: World) {
        let page = world.get("/docs/").await;
        let policy = page.header("content-security-policy").to_owned();
        for directive in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{policy}");
        }

        let mut loaded = Vec::new();
        for attribute in ["src=\"", "href=\""] {
            loaded.extend(page.text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()));
        }
        assert!(loaded.len() >= 5, "{}", page.text);
        for file in loaded {
            assert!(!file.contains(':') && !file.starts_with("//"), "{file} is of this service");
            let answer = world.get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
            assert_eq!(answer.status, 200, "{file}");
            assert_eq!(answer.header("content-security-policy"), policy);
            assert_eq!(answer.header("cache-control"), "no-cache");
        }
        for script in page.text.split("<script").skip(1) {
            let (tag, body) = script.split_once('>').unwrap();
            let inner = body.split("</script>").next().unwrap();
            assert!(tag.contains("src=") && inner.trim().is_empty(), "{script}");
        }
        assert!(!page.text.contains("<style") && !page.text.contains(" onload="), "{}", page.text);
        let start = world.get("/docs/swagger-initializer.js").await.text;
        assert!(start.contains("/openapi.json") && !start.contains("https://"), "{start}");
    }

    async fn a_dry_run_confirms_no_guess_of_a_secret(world: World) {
        let secret = |value: &str| json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one"}, "stringData": {"token": value}
        });
        let result = async |query: &str, value: &str| {
            let applied = world.post(&format!("/apply{query}"), secret(value)).await.json();
            applied["results"][0]["result"].clone()
        };
        assert_eq!(result("?dryRun=true", "right").await, "created");
        assert_eq!(result("", "right").await, "created");

        assert_eq!(result("?dryRun=true", "right").await, "configured");
        assert_eq!(result("?dryRun=true", "wrong").await, "configured");
        assert_eq!(result("", "right").await, "unchanged", "who writes it has it");
    }
}
