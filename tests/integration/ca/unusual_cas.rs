//! CAs that keep to the protocol in ways of their own: before a real one, signatures and all.

use std::sync::Arc;

use certwright::ca::{
    Account, AuthorizationStatus, Ca, ChallengeKind, Offered, Order, OrderStatus,
};
use certwright::clock::SystemClock;
use certwright::domain::failure::Class;
use certwright::domain::issuer::Acme;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use time::Duration;

use crate::support::fault_proxy::words::{bare, with_json, with_text};
use crate::support::fault_proxy::{Answer, FaultProxy, Kind, problem};
use crate::support::pebble::{Pebble, PebbleOptions};

#[tokio::test]
async fn a_directory_behind_a_redirect_of_its_origin_is_found() {
    let (_pebble, proxy) = start().await;
    proxy.answer_instead(|_, _, path, _| match path {
        "/old" => Some(bare(308, &[("location", "/older")])),
        "/older" => Some(bare(302, &[("location", "/dir")])),
        "/away" => Some(bare(301, &[("location", "https://ca.invalid/dir")])),
        "/round" => Some(bare(307, &[("location", "/round")])),
        _ => None,
    });
    let at =
        |path: &str| Acme { server: proxy.directory_url().replace("/dir", path), ..acme(&proxy) };
    let ca = ca();

    assert!(!ca.profiles(&at("/old")).await.unwrap().is_empty());
    registered(&ca, &at("/old")).await.new_order(&names(), None).await.unwrap();
    let away = ca.profiles(&at("/away")).await.unwrap_err();
    let asked = ca.requests().all;
    let round = ca.profiles(&at("/round")).await.unwrap_err();

    assert_eq!((away.class, &*away.code), (Class::Blocked, "acme_redirected"));
    assert!(away.detail.contains("https://ca.invalid/dir"), "{away}");
    assert_eq!((round.class, &*round.code), (Class::Transient, "acme_redirected"));
    assert!(ca.requests().all - asked <= 4, "a circle has an end");
}

#[tokio::test]
async fn nonces_come_by_get_where_head_is_not_known() {
    for status in [404, 405, 501] {
        let (_pebble, proxy) = start().await;
        proxy.answer_instead(move |_, method, path, _| {
            (path == "/nonce-plz" && method == Method::HEAD).then(|| bare(status, &[]))
        });
        let ca = ca();

        registered(&ca, &acme(&proxy)).await.new_order(&names(), None).await.unwrap();

        assert!(ca.requests().for_nonces <= 3, "{:?}: HEAD is tried once", ca.requests());
    }
}

#[tokio::test]
async fn every_url_may_be_relative() {
    let (_pebble, proxy) = start().await;
    let origin = proxy.directory_url().trim_end_matches("/dir").to_owned();
    proxy.say_otherwise(move |_, _, mut answer| {
        if let Some(location) = answer.headers().get(header::LOCATION) {
            let short = location.to_str().unwrap().replace(&origin, "");
            answer.headers_mut().insert(header::LOCATION, HeaderValue::try_from(short).unwrap());
        }
        let text = String::from_utf8(body(&answer)).unwrap();
        with_text(answer, text.replace(&origin, ""))
    });
    let account = registered(&ca(), &acme(&proxy)).await;

    let mut order = account.new_order(&names(), None).await.unwrap();
    assert!(
        order.url().starts_with(&proxy.directory_url().replace("/dir", "/")),
        "{}",
        order.url()
    );
    accept(&order).await;
    until_ready(&mut order).await;
    order.finalize(&csr()).await.unwrap();

    assert!(matches!(order.state().status, OrderStatus::Processing | OrderStatus::Valid));
}

#[tokio::test]
async fn the_contact_is_part_of_the_registration() {
    let (_pebble, proxy) = start().await;
    proxy.answer_instead(|_, _, path, payload| {
        (path == "/sign-me-up" && payload["contact"].as_array().is_none_or(Vec::is_empty))
            .then(|| refusal("invalidContact", "a contact is needed"))
    });
    let with_email = Acme { email: Some("ops@example.org".into()), ..acme(&proxy) };
    let key = Ca::generate_account_key().unwrap();

    let made = ca().register(&with_email, &key).await.unwrap();
    let requests = proxy.requests(Kind::Account);
    let again = ca().register(&with_email, &key).await.unwrap();
    let without = ca().register(&acme(&proxy), &Ca::generate_account_key().unwrap()).await;

    assert_eq!(made.email.as_deref(), Some("ops@example.org"));
    assert_eq!((requests, again), (1, made), "the address is not sent again");
    assert_eq!(without.unwrap_err().code, "acme_invalid_contact");
}

