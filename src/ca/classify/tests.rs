//! Every row of the policy, as a table: what came back, what it means.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::json;
use time::OffsetDateTime;

use super::*;
use Call::{
    Certificate, Challenge, Directory, Finalize, GetAuthorization, GetOrder, NewAccount, NewOrder,
    UpdateAccount,
};
use Class::{Blocked, Conflict, Consistency, Gone, Throttle, Transient, Validation};

const NOW: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);
const YOUNG: Option<Duration> = Some(Duration::seconds(5));
const OLD: Option<Duration> = Some(Duration::hours(1));

/// `(call, status, type, detail)`, and the class and code that are expected.
type Row<'a> = (Call, u16, &'a str, &'a str, Class, &'a str);

#[test]
fn what_is_young_is_not_there_yet() {
    check(
        YOUNG,
        &[
            (
                GetAuthorization,
                404,
                "malformed",
                "No such authorization",
                Consistency,
                "acme_not_found_yet",
            ),
            (GetOrder, 404, "malformed", "No order for ID 7", Consistency, "acme_not_found_yet"),
            (
                Certificate,
                404,
                "malformed",
                "Certificate not found",
                Consistency,
                "acme_not_found_yet",
            ),
            (Challenge, 404, "malformed", "No such challenge", Consistency, "acme_not_found_yet"),
            (Finalize, 404, "malformed", "No order for ID 7", Consistency, "acme_not_found_yet"),
            (GetOrder, 400, "malformed", "No such order", Consistency, "acme_not_found_yet"),
            (GetOrder, 404, "", "404 page not found", Consistency, "acme_not_found_yet"),
            (
                NewOrder,
                400,
                "accountDoesNotExist",
                "No account",
                Consistency,
                "acme_account_does_not_exist",
            ),
            (
                UpdateAccount,
                404,
                "malformed",
                "No such account",
                Consistency,
                "acme_account_does_not_exist",
            ),
            (GetAuthorization, 404, "malformed", "Expired authorization", Gone, "acme_gone"),
            (GetOrder, 404, "malformed", "Order 7 is expired", Gone, "acme_gone"),
        ],
    );
}

#[test]
fn what_is_old_is_not_there_any_more() {
    check(
        OLD,
        &[
            (GetAuthorization, 404, "malformed", "No such authorization", Gone, "acme_gone"),
            (GetOrder, 404, "malformed", "No order for ID 7", Gone, "acme_gone"),
            (GetOrder, 410, "", "", Gone, "acme_gone"),
            (Challenge, 404, "malformed", "No such challenge", Gone, "acme_gone"),
            (
                NewOrder,
                400,
                "accountDoesNotExist",
                "No account",
                Blocked,
                "acme_account_does_not_exist",
            ),
        ],
    );
    // How old a certificate is nobody knows; that it exists is certain.
    check(
        None,
        &[(
            Certificate,
            404,
            "malformed",
            "Certificate not found",
            Consistency,
            "acme_not_found_yet",
        )],
    );
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    check(
        OLD,
        &[
            (
                NewOrder,
                500,
                "serverInternal",
                "Error creating order",
                Transient,
                "acme_server_internal",
            ),
            (GetOrder, 502, "", "<html>Bad Gateway", Transient, "acme_unavailable"),
            (GetOrder, 503, "", "<html>Unavailable", Transient, "acme_unavailable"),
            (Finalize, 504, "", "", Transient, "acme_unavailable"),
            (
                Finalize,
                500,
                "badCSR",
                "a proxy that makes things up",
                Transient,
                "acme_unavailable",
            ),
            (GetOrder, 408, "", "", Transient, "acme_unavailable"),
            (NewOrder, 500, "ofTomorrow", "?", Transient, "acme_unavailable"),
            (NewOrder, 400, "badNonce", "JWS has an invalid nonce", Transient, "acme_bad_nonce"),
            (NewOrder, 404, "malformed", "Page not found", Transient, "acme_endpoint_moved"),
            (NewAccount, 405, "malformed", "Method not allowed", Transient, "acme_endpoint_moved"),
        ],
    );
}

#[test]
fn a_limit_is_waited_for() {
    check(
        OLD,
        &[
            (NewOrder, 503, "rateLimited", "Service busy; retry later.", Throttle, "acme_busy"),
            (NewOrder, 429, "rateLimited", "too many certificates", Throttle, "acme_rate_limited"),
            (NewOrder, 429, "", "slow down", Throttle, "acme_rate_limited"),
            (NewOrder, 403, "rateLimited", "too many", Throttle, "acme_rate_limited"),
        ],
    );
}

