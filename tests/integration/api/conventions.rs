//! Conventions that all answers follow, and endpoints beside the resources.

use axum::body::Body;
use axum::http::{Method, Request};
use certwright::api;
use certwright::domain::challenge::{Challenge, Kind};
use certwright::domain::id::ChallengeId;
use certwright::storage::challenges;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::support::world::{World, id, on_every_database};

on_every_database! {
    async fn an_unknown_path_and_an_unknown_method_are_problems(world: World) {
        world.get("/nothing").await.is_problem(404, "not_found");
        world.get("/certificates/not-a-uuid").await.is_problem(404, "not_found");
        let put = world.ask(Method::PUT, "/certificates").send().await;
        put.is_problem(405, "method_not_allowed");
        assert!(put.header("allow").contains("POST"), "{:?}", put.headers);
        world.ask(Method::POST, "/healthz").send().await.is_problem(405, "method_not_allowed");
    }

    async fn a_request_keeps_the_name_that_its_client_gave_it(world: World) {
        let named = world.ask(Method::GET, "/nothing").header("x-request-id", "build-42").send().await;
        assert_eq!(named.is_problem(404, "not_found")["instance"], "build-42");
    }

    async fn readiness_ends_with_the_database_or_the_service(world: World) {
        assert_eq!(world.get("/readyz").await.status, 200);
        world.shutdown.cancel();
        world.get("/readyz").await.is_problem(503, "unavailable");
        assert_eq!(world.get("/healthz").await.status, 200);

        world.db.close().await;
        let reply = world.get("/whoami").await;
        assert!([500, 503].contains(&reply.status), "{}", reply.text);
        assert!(!reply.text.contains("sqlx") && !reply.text.contains("pool"), "{}", reply.text);
    }

    async fn the_page_works_without_any_other_server(world: World) {
        let page = world.get("/docs/").await;
        assert_eq!(page.status, 200);
        let start = world.get("/docs/swagger-initializer.js").await;
        assert!(start.text.contains("/openapi.json"), "{}", start.text);
        assert!(start.text.contains("\"validatorUrl\": \"none\""), "{}", start.text);
        for text in [page.text, start.text] {
            assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
        }
    }

    async fn the_responder_answers_tokens_and_nothing_else(world: World) {
        world.create_issuer().await;
        let made = id(&world.create_certificate("web").await);
        let order = world.db_order(&made).await;
        let token = "tokentokentokentokentoken-_";
        let challenge = Challenge {
            id: ChallengeId::generate(world.now()),
            kind: Kind::Http01,
            token: token.to_owned(),
            key_authorization: format!("{token}.thumbprint"),
            ..order.challenges[0].clone()
        };
        // A CA says how long its tokens are.
        let (short, long) = ("0123456789abcdef", "t".repeat(512));
        let of_other_length = [short, &long].map(|token| Challenge {
            id: ChallengeId::generate(world.now()),
            token: token.to_owned(),
            key_authorization: format!("{token}.thumbprint"),
            ..challenge.clone()
        });
        let mut tx = world.db.begin();
        challenges::insert(&mut tx, order.id, &[challenge]).await.unwrap();
        challenges::insert(&mut tx, order.id, &of_other_length).await.unwrap();
        tx.commit().await.unwrap();
        let responder = api::responder(world.db.clone());
        let ask = async |method: Method, path: String| {
            let request = Request::builder().method(method).uri(path).header("host", "example.com");
            let request = request.body(Body::empty()).unwrap();
            let response = responder.clone().oneshot(request).await.unwrap();
            let kind = response.headers().get("content-type").cloned();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, kind, String::from_utf8(body.to_vec()).unwrap())
        };
        let path = |token: &str| format!("/.well-known/acme-challenge/{token}");

        let (status, kind, text) = ask(Method::GET, path(token)).await;
        assert_eq!((status, text), (200, format!("{token}.thumbprint")));
        assert_eq!(kind.unwrap(), "application/octet-stream");
        assert_eq!(ask(Method::HEAD, path(token)).await.0, 200);
        for token in [short, &long] {
            let (status, _, text) = ask(Method::GET, path(token)).await;
            assert_eq!((status, text), (200, format!("{token}.thumbprint")));
        }
        let nothing = (404, "not found\n".to_owned());
        for (method, path) in [
            (Method::GET, path("unknownunknownunknown")),
            (Method::GET, path("short")),
            (Method::GET, path(&"a".repeat(513))),
            (Method::GET, path("padded==")),
            (Method::GET, path("..%2f..%2fetc%2fpasswd-and-more")),
            (Method::GET, path("%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff")),
            (Method::GET, "/".to_owned()),
            (Method::GET, "/healthz".to_owned()),
            (Method::POST, path(token)),
        ] {
            let (status, _, text) = ask(method, path.clone()).await;
            assert_eq!((status, text), nothing, "{path}");
        }
    }
}
