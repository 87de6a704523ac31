use bytes::Bytes;
use http::{HeaderMap, header};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::domain::failure::Class;

const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);
const URL: &str = "https://ca.example/acme/x";

#[test]
fn an_order_says_when_it_ends_and_when_to_look_again() {
    let mut seen = exchange(&good_order().to_string());
    seen.retry_at = Some(NOON);

    let state = OrderState::read(Asked::of(Call::GetOrder), &seen).unwrap();

    assert_eq!(state.status, OrderStatus::Pending);
    assert_eq!(state.expires, Some(NOON + time::Duration::days(1)));
    assert_eq!(state.retry_at, Some(NOON));
}

#[test]
fn a_failed_challenge_says_why() {
    let error = json!({"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN"});
    for (error, words) in [(error, "NXDOMAIN"), (json!("no such host"), "no such host")] {
        let read = authorization(&json!([
            {"type": "dns-01", "url": "https://ca.example/c", "token": "abc_-1", "status": "invalid",
             "error": error},
        ]));

        let challenge = &read.challenges[0];

        assert_eq!(challenge.kind, ChallengeKind::Dns01);
        assert_eq!(challenge.error.as_ref().unwrap().class, Class::Validation);
        assert!(challenge.error.as_ref().unwrap().detail.starts_with(words));
    }
}

#[test]
fn a_token_that_could_do_harm_is_never_offered() {
    let long = "a".repeat(513);
    for token in ["../../etc/passwd", "a b", "", "a.b", "a/b", "ä", "YWJj==", &long] {
        let read = authorization(&json!([
            {"type": "http-01", "url": "https://ca.example/c", "token": token, "status": "pending"},
            {"type": "dns-01", "url": "https://ca.example/d", "token": "abc", "status": "pending"},
        ]));

        assert_eq!(read.challenges.len(), 1, "{token:?}");
        assert_eq!(read.challenges[0].kind, ChallengeKind::Dns01);
        assert!(read.unusable[0].contains("base64url"), "{:?}", read.unusable);
    }
}

#[test]
fn a_challenge_that_cannot_be_read_costs_none_of_the_others() {
    let odd = [
        json!({"type": "http-01", "token": "abc", "status": "pending"}),
        json!({"type": "http-01", "url": 7, "token": "abc", "status": "pending"}),
        json!({"type": "http-01", "url": "https://ca.example/c", "token": "abc", "status": "new"}),
        json!({"type": "http-01", "url": "https://ca.example/c", "token": "abc"}),
        json!({"type": null, "url": "https://ca.example/c", "token": "abc", "status": "pending"}),
        json!({"type": "http-01", "url": "https://ca.example/c", "token": null, "status": "pending"}),
        json!(null),
        json!("http-01"),
        json!([]),
    ];
    for sibling in odd {
        let read = authorization(&json!([
            sibling,
            {"type": "dns-01", "url": "https://ca.example/d", "token": "abc", "status": "pending"},
        ]));

        assert_eq!(read.challenges.len(), 1, "{sibling}");
        assert_eq!(read.challenges[0].url, "https://ca.example/d");
        assert_eq!(read.unusable.len(), 1, "{sibling}");
    }
}

#[test]
fn a_challenge_of_another_kind_needs_no_token() {
    for token in [json!(null), json!("")] {
        let read = authorization(&json!([
            {"type": "dns-persist-01", "url": "https://ca.example/c", "status": "pending", "token": token},
        ]));

        let kind = ChallengeKind::Other("dns-persist-01".into());
        assert_eq!(read.challenges[0].kind, kind);
    }
}

#[test]
fn names_are_read_in_the_form_that_they_are_compared_in() {
    for (written, domain, wildcard) in [
        ("A.Example.", "a.example", false),
        ("*.A.EXAMPLE", "a.example", true),
        ("bücher.example", "xn--bcher-kva.example", false),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", false),
    ] {
        let mut body = good_authorization();
        body["identifier"]["value"] = json!(written);
        body["wildcard"] = json!(null);

        let read = read_authorization(&body.to_string()).unwrap();

        assert_eq!((&*read.domain, read.wildcard), (domain, wildcard), "{written}");
    }
}