#[tokio::test]
async fn a_contact_that_is_refused_is_left_out_once() {
    for kind in ["invalidContact", "unsupportedContact"] {
        let (_pebble, proxy) = start().await;
        proxy.answer_instead(move |_, _, path, payload| {
            (path == "/sign-me-up" && payload["contact"][0].is_string())
                .then(|| refusal(kind, "not this one"))
        });
        let with_email = Acme { email: Some("ops@example.org".into()), ..acme(&proxy) };

        let made = ca().register(&with_email, &Ca::generate_account_key().unwrap()).await.unwrap();

        assert_eq!(made.email, None);
        assert_eq!(proxy.requests(Kind::Account), 2, "once with it, once without");
    }
    let (_pebble, proxy) = start().await;
    proxy.answer_instead(|_, _, path, payload| {
        let words = if payload["contact"][0].is_string() { "not this one" } else { "give one" };
        (path == "/sign-me-up").then(|| refusal("invalidContact", words))
    });
    let with_email = Acme { email: Some("ops@example.org".into()), ..acme(&proxy) };
    let failure =
        ca().register(&with_email, &Ca::generate_account_key().unwrap()).await.unwrap_err();
    assert!(failure.detail.contains("not this one"), "what is wrong with the issuer: {failure}");
    assert_eq!(proxy.requests(Kind::Account), 2);
}

