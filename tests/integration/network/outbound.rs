//! Where nobody gets us to connect to: hostile URLs, real listeners that count, a DNS that lies.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use certwright::outbound::{
    AddressError, Allow, Guard, Reply, RetryAfter, SendError, Sender, SenderSettings, UrlError,
    resolver,
};
use http::HeaderMap;
use serde_json::json;
use url::Url;

use crate::support::cloudflare::Cloudflare;
use crate::support::databases::on_both_databases;
use crate::support::hostile::{INSIDE, LOCAL, LOOPBACK, NAMES, Trap, ZONE, hostile_names};
use crate::support::world::{World, id};

/// A sender for which scheme and port are no obstacle: only addresses are.
fn sender(cloudflare: &Cloudflare, trap: &Trap, allow: &[&str]) -> Sender {
    let resolver = resolver(&[cloudflare.dns_addr()], true).unwrap();
    let guard = Guard::new(resolver, Allow::parse(allow).unwrap());
    let settings = SenderSettings { allow_http: true, ports: [trap.port, 80, 443].into() };
    Sender::new(guard, settings).unwrap()
}

async fn post(sender: &Sender, url: &str) -> Result<Reply, SendError> {
    sender.post(&url.parse().unwrap(), HeaderMap::new(), Bytes::from_static(b"{}")).await
}

/// What is no URL, or becomes none.
const NO_URL: [&str; 8] = [
    "http://[fe80::1%25lo]:P/",
    "http://[::1%25lo]:P/",
    "http://[::1]evil:P/",
    "http://127.0.0.1:P:80/",
    "http://256.0.0.1:P/",
    "http://0x7g.1:P/",
    "http://127.0.0.1%00.example.org:P/",
    "//127.0.0.1:P/",
];

/// What is refused whoever the host is.
const WRONG: [&str; 14] = [
    "http://user@127.0.0.1:P/",
    "http://user:word@hooks.example.org:P/",
    "http://:word@hooks.example.org:P/",
    "http://example.org@127.0.0.1:P/",
    "https://127.0.0.1:P@hooks.example.org/",
    "http://hooks.example.org:22/",
    "http://hooks.example.org:6379/",
    "ftp://127.0.0.1:P/",
    "gopher://127.0.0.1:P/_x",
    "ws://127.0.0.1:P/",
    "file:///etc/passwd",
    "unix:///run/docker.sock",
    "data:text/plain,x",
    "javascript:alert(1)",
];

#[tokio::test]
async fn no_spelling_of_an_inner_address_is_connected_to() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let sender = sender(&cloudflare, &trap, &[]);

    for pattern in LOOPBACK.iter().chain(&INSIDE).chain(&LOCAL) {
        let url = pattern.replace(":P", &format!(":{}", trap.port));
        let refused = post(&sender, &url).await;
        assert!(
            matches!(
                refused,
                Err(SendError::Url(UrlError::Address(AddressError::Forbidden { .. })))
            ),
            "{url}: {refused:?}"
        );
        let early = sender.check(&url.parse().unwrap());
        assert!(
            matches!(early, Err(UrlError::Address(AddressError::Forbidden { .. }))),
            "{url}: {early:?}"
        );
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
}

#[tokio::test]
async fn what_is_no_url_or_a_wrong_one_goes_nowhere() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let sender = sender(&cloudflare, &trap, &[]);

    for pattern in NO_URL {
        let url = pattern.replace(":P", &format!(":{}", trap.port));
        assert!(Url::parse(&url).is_err(), "{url} is a URL after all");
    }
    for pattern in WRONG {
        let url = pattern.replace(":P", &format!(":{}", trap.port));
        let refused = post(&sender, &url).await;
        let expected = matches!(
            refused,
            Err(SendError::Url(UrlError::UserInfo | UrlError::Port(_) | UrlError::Scheme(_)))
        );
        assert!(expected, "{url}: {refused:?}");
    }

    assert_eq!(trap.count(), 0, "somebody was connected to");
    assert_eq!(cloudflare.asked("hooks.example.org"), 0, "nor is it looked up");
}

