//! How an account is registered at a CA.

use certwright::ca::Ca;
use certwright::domain::failure::Class;
use certwright::domain::issuer::Acme;

use super::protocol::{acme, ca};
use crate::support::pebble::{Pebble, PebbleOptions};

#[tokio::test]
async fn a_key_has_one_account_however_often_it_is_registered() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let key = Ca::generate_account_key().unwrap();
    let acme = Acme { email: Some("ops@example.org".into()), ..acme(&pebble) };

    let first = ca.register(&acme, &key).await.unwrap();
    let again = super::protocol::ca().register(&acme, &key).await.unwrap();
    let other = ca.register(&acme, &Ca::generate_account_key().unwrap()).await.unwrap();

    assert_eq!(first, again);
    assert_eq!(first.email.as_deref(), Some("ops@example.org"));
    assert_ne!(first.url, other.url, "another key is another account");
}

#[tokio::test]
async fn an_address_that_the_ca_refuses_does_not_cost_the_account() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()).await, ca());
    let acme = Acme { email: Some("not an address".into()), ..acme(&pebble) };

    let account = ca.register(&acme, &Ca::generate_account_key().unwrap()).await.unwrap();

    assert_eq!(account.email, None);
}

#[tokio::test]
async fn a_ca_that_wants_accounts_to_be_bound_says_so() {
    let external_accounts = vec![("kid-1".into(), "A".repeat(64))];
    let pebble = Pebble::start(PebbleOptions { external_accounts, ..Default::default() }).await;
    let key = Ca::generate_account_key().unwrap();

    let failure = ca().register(&acme(&pebble), &key).await.unwrap_err();

    assert_eq!((failure.class, &*failure.code), (Class::Blocked, "acme_external_account_required"));
}