#[test]
fn a_status_that_means_the_end_is_an_end_with_words() {
    for word in ["deactivated", "revoked", "expired", "canceled", "cancelled"] {
        let read = read_order(&json!({"status": word}).to_string()).unwrap();

        assert_eq!(read.status, OrderStatus::Invalid, "{word}");
        let error = read.error.unwrap();
        assert_eq!((error.class, &*error.code), (Class::Validation, "acme_order_ended"));
        assert!(error.detail.contains(word), "{error}");
    }
    let invalid = json!({"status": "invalid"}).to_string();
    assert_eq!(read_order(&invalid).unwrap().error, None, "its challenges say why");
}

#[test]
fn a_status_that_nobody_knows_is_said_and_looked_at_again() {
    let order = read_order(&json!({"status": "queued"}).to_string()).unwrap_err();
    let mut body = good_authorization();
    body["status"] = json!("paused");
    let authorization = read_authorization(&body.to_string()).unwrap_err();

    for (failure, word) in [(order, "queued"), (authorization, "paused")] {
        assert_eq!((failure.class, &*failure.code), (Class::Transient, "acme_unknown_status"));
        assert!(failure.detail.contains(word), "{failure}");
    }
}

#[test]
fn what_is_used_has_to_be_there() {
    for body in ["", "null", "[]", "{}", "<html>", r#"{"status": null}"#, r#"{"status": 5}"#] {
        assert_eq!(read_order(body).unwrap_err().code, "acme_unreadable_answer", "{body}");
        assert_eq!(read_authorization(body).unwrap_err().code, "acme_unreadable_answer", "{body}");
    }
    for identifier in [json!(null), json!("a.example"), json!({"type": "dns"})] {
        let mut body = good_authorization();
        body["identifier"] = identifier;
        assert!(read_authorization(&body.to_string()).is_err(), "{body}");
    }
}

#[test]
fn urls_may_be_relative_to_the_one_that_was_asked() {
    let body = json!({
        "status": "valid", "authorizations": ["/a/1", "a/2", "https://ca.example/a/3"],
        "finalize": "/f/1", "certificate": "../c/1",
    });

    let read = read_order(&body.to_string()).unwrap();

    let urls = ["https://ca.example/a/1", "https://ca.example/acme/a/2", "https://ca.example/a/3"];
    assert_eq!(read.authorizations, urls);
    assert_eq!(read.finalize.as_deref(), Some("https://ca.example/f/1"));
    assert_eq!(read.certificate.as_deref(), Some("https://ca.example/c/1"));
}

#[test]
fn a_mark_of_byte_order_and_members_that_come_twice_are_passed_by() {
    let order = read_order(&good_order().to_string()).unwrap();
    let marked = format!("\u{feff}{}", good_order());
    let twice = good_order().to_string().replacen('{', r#"{"status": "ready", "expires": 5, "#, 1);

    assert_eq!(read_order(&marked).unwrap(), order);
    assert_eq!(read_order(&twice).unwrap(), order, "the last one counts");
    let latin = [&br#"{"note": "na"#[..], &[0xef], br#"ve", "status": "ready"}"#].concat();
    let seen = Exchange::new(URL.into(), 200, &HeaderMap::new(), Bytes::from(latin), NOON);
    assert!(OrderState::read(Asked::of(Call::GetOrder), &seen).is_ok(), "ISO 8859-1 in words");
}

#[test]
fn a_content_type_is_not_looked_at() {
    let headers = HeaderMap::from_iter([(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json; charset=utf-8"),
    )]);
    let body = Bytes::from(good_order().to_string());
    let seen = Exchange::new(URL.into(), 200, &headers, body, NOON);

    let read = OrderState::read(Asked::of(Call::GetOrder), &seen).unwrap();

    assert_eq!(read, read_order(&good_order().to_string()).unwrap());
}

/// What a member may be instead of what it should; `None` takes it away.
fn oddities() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        prop_oneof![
            Just(json!(null)),
            Just(json!(true)),
            Just(json!(5)),
            Just(json!(-1.5)),
            Just(json!("text")),
            Just(json!("")),
            Just(json!([])),
            Just(json!([null, 7, {"a": []}])),
            Just(json!({})),
            Just(json!({"type": null, "detail": 5, "subproblems": null})),
        ]
        .prop_map(Some)
    ]
}

fn changed(mut body: Value, changes: &[(String, Option<Value>)]) -> Value {
    let members = body.as_object_mut().unwrap();
    for (name, value) in changes {
        match value {
            Some(value) => members.insert(name.clone(), value.clone()),
            None => members.remove(name),
        };
    }
    body
}