#[test]
fn a_different_state_is_read_back() {
    check(
        OLD,
        &[
            (Finalize, 403, "orderNotReady", "Order is pending", Conflict, "acme_order_not_ready"),
            (Finalize, 403, "unauthorized", "authz is not valid", Conflict, "acme_unauthorized"),
            (Finalize, 403, "", "Forbidden", Conflict, "acme_conflict"),
            (NewOrder, 409, "alreadyReplaced", "replaced", Conflict, "acme_already_replaced"),
            (Challenge, 409, "conflict", "try again", Conflict, "acme_conflict"),
            (Challenge, 409, "malformed", "not pending", Conflict, "acme_malformed"),
            (GetOrder, 400, "alreadyRevoked", "", Conflict, "acme_already_revoked"),
        ],
    );
}

#[test]
fn what_only_a_person_can_change_waits_for_one() {
    check(
        OLD,
        &[
            (NewOrder, 400, "malformed", "Bad JSON", Blocked, "acme_malformed"),
            (NewOrder, 415, "malformed", "Content-Type", Blocked, "acme_malformed"),
            (NewOrder, 403, "unauthorized", "Account is deactivated", Blocked, "acme_unauthorized"),
            (NewOrder, 400, "rejectedIdentifier", "policy", Blocked, "acme_rejected_identifier"),
            (NewOrder, 400, "unsupportedIdentifier", "IP", Blocked, "acme_unsupported_identifier"),
            (Finalize, 400, "badCSR", "weak", Blocked, "acme_bad_csr"),
            (Finalize, 400, "badPublicKey", "ROCA", Blocked, "acme_bad_public_key"),
            (NewOrder, 400, "badSignatureAlgorithm", "", Blocked, "acme_bad_signature_algorithm"),
            (
                NewAccount,
                403,
                "externalAccountRequired",
                "",
                Blocked,
                "acme_external_account_required",
            ),
            (NewOrder, 403, "userActionRequired", "ToS", Blocked, "acme_user_action_required"),
            (Finalize, 403, "userActionRequired", "ToS", Blocked, "acme_user_action_required"),
            (UpdateAccount, 400, "invalidContact", "", Blocked, "acme_invalid_contact"),
            (UpdateAccount, 400, "unsupportedContact", "", Blocked, "acme_unsupported_contact"),
            (NewOrder, 400, "invalidProfile", "", Blocked, "acme_invalid_profile"),
            (GetOrder, 400, "badRevocationReason", "", Blocked, "acme_bad_revocation_reason"),
            (
                NewOrder,
                400,
                "malformed",
                "Error creating new order :: Order cannot contain more than 25 identifiers",
                Blocked,
                "acme_too_many_names",
            ),
            (Directory, 404, "", "", Blocked, "acme_directory_not_found"),
            (Directory, 301, "", "", Blocked, "acme_redirected"),
        ],
    );
}

/// "A person must act" is for what is known to need one.
#[test]
fn a_refusal_that_nobody_knows_is_tried_again() {
    check(
        OLD,
        &[
            (NewOrder, 400, "ofTomorrow", "?", Transient, "acme_refused"),
            (NewOrder, 401, "", "", Transient, "acme_refused"),
            (NewOrder, 418, "", "a teapot", Transient, "acme_refused"),
            (NewAccount, 403, "", "<html>blocked by the firewall", Transient, "acme_refused"),
            (GetAuthorization, 403, "", "Forbidden", Transient, "acme_refused"),
            (Challenge, 400, "ofTomorrow", "?", Transient, "acme_refused"),
            (Finalize, 422, "", "", Transient, "acme_refused"),
            (GetOrder, 405, "malformed", "Method not allowed", Transient, "acme_malformed"),
            (GetAuthorization, 400, "malformed", "odd", Transient, "acme_malformed"),
            (NewOrder, 302, "", "", Transient, "acme_redirected"),
            (Directory, 302, "", "", Transient, "acme_redirected"),
        ],
    );
}

#[test]
fn a_certificate_that_is_withheld_is_waited_for() {
    check(
        None,
        &[
            (Certificate, 403, "", "Forbidden", Consistency, "acme_certificate_withheld"),
            (Certificate, 401, "", "", Consistency, "acme_certificate_withheld"),
            (Certificate, 403, "unauthorized", "not yet", Consistency, "acme_certificate_withheld"),
            (Certificate, 403, "userActionRequired", "", Blocked, "acme_user_action_required"),
        ],
    );
}

