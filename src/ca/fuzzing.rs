//! An answer of a CA, taken as each of the things that it may be an answer to.

use bytes::Bytes;
use http::HeaderMap;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use url::Url;

use super::call::{Asked, Call, Trouble};
use super::classify::classify;
use super::directory::Directory;
use super::exchange::{Exchange, LONGEST_URL};
use super::order::download;
use super::renewal;
use super::state::{Authorization, MOST_CHALLENGES, OrderState};
use crate::acme::nonce::Nonces;
use crate::acme::problem::Problem;
use crate::domain::challenge::is_base64url;
use crate::domain::failure::Failure;
use crate::domain::name::comparable;
use crate::domain::text::{Lines, refuse};
use crate::domain::throttle::LONGEST_WAIT;

const URL: &str = "https://ca.example/acme/x";
const NOW: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);
const CALLS: [Call; 12] = [
    Call::Directory,
    Call::NewAccount,
    Call::UpdateAccount,
    Call::NewOrder,
    Call::GetOrder,
    Call::GetAuthorization,
    Call::Challenge,
    Call::Finalize,
    Call::Certificate,
    Call::RenewalInformation,
    Call::Revoke,
    Call::KeyChange,
];

pub(crate) fn check(status: u16, headers: &HeaderMap, body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let exchange = Exchange::new(URL.to_owned(), status, headers, body, NOW);
    are_headers(&exchange);
    if exchange.is_success() {
        is_read(&exchange);
        return;
    }
    for call in CALLS {
        for age in [None, Some(Duration::ZERO), Some(Duration::HOUR)] {
            let asked = Asked { call, age, account_age: age };
            let failure = classify(asked, &Trouble::Answer(exchange.clone()));
            assert_eq!((failure.http_status, failure.retry_at), (Some(status), exchange.retry_at));
            is_fit(&failure);
        }
    }
}

fn are_headers(exchange: &Exchange) {
    let latest = NOW + LONGEST_WAIT;
    assert!(exchange.retry_at.is_none_or(|at| (NOW..=latest).contains(&at)), "{exchange:?}");
    for url in exchange.location.iter().chain(exchange.links.iter().map(|link| &link.url)) {
        is_url(url);
    }
    assert!(exchange.content_type.as_ref().is_none_or(|kind| kind.len() <= 64));
    assert!(exchange.outline().len() < 150);
    let nonces = Nonces::default();
    if let Some(nonce) = &exchange.nonce {
        nonces.put(nonce, NOW);
        assert!(nonces.take(NOW).is_none_or(|kept| kept == *nonce && is_base64url(&kept)));
    }
}

fn is_read(exchange: &Exchange) {
    let asked = Asked::of(Call::GetOrder);
    match OrderState::read(asked, exchange) {
        Ok(order) => {
            let named = [order.finalize, order.certificate];
            for url in named.iter().flatten().chain(&order.authorizations) {
                is_url(url);
            }
            order.error.iter().for_each(is_fit);
        }
        Err(failure) => is_fit(&failure),
    }
    match Authorization::read(URL.to_owned(), asked, exchange) {
        Ok(authorization) => is_authorization(&authorization),
        Err(failure) => is_fit(&failure),
    }
    if let Ok(directory) = Directory::read(URL, &exchange.body) {
        directory.endpoints().for_each(is_url);
    }
    if let Ok(answer) = renewal::read(&exchange.body, exchange.retry_at) {
        assert!(format!("{answer:?}").chars().count() < 2_000, "{answer:?}");
    }
    match download(asked, exchange.clone()) {
        Ok(download) => {
            for url in &download.alternates {
                is_url(url);
            }
        }
        Err(failure) => is_fit(&failure),
    }
    if let Some(problem) = Problem::read(Some("application/problem+json"), &exchange.body) {
        is_fit(&classify(asked, &Trouble::Object(problem)));
    }
}

fn is_authorization(authorization: &Authorization) {
    assert_eq!(comparable(&authorization.domain), authorization.domain);
    let offered = authorization.challenges.len() + authorization.unusable.len();
    assert!(offered <= MOST_CHALLENGES, "{offered} challenges");
    for challenge in &authorization.challenges {
        is_url(&challenge.url);
        assert!(challenge.token.is_empty() || is_base64url(&challenge.token), "{challenge:?}");
        challenge.error.iter().for_each(is_fit);
    }
    for words in &authorization.unusable {
        is_shown(words, 500);
    }
    is_fit(&authorization.unusable());
}

/// It can be kept, and asked for.
fn is_url(url: &str) {
    assert!(Url::parse(url).is_ok() && refuse(url, Lines::One).is_ok(), "{url:?}");
    assert!(url.len() <= LONGEST_URL, "{}", url.len());
}

/// Bounded, and fit to be shown.
fn is_fit(failure: &Failure) {
    assert!(failure.known_code().is_some(), "{failure:?}");
    is_shown(&failure.title, 500);
    is_shown(&failure.detail, 2_000);
    for text in failure.acme_type.iter().chain(&failure.instance) {
        is_shown(text, 1_000);
    }
    assert!(failure.subproblems.len() <= 100);
    for part in &failure.subproblems {
        for text in part.identifier.iter().chain(&part.acme_type).chain([&part.detail]) {
            is_shown(text, 1_000);
        }
    }
}

fn is_shown(text: &str, most: usize) {
    assert!(refuse(text, Lines::One).is_ok() && text.chars().count() <= most, "{text:?}");
}