#[tokio::test]
async fn an_account_is_where_the_answer_points_whatever_is_in_it() {
    for text in ["", "null", "[]", "<html>", r#"{"contact": null, "orders": 5, "status": null}"#] {
        let (_pebble, proxy) = start().await;
        proxy.say_otherwise(move |kind, _, answer| match kind {
            Kind::Account => with_text(answer, text.to_owned()),
            _ => answer,
        });
        let with_email = Acme { email: Some("ops@example.org".into()), ..acme(&proxy) };

        let account = registered(&ca(), &with_email).await;

        account.new_order(&names(), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_new_order_is_where_the_answer_points_whatever_is_in_it() {
    for text in ["", "null", "<html>", r#"{"status": "odd"}"#, r#"{"authorizations": []}"#] {
        let (_pebble, proxy) = start().await;
        let account = registered(&ca(), &acme(&proxy)).await;
        proxy.say_otherwise(move |kind, _, answer| match kind {
            Kind::NewOrder => with_text(answer, text.to_owned()),
            _ => answer,
        });

        let order = account.new_order(&names(), None).await.unwrap();
        let read = account.order(order.url(), Duration::ZERO).await.unwrap();

        assert!(!order.is_read(), "{text}");
        assert_eq!(read.state().status, OrderStatus::Pending);
        assert_eq!(proxy.requests(Kind::NewOrder), 1, "{text}: it is not placed again");
    }
}

#[tokio::test]
async fn an_order_that_is_pending_and_wants_nothing_proved_is_an_error() {
    for value in [json!(null), json!([]), json!("none"), json!([5])] {
        let (_pebble, proxy) = start().await;
        let account = registered(&ca(), &acme(&proxy)).await;
        proxy.say_otherwise(move |kind, _, answer| match kind {
            Kind::NewOrder => with_json(answer, |order| order["authorizations"] = value.clone()),
            _ => answer,
        });

        let order = account.new_order(&names(), None).await.unwrap();

        assert_eq!(order.authorizations().await.unwrap_err().code, "acme_unreadable_answer");
    }
}

#[tokio::test]
async fn of_several_challenges_of_one_kind_the_one_of_the_url_is_accepted() {
    let (_pebble, proxy) = start().await;
    proxy.say_otherwise(|kind, _, answer| match kind {
        Kind::Authorization => with_json(answer, |body| {
            let all = body["challenges"].as_array_mut().unwrap();
            let mut old = all.iter().find(|it| it["type"] == "dns-01").unwrap().clone();
            old["url"] = json!("/chalZ/old");
            old["status"] = json!("invalid");
            old["error"] =
                json!({"type": "urn:ietf:params:acme:error:dns", "detail": "of yesterday"});
            all.insert(0, old);
        }),
        _ => answer,
    });
    let account = registered(&ca(), &acme(&proxy)).await;
    let mut order = account.new_order(&names(), None).await.unwrap();

    let old: Vec<_> =
        offered(&order).await.into_iter().filter(|it| it.url.ends_with("/old")).collect();
    let failure = order.accept(&[old[0].url.clone()]).await.unwrap_err();
    assert_eq!((failure.class, &*failure.code), (Class::Validation, "acme_dns"));
    assert!(failure.detail.contains("of yesterday"), "nothing accepted is an error: {failure}");
    assert_eq!(proxy.requests(Kind::Challenge), 0);

    accept(&order).await;
    until_ready(&mut order).await;
}

#[tokio::test]
async fn what_the_ca_is_at_already_is_left_alone() {
    for status in ["processing", "valid"] {
        let (_pebble, proxy) = start().await;
        proxy.say_otherwise(move |kind, _, answer| match kind {
            Kind::Authorization => with_json(answer, |body| {
                for challenge in body["challenges"].as_array_mut().unwrap() {
                    challenge["status"] = json!(status);
                }
            }),
            _ => answer,
        });
        let account = registered(&ca(), &acme(&proxy)).await;
        let order = account.new_order(&names(), None).await.unwrap();

        accept(&order).await;

        assert_eq!(proxy.requests(Kind::Challenge), 0, "{status}");
    }
}

#[tokio::test]
async fn a_challenge_that_has_disappeared_ends_the_order() {
    let (_pebble, proxy) = start().await;
    let key = Ca::generate_account_key().unwrap();
    let url = ca().register(&acme(&proxy), &key).await.unwrap().url;
    let account = ca().account(&acme(&proxy), &key, &url).await.unwrap();
    let order = account.new_order(&names(), None).await.unwrap();
    let chosen = offered(&order).await[0].url.clone();
    proxy.say_otherwise(|kind, _, answer| match kind {
        Kind::Authorization => with_json(answer, |body| body["challenges"] = json!([])),
        _ => answer,
    });

    // Another replica, which has not read them before.
    let account = ca().account(&acme(&proxy), &key, &url).await.unwrap();
    let order = account.order(order.url(), Duration::ZERO).await.unwrap();
    let failure = order.accept(&[chosen]).await.unwrap_err();

    assert_eq!((failure.class, &*failure.code), (Class::Gone, "acme_challenge_not_offered"));
}

#[tokio::test]
async fn a_name_is_known_in_whichever_form_the_ca_writes_it() {
    let (_pebble, proxy) = start().await;
    proxy.say_otherwise(|kind, _, answer| match kind {
        Kind::Authorization => with_json(answer, |body| {
            let name = body["identifier"]["value"].as_str().unwrap().to_uppercase();
            body["identifier"]["value"] = json!(format!("{name}."));
        }),
        _ => answer,
    });
    let account = registered(&ca(), &acme(&proxy)).await;

    let order = account.new_order(&names(), None).await.unwrap();
    let found = order.authorizations().await.unwrap();

    assert_eq!(found[0].domain, "a.example.org");
    assert_eq!(found[0].status, AuthorizationStatus::Pending);
}

async fn start() -> (Pebble, FaultProxy) {
    let pebble =
        Pebble::start(PebbleOptions { always_valid: true, ..PebbleOptions::default() }).await;
    let proxy = FaultProxy::before(&pebble).await;
    (pebble, proxy)
}

fn ca() -> Ca {
    Ca::new(Arc::new(SystemClock))
}

fn acme(proxy: &FaultProxy) -> Acme {
    super::acme(&proxy.directory_url(), &proxy.ca_bundle())
}

async fn registered(ca: &Ca, acme: &Acme) -> Arc<Account> {
    let key = Ca::generate_account_key().unwrap();
    let url = ca.register(acme, &key).await.unwrap().url;
    ca.account(acme, &key, &url).await.unwrap()
}

fn names() -> Vec<String> {
    vec!["a.example.org".into()]
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(names()).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.serialize_request(&key).unwrap().der().to_vec()
}

/// The challenges by DNS.
async fn offered(order: &Order) -> Vec<Offered> {
    let all = order.authorizations().await.unwrap();
    let all = all.into_iter().flat_map(|authorization| authorization.challenges);
    all.filter(|it| it.kind == ChallengeKind::Dns01).collect()
}

async fn accept(order: &Order) {
    let all = offered(order).await;
    let urls: Vec<_> =
        all.into_iter().map(|it| it.url).filter(|url| !url.ends_with("/old")).collect();
    order.accept(&urls).await.unwrap();
}

/// Pebble needs moments.
#[expect(clippy::disallowed_methods, reason = "Pebble validates in the background")]
async fn until_ready(order: &mut Order) {
    for _ in 0..1_200 {
        order.refresh().await.unwrap();
        if order.state().status == OrderStatus::Ready {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the order is not ready: {:?}", order.state());
}

fn refusal(kind: &str, words: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, kind, words)
}

fn body(answer: &Answer) -> Vec<u8> {
    use http_body_util::BodyExt as _;
    let body = futures_util::FutureExt::now_or_never(answer.body().clone().collect());
    body.unwrap().unwrap().to_bytes().to_vec()
}