#[tokio::test]
async fn every_spelling_of_loopback_connects_once_with_permission() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let sender = sender(&cloudflare, &trap, &["127.0.0.0/8", "::1"]);

    for (place, pattern) in (1..).zip(LOOPBACK) {
        let url = pattern.replace(":P", &format!(":{}", trap.port));
        let reply = post(&sender, &url).await;
        assert_eq!(reply.unwrap().status, 204, "{url}");
        assert_eq!(trap.count(), place, "{url}");
    }
}

#[tokio::test]
async fn a_name_is_refused_when_any_of_its_addresses_is_inside() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    hostile_names(&cloudflare);
    let sender = sender(&cloudflare, &trap, &[]);

    for name in NAMES {
        for dot in ["", "."] {
            let url = format!("http://{name}.{ZONE}{dot}:{}/", trap.port);
            assert!(sender.check(&url.parse().unwrap()).is_ok(), "{url}: nobody can see it yet");
            let early = sender.check_reachable(&url.parse().unwrap()).await.unwrap_err();
            assert!(
                matches!(early, UrlError::Address(AddressError::Forbidden { .. })),
                "{url}: {early}"
            );
            let told = early.to_string();
            assert!(!told.contains("10.0.0.1") && !told.contains("::1"), "{told}");
            let refused = post(&sender, &url).await;
            assert!(
                matches!(
                    refused,
                    Err(SendError::Url(UrlError::Address(AddressError::Forbidden { .. })))
                ),
                "{url}: {refused:?}"
            );
        }
    }
    let nowhere = format!("http://nowhere.{ZONE}:{}/", trap.port);
    let refused = post(&sender, &nowhere).await;
    assert!(
        matches!(refused, Err(SendError::Url(UrlError::Address(AddressError::Unresolved { .. })))),
        "{refused:?}"
    );

    assert_eq!(trap.count(), 0, "somebody was connected to");
}

#[tokio::test]
async fn a_name_that_moves_inside_after_its_registration_is_refused() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let (public, inside) = (Ipv4Addr::new(1, 2, 3, 4).into(), Ipv4Addr::LOCALHOST.into());
    cloudflare.set_moving("moving.example.org", &[public, inside]);
    let sender = sender(&cloudflare, &trap, &[]);
    let url = format!("http://moving.example.org:{}/", trap.port);

    sender.check_reachable(&url.parse().unwrap()).await.unwrap();
    let refused = post(&sender, &url).await;

    assert!(
        matches!(refused, Err(SendError::Url(UrlError::Address(AddressError::Forbidden { .. })))),
        "{refused:?}"
    );
    assert_eq!(trap.count(), 0, "somebody was connected to");
}

#[tokio::test]
async fn what_was_checked_is_what_is_connected_to() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let [allowed, inside] = [[127, 0, 0, 2], [127, 0, 0, 1]].map(IpAddr::from);
    let sender = sender(&cloudflare, &trap, &["127.0.0.2"]);
    cloudflare.set_moving("moving.example.org", &[allowed, inside, allowed]);
    let url = format!("http://moving.example.org:{}/", trap.port);

    assert_eq!(post(&sender, &url).await.unwrap().status, 204);
    assert_eq!(cloudflare.asked("moving.example.org"), 1, "one look-up to check and to connect");

    assert!(post(&sender, &url).await.is_err(), "the next delivery looks again");
    assert_eq!(trap.count(), 1);
    assert_eq!(cloudflare.asked("moving.example.org"), 2);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
        trap.port
    );
    let front = Trap::answering(answer.leak()).await;
    // Both are allowed: it is not the address that stops it.
    let sender = sender(&cloudflare, &trap, &["127.0.0.0/8"]);

    let reply = post(&sender, &format!("http://127.0.0.2:{}/", front.port)).await.unwrap();

    assert_eq!((reply.status, front.count(), trap.count()), (307, 1, 0));
}

