//! The directory of a CA: whether it can be had, whom it is trusted from, and how often it is asked for.

use std::sync::Arc;

use certwright::domain::failure::Class;
use certwright::domain::issuer::Acme;

use super::protocol::{acme, ca};
use crate::support::pebble::{Pebble, PebbleOptions};

#[tokio::test]
async fn a_url_that_is_no_directory_is_named_as_the_cause() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let wrong = Acme { server: pebble.directory_url() + "ectory", ..acme(&pebble) };
    let insecure = Acme { server: "http://ca.example/directory".into(), ..acme(&pebble) };

    let not_found = ca.profiles(&wrong).await.unwrap_err();
    let refused = ca.profiles(&insecure).await.unwrap_err();

    assert_eq!((not_found.class, &*not_found.code), (Class::Blocked, "acme_directory_not_found"));
    assert_eq!((refused.class, &*refused.code), (Class::Blocked, "acme_url_refused"));
}

#[tokio::test]
async fn a_ca_that_nobody_answers_for_is_unreachable() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let acme = acme(&pebble);
    drop(pebble);

    let failure = ca.profiles(&acme).await.unwrap_err();

    assert_eq!((failure.class, &*failure.code), (Class::Transient, "acme_unreachable"));
    assert!(failure.detail.contains("onnection refused"), "{failure}");
}

#[tokio::test]
async fn tls_is_trusted_only_as_the_issuer_says() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let untrusted = Acme { ca_bundle: None, ..acme(&pebble) };
    let unchecked = Acme { skip_tls_verify: true, ..untrusted.clone() };
    let garbage = Acme { ca_bundle: Some("bm8gY2VydGlmaWNhdGU=".into()), ..acme(&pebble) };

    let failure = ca.profiles(&untrusted).await.unwrap_err();
    assert_eq!(&*failure.code, "acme_tls_untrusted", "{failure}");
    assert_eq!(failure.class, Class::Transient, "it may be the CA's own mistake");
    assert!(failure.detail.contains("caBundle"), "{failure}");

    let failure = ca.profiles(&garbage).await.unwrap_err();
    assert_eq!((failure.class, &*failure.code), (Class::Blocked, "acme_ca_bundle_invalid"));

    ca.profiles(&unchecked).await.expect("nobody looks at the certificate");
    ca.profiles(&acme(&pebble)).await.expect("the bundle is trusted");
}

#[tokio::test]
async fn a_hundred_orders_at_once_fetch_one_directory() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, Arc::new(ca()));
    let acme = Arc::new(acme(&pebble));

    let asking = (0..100).map(|_| {
        let (ca, acme) = (ca.clone(), acme.clone());
        tokio::spawn(async move { ca.profiles(&acme).await })
    });
    for answer in futures_util::future::join_all(asking).await {
        answer.unwrap().unwrap();
    }

    assert_eq!(ca.requests().all, 1);
}

#[tokio::test]
async fn a_hundred_orders_at_once_share_one_failure() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let acme = acme(&pebble);
    drop(pebble);

    let asking = (0..100).map(|_| ca.profiles(&acme));
    for answer in futures_util::future::join_all(asking).await {
        answer.unwrap_err();
    }

    assert!(ca.requests().all <= 4, "a dead CA costs one question, not a hundred");
}
