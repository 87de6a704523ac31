//! HTTP-01: what the service finds when it looks for its own proof.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use certwright::outbound::Allow;
use certwright::solver::Readiness;

use super::solvers::{World, ZONE, observed, proof};

/// A web server with the proof at `token`, something else at `wrong`, and redirects.
async fn web_server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let base = "/.well-known/acme-challenge";
    let to = |location: String| {
        get(async move || (StatusCode::FOUND, [(header::LOCATION, location.clone())]))
    };
    let router = Router::new()
        .route(&format!("{base}/token"), get(async || "token.thumbprint\n"))
        .route(&format!("{base}/wrong"), get(async || "<h1>\u{1b}[31mwelcome</h1>"))
        .route(
            &format!("{base}/moved"),
            to(format!("http://www.example.org:{}/there", address.port())),
        )
        .route("/there", get(async || "moved.thumbprint"))
        .route(&format!("{base}/literal"), to(format!("http://127.0.0.1:{}/there", address.port())))
        .route(&format!("{base}/port"), to("http://www.example.org:8443/".to_owned()))
        .route(&format!("{base}/round"), to(format!("{base}/round")));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn world_with_web(allow: &[&str]) -> World {
    let web = web_server().await;
    World::with(&[ZONE], web.port(), Allow::parse(allow).unwrap()).await
}

#[tokio::test]
async fn the_self_check_finds_the_proof_also_behind_a_redirect() {
    let world = world_with_web(&["127.0.0.0/8"]).await;
    let solver = world.http01();

    for token in ["token", "moved"] {
        let proof = proof("app.example.org", token);
        assert_eq!(solver.present(&proof).await.unwrap(), None);
        assert_eq!(solver.is_ready(&proof, None).await.unwrap(), Readiness::Ready, "{token}");
        solver.clean_up(&proof, None).await.unwrap();
    }
}

#[tokio::test]
async fn the_self_check_says_what_came_back_instead() {
    let world = world_with_web(&["app.example.org", "www.example.org"]).await;
    let solver = world.http01();

    for (token, words) in [
        ("wrong", "answered 200 with 21 bytes that are not the proof"),
        ("absent", "answered 404 with an empty body"),
        ("literal", "where no CA would follow"),
        ("port", "where no CA would follow"),
        ("round", "more than 10 redirects"),
    ] {
        let observed = observed(&solver, &proof("app.example.org", token)).await;
        assert!(observed.contains(words), "{token}: {observed}");
    }
}

#[tokio::test]
async fn the_self_check_says_who_refuses_connections() {
    let closed = crate::support::ClosedPort::new();
    let free = closed.address().port();
    let world = World::with(&[ZONE], free, Allow::parse(["127.0.0.1"]).unwrap()).await;

    let observed = observed(&world.http01(), &proof("app.example.org", "t")).await;

    assert!(observed.contains("refused"), "{observed}");
    assert!(observed.contains(&format!("(app.example.org, port {free})")), "{observed}");
    assert!(
        !observed.contains("127.0.0.1"),
        "tenants are not told where the inside is: {observed}"
    );
}

#[tokio::test]
async fn the_self_check_does_not_reach_inside_without_permission() {
    let world = world_with_web(&[]).await;
    let inside: IpAddr = "10.0.0.1".parse().unwrap();
    world.cloudflare.set_addresses("inside.example.org", &[inside]);
    world.cloudflare.set_addresses("nowhere.example.org", &[]);
    let solver = world.http01();

    for (domain, words) in [
        ("app.example.org", "app.example.org leads to an address that is not public"),
        ("inside.example.org", "inside.example.org leads to an address that is not public"),
        ("127.0.0.1", "127.0.0.1 leads to an address that is not public"),
        ("nowhere.example.org", "does not resolve"),
    ] {
        let observed = observed(&solver, &proof(domain, "token")).await;
        assert!(observed.contains(words), "{domain}: {observed}");
        assert!(!observed.contains("10.0.0.1"), "{domain}: {observed}");
    }
}