#[tokio::test]
async fn of_an_endless_answer_only_the_beginning_is_read() {
    let cloudflare = Cloudflare::start(&[ZONE]).await;
    let endless = format!(
        "HTTP/1.1 503 Busy\r\nretry-after: 30\r\ncontent-length: 1000000000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let trap = Trap::answering(endless.leak()).await;
    let sender = sender(&cloudflare, &trap, &["127.0.0.0/8"]);

    let reply = post(&sender, &format!("http://127.0.0.1:{}/", trap.port)).await.unwrap();

    assert_eq!((reply.status, reply.first_bytes.len()), (503, 1024));
    assert_eq!(reply.retry_after, Some(RetryAfter::In(time::Duration::seconds(30))));
}

#[tokio::test]
async fn who_refuses_connections_is_told_from_who_is_refused() {
    let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
    let sender = sender(&cloudflare, &trap, &["127.0.0.0/8"]);
    let closed = crate::support::ClosedPort::new();
    let url = format!("http://{}/", closed.address());

    let refused = post(&sender, &url).await;

    assert!(
        matches!(&refused, Err(SendError::Connect(why)) if why.contains("refused")),
        "{refused:?}"
    );
}

on_both_databases! {
    async fn no_hostile_url_becomes_a_webhook(db: Db) {
        let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
        hostile_names(&cloudflare);
        let world = World::posting(db, sender(&cloudflare, &trap, &[])).await;

        let names = NAMES.map(|name| format!("http://{name}.{ZONE}:P/"));
        let patterns = LOOPBACK.iter().chain(&INSIDE).chain(&LOCAL).chain(&NO_URL).chain(&WRONG);
        for pattern in patterns.copied().chain(names.iter().map(String::as_str)) {
            let url = pattern.replace(":P", &format!(":{}", trap.port));
            let refused = world.post("/webhooks", json!({"url": url})).await;
            let problem = refused.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}");
        }

        assert_eq!(trap.count(), 0, "somebody was connected to");
        assert_eq!(world.get("/webhooks").await.json()["items"], json!([]));
    }

    async fn a_webhook_whose_name_moves_inside_is_not_delivered_to(db: Db) {
        let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
        let (public, inside) = (Ipv4Addr::new(1, 2, 3, 4).into(), Ipv4Addr::LOCALHOST.into());
        cloudflare.set_moving("moving.example.org", &[public, inside]);
        let world = World::posting(db, sender(&cloudflare, &trap, &[])).await;
        let url = format!("http://moving.example.org:{}/", trap.port);
        let hook = id(&world.post("/webhooks", json!({"url": url})).await.accepted());

        world.post(&format!("/webhooks/{hook}/test"), json!({})).await.accepted();
        world.deliver().await;

        let tried = world.get(&format!("/webhooks/{hook}/deliveries")).await.json()["items"][0].clone();
        assert_eq!((&tried["attempts"], &tried["responseStatus"]), (&json!(1), &json!(null)), "{tried}");
        let told = tried["error"].as_str().unwrap();
        assert!(told.contains("not public") && !told.contains("127.0.0.1"), "{told}");
        assert_eq!(trap.count(), 0, "somebody was connected to");
    }

    async fn a_webhook_on_an_allowed_address_is_delivered_to_once(db: Db) {
        let (cloudflare, trap) = (Cloudflare::start(&[ZONE]).await, Trap::set().await);
        let world = World::posting(db, sender(&cloudflare, &trap, &["127.0.0.0/8"])).await;
        let url = format!("http://127.1:{}/", trap.port);
        let hook = id(&world.post("/webhooks", json!({"url": url})).await.accepted());
        assert_eq!(trap.count(), 0, "checking is not connecting");

        world.post(&format!("/webhooks/{hook}/test"), json!({})).await.accepted();
        world.deliver().await;

        assert_eq!(trap.count(), 1);
    }
}
