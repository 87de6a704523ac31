//! What bodies and queries may look like, and in which words they are refused.

use axum::http::Method;
use serde_json::json;

use crate::support::world::{Reply, World, certificate, cluster_issuer, on_every_database};

on_every_database! {
    async fn an_array_is_never_an_object(world: World) {
        world.create_issuer().await;
        let by_position = json!([null, null, {}, ["py", "Issuer"], ["x.example.com"]]);
        let problem = world.post("/certificates", by_position).await;
        assert_fault(&problem, "", "wrong_type", "expected an object");

        let mut inner = certificate("web");
        inner["privateKey"] = json!(["RSA"]);
        let problem = world.post("/certificates", inner).await;
        assert_fault(&problem, "/privateKey", "wrong_type", "expected an object");

        let mut limits = cluster_issuer("limited");
        limits["acme"]["limits"] = json!({"newOrders": [300, "3h"]});
        let problem = world.post("/issuers", limits).await;
        assert_fault(&problem, "/acme/limits/newOrders", "wrong_type", "expected an object");
        assert!(world.certificates().await.is_empty());
    }

    async fn a_member_is_given_once_in_post_and_patch(world: World) {
        world.create_issuer().await;
        let made = world.post("/certificates", certificate("web")).await;
        let path = made.header("location").to_owned();
        let twice = r#"{"labels": {"a": "b"}, "labels": {"a": "c"}}"#;
        let inside = r#"{"labels": {"a": "b", "a": "c"}}"#;
        for (method, path) in [(Method::POST, "/certificates"), (Method::PATCH, &path)] {
            for (text, pointer) in [(twice, "/labels"), (inside, "/labels/a")] {
                let problem = sent(&world, method.clone(), path, text).await;
                assert_fault(&problem, pointer, "invalid", "it is given twice");
            }
        }
        assert_eq!(world.get(&path).await.json()["labels"], json!({}));
    }

    async fn a_number_out_of_bounds_is_told_its_bounds(world: World) {
        let mut wanted = certificate("web");
        wanted["privateKey"] = json!({"algorithm": "RSA", "size": -1});
        let problem = world.post("/certificates", wanted).await;
        assert_fault(&problem, "/privateKey/size", "invalid", "expected a number from 0 to 4294967295");
    }

    async fn a_query_is_refused_by_the_name_of_its_parameter(world: World) {
        for (query, detail) in [
            ("limit=many", "`limit` in the query: expected a number from 0 to 4294967295."),
            ("ready=yes", "`ready` in the query: expected true or false."),
            ("sort=size", "`sort` in the query: expected one of `createdAt`, `-createdAt`, `name`, `-name`, `notAfter`, `-notAfter`."),
            ("name=a&name=b", "`name` in the query: it is given twice."),
        ] {
            let problem = world.get(&format!("/certificates?{query}")).await.is_problem(400, "malformed_request");
            assert_eq!(problem["detail"], detail, "{query}");
        }
        let unknown = world.get("/secrets?colour=red").await.is_problem(400, "malformed_request");
        let detail = unknown["detail"].as_str().unwrap();
        assert!(detail.starts_with("`colour` in the query: there is no such parameter; expected one of `namespace`"), "{detail}");
        let odd = world.get("/orders?certificate=web").await.is_problem(400, "malformed_request");
        assert_eq!(odd["detail"], "`certificate` in the query: expected a UUID.");
    }

    async fn a_compressed_body_is_refused_as_one(world: World) {
        let ask = || world.ask(Method::POST, "/certificates").json(&certificate("web"));
        let refused = ask().header("content-encoding", "gzip").send().await;
        let problem = refused.is_problem(415, "unsupported_media_type");
        assert!(problem["detail"].as_str().unwrap().contains("`Content-Encoding: gzip`"), "{problem}");
        assert_eq!(refused.header("accept-encoding"), "identity");

        world.create_issuer().await;
        ask().header("content-encoding", "identity").send().await.accepted();
    }

    async fn a_body_that_is_too_large_is_told_the_limit_of_its_route(world: World) {
        let large = " ".repeat(64 * 1024 + 1);
        let problem = sent(&world, Method::POST, "/certificates", &large).await.is_problem(413, "payload_too_large");
        assert!(problem["detail"].as_str().unwrap().contains("65536 bytes"), "{problem}");
        let large = " ".repeat(1024 * 1024 + 1);
        let problem = sent(&world, Method::POST, "/apply", &large).await.is_problem(413, "payload_too_large");
        assert!(problem["detail"].as_str().unwrap().contains("1048576 bytes"), "{problem}");
    }
}

async fn sent(world: &World, method: Method, path: &str, text: &str) -> Reply {
    world.ask(method, path).text(text).header("content-type", "application/json").send().await
}

/// Checks pointer, code and words of the only fault.
#[track_caller]
fn assert_fault(refused: &Reply, pointer: &str, code: &str, detail: &str) {
    let problem = refused.is_problem(422, "validation_failed");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{problem}");
    let fault = &errors[0];
    assert_eq!((&fault["pointer"], &fault["code"]), (&json!(pointer), &json!(code)), "{problem}");
    assert_eq!(fault["detail"], detail);
}