#[test]
fn a_refused_finalization_may_be_a_failed_validation() {
    check(OLD, &[(Finalize, 403, "caa", "CAA forbids", Validation, "acme_caa")]);
}

#[test]
fn an_error_within_an_object_is_about_the_proof() {
    let rows = [
        ("dns", Validation, "acme_dns"),
        ("dnssec", Validation, "acme_dnssec"),
        ("connection", Validation, "acme_connection"),
        ("tls", Validation, "acme_tls"),
        ("caa", Validation, "acme_caa"),
        ("incorrectResponse", Validation, "acme_incorrect_response"),
        ("unauthorized", Validation, "acme_unauthorized"),
        ("malformed", Validation, "acme_malformed"),
        ("orderNotReady", Validation, "acme_order_not_ready"),
        ("ofTomorrow", Validation, "acme_validation_failed"),
        ("serverInternal", Transient, "acme_server_internal"),
        ("rejectedIdentifier", Blocked, "acme_rejected_identifier"),
        ("badCSR", Blocked, "acme_bad_csr"),
        ("rateLimited", Throttle, "acme_rate_limited"),
    ];
    for (kind, class, code) in rows {
        let problem = read(&body(kind, "words"));

        let failure = classify(asked(Challenge, OLD), &Trouble::Object(problem));

        assert_eq!((failure.class, &*failure.code), (class, code), "{kind}");
        assert_eq!(failure.http_status, None);
    }
}

#[test]
fn several_problems_are_as_bad_as_the_worst() {
    let problem = |kinds: [&str; 2]| {
        let parts = kinds.map(|kind| json!({
            "type": urn(kind), "detail": "no", "identifier": {"type": "dns", "value": "a.example"},
        }));
        json!({"type": urn("compound"), "detail": "Two", "subproblems": parts}).to_string()
    };
    let answer = |kinds| classify(asked(NewOrder, OLD), &answer(400, &problem(kinds), &[]));
    let object = |kinds| {
        let problem = read(&problem(kinds));
        classify(asked(Challenge, OLD), &Trouble::Object(problem))
    };

    assert_eq!(answer(["dns", "rejectedIdentifier"]).class, Blocked);
    assert_eq!(answer(["ofTomorrow", "alsoNew"]).class, Transient);
    assert_eq!(answer(["dns", "caa"]).class, Validation);
    assert_eq!(object(["dns", "unauthorized"]).class, Validation);
    assert_eq!(object(["serverInternal", "caa"]).class, Validation);

    let failure = answer(["dns", "caa"]);
    assert_eq!(failure.code, "acme_compound");
    assert_eq!(failure.subproblems[1].identifier.as_deref(), Some("a.example"));
    assert_eq!(failure.subproblems[1].acme_type.as_deref(), Some(&*urn("caa")));
}

#[test]
fn retry_after_is_kept_whatever_the_class() {
    let header = [(header::RETRY_AFTER, "60")];
    let at = Some(NOW + Duration::minutes(1));
    let rows = [
        (429, "rateLimited", Throttle),
        (503, "rateLimited", Throttle),
        (503, "", Throttle),
        (500, "serverInternal", Transient),
    ];
    for (status, kind, class) in rows {
        let failure =
            classify(asked(NewOrder, OLD), &answer(status, &body(kind, "later"), &header));

        assert_eq!((failure.class, failure.retry_at), (class, at), "{status} {kind}");
    }
}

