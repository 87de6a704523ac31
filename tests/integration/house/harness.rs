//! The counterparts that the other tests stand on really start and do what those tests take for granted.

use std::net::SocketAddr;

use axum::extract::Path;
use axum::routing::get;
use sqlx::{Connection, PgConnection};

use crate::support::nginx::Nginx;
use crate::support::patience::PATIENCE;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::postgres;

#[tokio::test]
async fn pebble_answers_its_directory_with_profiles_and_renewal_information() {
    let pebble = Pebble::start(PebbleOptions::default()).await;

    let answer = pebble.client().get(pebble.directory_url()).send().await.unwrap();
    let directory: serde_json::Value = answer.json().await.unwrap();

    let profiles: Vec<_> = directory["meta"]["profiles"].as_object().unwrap().keys().collect();
    assert_eq!(profiles, ["default", "shortlived", "tlsserver"]);
    assert!(
        directory["renewalInfo"].is_string(),
        "this Pebble is too old to know ARI: {directory}"
    );
}

#[tokio::test]
async fn pebble_counts_from_nothing_and_has_a_root_of_its_own() {
    let (one, other) = tokio::join!(
        Pebble::start(PebbleOptions::default()),
        Pebble::start(PebbleOptions::default())
    );

    let root = one.root_pem().await;
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{root}");
    assert_ne!(root, other.root_pem().await);
    assert_ne!(root, one.ca_pem(), "what signs Pebble's HTTPS is not what it issues from");
    assert_eq!((one.orders_created(), one.certificates_issued()), (0, 0));
}

#[tokio::test]
async fn pebble_asks_for_an_external_account_when_it_has_one() {
    let external_accounts = vec![(
        "kid-1".to_owned(),
        "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W".to_owned(),
    )];
    let pebble =
        Pebble::start(PebbleOptions { external_accounts, ..PebbleOptions::default() }).await;

    let answer = pebble.client().get(pebble.directory_url()).send().await.unwrap();
    let directory: serde_json::Value = answer.json().await.unwrap();

    assert_eq!(directory["meta"]["externalAccountRequired"], true);
    assert!(!pebble.ca_bundle().is_empty());
}

#[tokio::test]
async fn postgres_gives_each_test_a_database_of_its_own() {
    let (one, other) = tokio::join!(postgres::fresh_database(), postgres::fresh_database());
    let mut one = PgConnection::connect(&one).await.unwrap();
    let mut other = PgConnection::connect(&other).await.unwrap();

    sqlx::query("CREATE TABLE mine (id bigint)").execute(&mut one).await.unwrap();

    let count = "SELECT count(*) FROM pg_tables WHERE tablename = 'mine'";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut one).await.unwrap(), 1);
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut other).await.unwrap(), 0);
}

#[tokio::test]
async fn nginx_forwards_challenges_and_nothing_else() {
    let upstream = challenge_responder().await;
    let nginx = Nginx::start(upstream).await;
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = |path: &str| format!("http://{}{path}", nginx.address());

    let challenge = client.get(url("/.well-known/acme-challenge/token-1")).send().await.unwrap();
    let other = client.get(url("/certificates")).send().await.unwrap();
    let post = client.post(url("/.well-known/acme-challenge/token-1")).send().await.unwrap();

    assert_eq!(challenge.text().await.unwrap(), "the answer to token-1");
    assert_eq!(other.status(), 404);
    assert_eq!(post.status(), 403);
}

async fn challenge_responder() -> SocketAddr {
    let answer = async |Path(token): Path<String>| format!("the answer to {token}");
    let router = axum::Router::new()
        .route("/.well-known/acme-challenge/{token}", get(answer))
        .route("/certificates", get(async || "what only the API's own listener may say"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