/// Changes of members that are not needed, and of ones that ACME does not know.
fn changes(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(String, Option<Value>)>> {
    let known = prop::sample::select(names).prop_map(str::to_owned);
    let name = prop_oneof![3 => known, 1 => "x[a-z]{0,8}"];
    prop::collection::vec((name, oddities()), 0..6)
}

proptest! {
    #[test]
    fn whatever_an_order_says_beside_it_is_read_alike(
        changes in changes(&["expires", "error", "certificate", "notBefore", "notAfter", "identifiers", "replaces", "profile"]),
    ) {
        let odd = changed(good_order(), &changes);

        let read = read_order(&odd.to_string());

        prop_assert!(read.is_ok(), "{odd}: {read:?}");
        let (read, good) = (read.unwrap(), read_order(&good_order().to_string()).unwrap());
        prop_assert_eq!(read.status, good.status);
        prop_assert_eq!(read.authorizations, good.authorizations);
        prop_assert_eq!(read.finalize, good.finalize);
    }

    #[test]
    fn whatever_an_authorization_says_beside_it_is_read_alike(
        own in changes(&["expires", "wildcard", "validated", "error", "created"]),
        of_the_challenge in changes(&["validated", "error", "attempted", "keyAuthorization"]),
        of_the_sibling in changes(&["type", "url", "token", "status", "error", "validated"]),
        of_the_identifier in changes(&["type"]),
    ) {
        let mut odd = changed(good_authorization(), &own);
        if odd["wildcard"] == json!(true) {
            odd["wildcard"] = json!(false);
        }
        odd["challenges"][1] = changed(odd["challenges"][1].clone(), &of_the_challenge);
        odd["challenges"][0] = changed(odd["challenges"][0].clone(), &of_the_sibling);
        odd["identifier"] = changed(odd["identifier"].clone(), &of_the_identifier);

        let read = read_authorization(&odd.to_string());

        prop_assert!(read.is_ok(), "{odd}: {read:?}");
        let read = read.unwrap();
        let good = read_authorization(&good_authorization().to_string()).unwrap();
        prop_assert_eq!((read.status, read.domain, read.wildcard), (good.status, good.domain, good.wildcard));
        let (ours, wanted) = (read.challenges.last().unwrap(), &good.challenges[1]);
        prop_assert_eq!((&ours.kind, &ours.url, &ours.token, ours.status), (&wanted.kind, &wanted.url, &wanted.token, wanted.status));
    }

    #[test]
    fn no_body_at_all_makes_a_reader_fall(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let seen = Exchange::new(URL.into(), 200, &HeaderMap::new(), Bytes::from(body), NOON);
        let asked = Asked::of(Call::GetOrder);

        prop_assert!(OrderState::read(asked, &seen).is_err());
        prop_assert!(Authorization::read(URL.into(), asked, &seen).is_err());
    }
}

fn good_order() -> Value {
    json!({
        "status": "pending", "expires": "2026-01-02T12:00:00Z",
        "identifiers": [{"type": "dns", "value": "a.example"}],
        "authorizations": ["https://ca.example/a/1", "https://ca.example/a/2"],
        "finalize": "https://ca.example/f/1",
    })
}

fn good_authorization() -> Value {
    json!({
        "status": "pending", "expires": "2026-01-02T12:00:00Z",
        "identifier": {"type": "dns", "value": "a.example"},
        "challenges": [
            {"type": "http-01", "url": "https://ca.example/c/1", "token": "abc_-1", "status": "pending"},
            {"type": "dns-01", "url": "https://ca.example/c/2", "token": "abc_-2", "status": "pending"},
        ],
    })
}

fn authorization(challenges: &Value) -> Authorization {
    let members: Map<_, _> = [("challenges".to_owned(), challenges.clone())].into_iter().collect();
    let mut body = good_authorization();
    body.as_object_mut().unwrap().extend(members);
    read_authorization(&body.to_string()).unwrap()
}

fn read_order(body: &str) -> Result<OrderState, Failure> {
    OrderState::read(Asked::of(Call::GetOrder), &exchange(body))
}

fn read_authorization(body: &str) -> Result<Authorization, Failure> {
    let asked = Asked::of(Call::GetAuthorization);
    Authorization::read("https://ca.example/a/1".into(), asked, &exchange(body))
}

fn exchange(body: &str) -> Exchange {
    let body = Bytes::from(body.to_owned());
    Exchange::new(URL.into(), 200, &HeaderMap::new(), body, NOON)
}