#[test]
fn a_time_to_wait_is_read_in_both_forms_and_from_pages_in_html() {
    const DATE: &str = "Thu, 01 Jan 2026 12:00:30 GMT";
    let limit = body("rateLimited", "too many");
    let page = "<html><title>Down for maintenance</title></html>";
    let rows: [(u16, &str, &'static str, Class, &str); 7] = [
        (429, &limit, "30", Throttle, "acme_rate_limited"),
        (429, &limit, DATE, Throttle, "acme_rate_limited"),
        (503, &limit, DATE, Throttle, "acme_busy"),
        (429, page, DATE, Throttle, "acme_rate_limited"),
        (503, page, "30", Throttle, "acme_busy"),
        (503, page, DATE, Throttle, "acme_busy"),
        (502, page, DATE, Transient, "acme_unavailable"),
    ];
    let calls = [
        NewAccount,
        UpdateAccount,
        NewOrder,
        GetOrder,
        GetAuthorization,
        Challenge,
        Finalize,
        Certificate,
        Directory,
    ];
    for ((status, body, wait, class, code), call) in
        rows.iter().flat_map(|row| calls.iter().map(move |call| (row, *call)))
    {
        let failure =
            classify(asked(call, YOUNG), &answer(*status, body, &[(header::RETRY_AFTER, *wait)]));

        let row = format!("{call:?} {status} {wait}");
        assert_eq!((failure.class, &*failure.code), (*class, *code), "{row}");
        assert_eq!(failure.retry_at, Some(NOW + Duration::seconds(30)), "{row}");
    }
}

#[test]
fn a_rejected_name_is_named_among_several() {
    let parts = json!([{
        "type": urn("rejectedIdentifier"), "detail": "policy",
        "identifier": {"type": "dns", "value": "bad.example"},
    }]);
    let problem = json!({
        "type": urn("rejectedIdentifier"), "detail": "1 of 2 names", "subproblems": parts,
    });

    let failure = classify(asked(NewOrder, OLD), &answer(400, &problem.to_string(), &[]));

    assert_eq!((failure.class, &*failure.code), (Blocked, "acme_rejected_identifier"));
    assert_eq!(failure.subproblems[0].identifier.as_deref(), Some("bad.example"));
}

/// As with `alreadyReplaced` (409), nothing is wrong with the order but what it is to replace.
#[test]
fn a_ca_that_does_not_know_what_an_order_replaces_does_not_block_it() {
    let rows = [(404, "malformed"), (409, "malformed"), (409, "alreadyReplaced"), (409, "")];
    for (status, kind) in rows {
        let failure =
            classify(asked(NewOrder, OLD), &answer(status, &body(kind, "no such cert"), &[]));

        assert!(matches!(failure.class, Transient | Conflict), "{status} {kind}: {failure:?}");
    }
}

#[test]
fn a_type_that_nobody_knows_is_judged_by_its_status() {
    for (status, class) in [(400, Transient), (403, Transient), (409, Conflict), (500, Transient)] {
        let failure = classify(asked(GetOrder, OLD), &answer(status, &body("new", "?"), &[]));

        assert_eq!(failure.class, class, "{status}");
        assert_eq!(failure.acme_type.as_deref(), Some(&*urn("new")), "and kept");
    }
}

#[test]
fn a_paused_account_comes_with_the_page_that_resumes_it() {
    let words = "Your account is temporarily prevented from requesting certificates for a.example. \
        Please visit: https://ca.example/unpause?jwt=abc.def.";
    let paused = body("rateLimited", words);

    let failure = classify(asked(NewOrder, OLD), &answer(429, &paused, &[]));
    assert_eq!((failure.class, &*failure.code), (Blocked, "acme_paused"));
    assert_eq!(failure.instance.as_deref(), Some("https://ca.example/unpause?jwt=abc.def"));
    assert!(failure.detail.starts_with(words), "the CA's words are kept");

    // With a time to wait for, the page is only documentation.
    let header = [(header::RETRY_AFTER, "60")];
    let failure = classify(asked(NewOrder, OLD), &answer(429, &paused, &header));
    assert_eq!((failure.class, &*failure.code), (Throttle, "acme_rate_limited"));
}

#[test]
fn new_terms_come_with_the_page_where_they_are() {
    let named = json!({"type": urn("userActionRequired"), "instance": "https://ca.example/tos"});
    let by_instance = answer(403, &named.to_string(), &[]);
    let link = [(header::LINK, r#"<https://ca.example/tos>; rel="terms-of-service""#)];
    let by_link = answer(403, &body("userActionRequired", "New terms"), &link);
    let hostile = json!({"type": urn("userActionRequired"), "instance": "javascript:alert(1)"});
    let hostile = answer(403, &hostile.to_string(), &[]);

    let page = |trouble| classify(asked(NewOrder, OLD), &trouble).instance;

    assert_eq!(page(by_instance).as_deref(), Some("https://ca.example/tos"));
    assert_eq!(page(by_link).as_deref(), Some("https://ca.example/tos"));
    assert_eq!(page(hostile), None, "only web pages become links");
}

#[test]
fn silence_is_told_apart() {
    let rows = [
        (Transport::Timeout("late".into()), Transient, "acme_timeout"),
        (Transport::Broken("reset".into()), Transient, "acme_connection_lost"),
        (Transport::Unreachable("refused".into()), Transient, "acme_unreachable"),
        (Transport::Untrusted("UnknownIssuer".into()), Transient, "acme_tls_untrusted"),
        (Transport::TooLarge, Transient, "acme_answer_too_large"),
        (Transport::Busy, Transient, "acme_client_busy"),
        (Transport::Refused("not https".into()), Blocked, "acme_url_refused"),
    ];
    for (trouble, class, code) in rows {
        let failure = classify(asked(GetOrder, OLD), &Trouble::Transport(trouble));

        assert_eq!((failure.class, &*failure.code), (class, code));
    }
    let garbled = Trouble::Unreadable("expected value at line 1".into());
    let code = |call| classify(asked(call, OLD), &garbled).code;
    assert_eq!(code(GetOrder), "acme_unreadable_answer");
    assert_eq!(code(Directory), "acme_not_a_directory");
}

#[test]
fn the_words_say_who_refused_and_what_helps() {
    let failure = classify(
        asked(NewOrder, OLD),
        &answer(400, &body("rejectedIdentifier", "Policy forbids a.example"), &[]),
    );

    assert_eq!(failure.title, "The CA will not issue for a name.");
    assert_eq!(failure.detail, "Policy forbids a.example. Remove the name, or use another CA.");
    assert_eq!(failure.acme_type.as_deref(), Some(&*urn("rejectedIdentifier")));
    assert_eq!(failure.http_status, Some(400));
}

fn check(age: Option<Duration>, rows: &[Row<'_>]) {
    for (call, status, kind, detail, class, code) in rows {
        let failure = classify(asked(*call, age), &answer(*status, &body(kind, detail), &[]));

        let row = format!("{call:?} {status} {kind} {detail}");
        assert_eq!((failure.class, &*failure.code), (*class, *code), "{row}");
        assert_eq!(failure.http_status, Some(*status), "{row}");
        assert!(!failure.detail.is_empty(), "{row}");
    }
}

fn asked(call: Call, age: Option<Duration>) -> Asked {
    Asked { call, age, account_age: age }
}

fn answer(status: u16, body: &str, headers: &[(HeaderName, &'static str)]) -> Trouble {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
        .collect();
    let body = Bytes::from(body.to_owned());
    Trouble::Answer(Exchange::new("https://ca.example/x".into(), status, &headers, body, NOW))
}

fn read(document: &str) -> Problem {
    serde_json::from_str(document).unwrap()
}

/// A problem document, or any other text where there is no type.
fn body(kind: &str, detail: &str) -> String {
    match kind {
        "" => detail.to_owned(),
        kind => json!({"type": urn(kind), "detail": detail}).to_string(),
    }
}

fn urn(name: &str) -> String {
    format!("urn:ietf:params:acme:error:{name}")
}

#[test]
fn a_strangers_page_is_outlined_and_not_quoted() {
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    for (status, call) in [400, 403, 404, 409, 429, 500, 502, 503]
        .into_iter()
        .flat_map(|status| [Directory, NewOrder, Finalize, GetOrder].map(|call| (status, call)))
    {
        let failure = classify(asked(call, OLD), &answer(status, "<p>s3cret</p>", &html));

        assert!(!format!("{failure:?}").contains("s3cret"), "{failure:?}");
        let outlined = format!("The answer was HTTP {status} (text/html, 13 bytes)");
        assert!(failure.detail.contains(&outlined), "{failure:?}");
    }
}

#[test]
fn where_the_guard_refuses_nobody_is_told_what_is_there() {
    let forbidden = AddressError::Forbidden { host: "ca.example".to_owned() };
    let unresolved = AddressError::Unresolved {
        host: "ca.example".to_owned(),
        reason: "no such name".to_owned(),
    };

    let refused =
        classify(asked(Directory, OLD), &Trouble::Transport(Transport::Guarded(forbidden)));
    let absent =
        classify(asked(Directory, OLD), &Trouble::Transport(Transport::Guarded(unresolved)));
    let foreign = Trouble::Transport(Transport::Foreign("It is at https://x.example".to_owned()));

    assert_eq!((refused.class, &*refused.code), (Blocked, "acme_address_forbidden"));
    assert_eq!((absent.class, &*absent.code), (Transient, "acme_unreachable"));
    assert!(classify(asked(GetOrder, OLD), &foreign).detail.contains("acme.allowedOrigins"));
}
