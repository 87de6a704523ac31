use time::Duration;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::domain::certificate::{Issued, Trigger};
use crate::domain::challenge::Kind;
use crate::domain::failure::{Subproblem, code};
use crate::domain::fixtures;
use crate::domain::id::{IssuerId, OrderId};
use crate::domain::issuer::Acme;
use crate::domain::order::End;

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const LATER: OffsetDateTime = datetime!(2026-11-24 13:00 UTC);

/// `(code, class, kind of challenge)`, and what the summary and the actions have to say.
type Row<'a> = (&'a str, Class, Kind, &'a [&'a str], &'a [&'a str]);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_of_the_fifteen_causes_has_its_own_words_and_what_to_do() {
    use Class::{Blocked, Throttle, Transient, Validation};
    use Kind::{Dns01, Http01};
    let rows: &[Row<'_>] = &[
        ("acme_caa", Validation, Dns01, &["CAA", "app.example.com"], &["CAA", "issuer"]),
        (
            "acme_incorrect_response",
            Validation,
            Dns01,
            &["another TXT record"],
            &["stale", "CNAME"],
        ),
        (
            "cloudflare_zone_not_found",
            Blocked,
            Dns01,
            &["None of the zones"],
            &["Zone:Read", "zoneID"],
        ),
        ("cloudflare_permission_denied", Blocked, Dns01, &["lacks a permission"], &["DNS:Edit"]),
        ("cloudflare_zone_full", Throttle, Dns01, &["no room"], &["Nothing needs", "plan"]),
        ("cloudflare_name_taken", Blocked, Dns01, &["Another kind"], &["cnameStrategy: Follow"]),
        (
            "challenge_not_propagated",
            Validation,
            Dns01,
            &["not every name server", "_acme-challenge.app.example.com"],
            &["propagation.timeout"],
        ),
        (
            "acme_rate_limited",
            Throttle,
            Dns01,
            &["until 2026-11-24T13:00:00Z"],
            &["Nothing needs to be done"],
        ),
        ("acme_paused", Blocked, Dns01, &["paused"], &["https://ca.example/unpause"]),
        (
            "acme_unknown_profile",
            Blocked,
            Dns01,
            &["profile", "It offers: classic, shortlived"],
            &["leave the profile out"],
        ),
        (
            "acme_external_account_required",
            Blocked,
            Dns01,
            &["EAB", "https://ca.example/dir"],
            &["externalAccountBinding"],
        ),
        ("acme_bad_csr", Blocked, Dns01, &["refuses the key or the CSR"], &["privateKey"]),
        ("acme_unreachable", Transient, Dns01, &["is down"], &["server"]),
        (
            "acme_unauthorized",
            Validation,
            Http01,
            &["Port 80", "app.example.com"],
            &["/.well-known/acme-challenge/", "AAAA"],
        ),
        (
            "acme_rejected_identifier",
            Blocked,
            Dns01,
            &["will not issue for bad.example.com"],
            &["Remove the name"],
        ),
    ];
    let mut summaries = std::collections::BTreeSet::new();

    for (code, class, kind, summary, actions) in rows {
        let failure = failure(code, *class);
        let order = order(*kind);
        let state = if *class == Blocked { State::Blocked } else { State::Backoff };
        let certificate = Certificate { last_error: Some(failure.clone()), ..certificate(state) };

        let said = explain(&certificate, Some(&issuer()), Some(&order), NOW);

        for words in *summary {
            assert!(said.summary.contains(words), "{code}: {words}: {}", said.summary);
        }
        let all = said.actions.join(" ");
        for words in *actions {
            assert!(all.contains(words), "{code}: {words}: {all}");
        }
        assert_eq!(said.why, Some(failure), "{code}: the other side's own words are kept");
        assert_eq!(said.next.map(|next| next.at), Some(LATER), "{code}: and when it goes on");
        assert!(summaries.insert(said.summary), "{code} says the same as another");
    }
    assert_eq!(summaries.len(), 15);
}

/// Let's Encrypt says `dns` of several kinds of trouble, and which one in words.
#[test]
fn what_cas_say_of_the_dns_is_told_apart_by_their_words() {
    let rows: &[(&str, Kind, &str, &str, &str)] = &[
        (
            "acme_dns",
            Kind::Dns01,
            "DNS problem: looking up TXT for _acme-challenge.app.example.com: DNSSEC: DNSKEY Missing",
            "DNSSEC validation",
            "DS record",
        ),
        (
            "acme_dns",
            Kind::Dns01,
            "DNS problem: SERVFAIL looking up CAA for example.com - the domain's nameservers may be malfunctioning",
            "could not look up the CAA",
            "dig CAA",
        ),
        (
            "acme_dns",
            Kind::Http01,
            "During secondary validation: DNS problem: query timed out looking up A for app.example.com",
            "from several places",
            "from everywhere",
        ),
        (
            "acme_dns",
            Kind::Http01,
            "DNS problem: NXDOMAIN looking up A for app.example.com",
            "does not exist",
            "delegation",
        ),
        (
            "acme_dns",
            Kind::Dns01,
            "DNS problem: SERVFAIL looking up TXT",
            "could not look up app.example.com",
            "delegation",
        ),
        ("acme_dnssec", Kind::Dns01, "bogus", "DNSSEC validation", "DS record"),
        (
            "acme_connection",
            Kind::Http01,
            "Timeout during connect (likely firewall problem)",
            "port 80",
            "firewall",
        ),
        ("acme_connection", Kind::Dns01, "refused", "could not connect", "from the whole internet"),
        (
            "acme_tls",
            Kind::Http01,
            "remote error: tls: handshake failure",
            "TLS failed",
            "port 443",
        ),
    ];
    for (code, kind, words, summary, action) in rows {
        let failure = Failure {
            class: Class::Validation,
            detail: (*words).into(),
            ..failure(code, Class::Validation)
        };
        let certificate = Certificate { last_error: Some(failure), ..certificate(State::Backoff) };

        let said = explain(&certificate, Some(&issuer()), Some(&order(*kind)), NOW);

        assert!(said.summary.contains(summary), "{words}: {}", said.summary);
        assert!(said.summary.contains("app.example.com"), "{words}: {}", said.summary);
        let all = said.actions.join(" ");
        assert!(all.contains(action), "{words}: {all}");
        assert!(!all.contains("what the CA complains about"), "{words}: {all}");
    }
}

#[test]
fn an_order_with_too_many_names_is_told_how_many_there_may_be() {
    let words = "Error creating new order :: Order cannot contain more than 25 identifiers";
    let failure = Failure::of(code::ACME_TOO_MANY_NAMES, words);
    let mut large = order(Kind::Dns01);
    large.names = (0..26).map(|n| format!("n{n}.example.com")).collect();
    large.profile = Some("tlsserver".into());
    let certificate = Certificate { last_error: Some(failure), ..certificate(State::Blocked) };

    let said = explain(&certificate, Some(&issuer()), Some(&large), NOW);

    let wanted = "has 26 names, and the CA puts 25 at most into one with the profile \"tlsserver\"";
    assert!(said.summary.contains(wanted), "{}", said.summary);
    assert!(said.actions.join(" ").contains("several certificates"), "{:?}", said.actions);
}

#[test]
fn a_wait_for_name_servers_says_which_one_shows_what() {
    let mut waiting = order(Kind::Dns01);
    waiting.state =
        order::State::Open { url: "https://ca.example/1".into(), stage: Stage::Presenting };
    waiting.challenges[0].state = challenge::State::Presented;
    waiting.challenges[0].observations = vec![
        Observation::seen("ns1.example.com 192.0.2.1", "has the TXT record"),
        Observation::missing("ns2.example.com 192.0.2.2", "has no TXT record"),
    ];

    let said =
        explain(&certificate(State::Ordering(Trigger::DoesNotExist)), None, Some(&waiting), NOW);

    assert_eq!((said.doing, said.phase), (Doing::WaitingForProofs, Phase::Issuing));
    assert_eq!(said.observations.len(), 2);
    assert!(
        said.summary.contains("ns2.example.com 192.0.2.2 has no TXT record"),
        "{}",
        said.summary
    );
    assert!(!said.summary.contains("ns1"), "who sees it is no cause: {}", said.summary);
    assert_eq!(said.deadline, Some(waiting.deadline));
    let text = said.to_text("web", NOW);
    assert!(text.contains("seen      app.example.com: ns1.example.com 192.0.2.1 has"), "{text}");
    assert!(text.contains("not seen  app.example.com: ns2.example.com 192.0.2.2 has no"), "{text}");
}

#[test]
fn an_issuer_that_is_missing_or_not_ready_is_named_with_its_cause() {
    let waiting = certificate(State::AwaitingIssuer(Trigger::DoesNotExist));

    let missing = explain(&waiting, None, None, NOW);
    assert_eq!(missing.doing, Doing::WaitingForIssuer);
    assert!(missing.summary.contains("there is no Issuer \"le\""), "{}", missing.summary);
    assert!(missing.actions[0].starts_with("Create"), "{:?}", missing.actions);

    let mut down = issuer();
    down.state = issuer::State::Failed;
    down.last_error = Some(failure("acme_unreachable", Class::Transient));
    down.next_action_at = Some(LATER);
    let said = explain(&waiting, Some(&down), None, NOW);
    assert!(said.summary.contains("The CA is down"), "{}", said.summary);
    assert_eq!(said.why.unwrap().code, "acme_unreachable", "the cause, not the waiting");
    assert_eq!(said.next.unwrap().at, LATER);
}

#[test]
fn what_is_ready_needs_nothing_but_its_renewal() {
    let said = explain(&served(State::Idle), Some(&issuer()), None, NOW);

    assert_eq!((said.doing, said.phase), (Doing::WaitingForRenewal, Phase::Ready));
    assert!(said.summary.contains("Nothing needs to be done"), "{}", said.summary);
    assert_eq!(said.next.unwrap().at, NOW + Duration::days(60));
    assert!(said.actions.is_empty());
}

#[test]
fn a_failing_renewal_says_until_when_the_present_certificate_lasts() {
    let failing = Certificate {
        last_error: Some(failure("acme_caa", Class::Validation)),
        failed_attempts: 3,
        ..served(State::Backoff)
    };

    let said = explain(&failing, Some(&issuer()), Some(&order(Kind::Dns01)), NOW);

    assert!(said.summary.starts_with("The last 3 attempts failed."), "{}", said.summary);
    assert!(
        said.summary.contains("Revision 1 is served until 2027-02-22T12:00:00Z"),
        "{}",
        said.summary
    );
    assert!(said.actions.last().unwrap().contains("/renew"));
}

#[test]
fn a_cause_without_words_of_its_own_is_told_in_those_of_the_failure() {
    for class in [
        Class::Consistency,
        Class::Throttle,
        Class::Transient,
        Class::Validation,
        Class::Conflict,
        Class::Gone,
        Class::Blocked,
    ] {
        let mut open = order(Kind::Dns01);
        open.state =
            order::State::Open { url: "https://ca.example/1".into(), stage: Stage::Authorizing };
        open.last_error = Some(failure("of_tomorrow", class));

        let said =
            explain(&certificate(State::Ordering(Trigger::DoesNotExist)), None, Some(&open), NOW);

        assert!(said.summary.contains("It did not work."), "{class:?}: {}", said.summary);
        let for_a_person = matches!(class, Class::Blocked | Class::Validation);
        assert_eq!(said.summary.contains("passes by itself"), !for_a_person, "{class:?}");
    }
}

#[test]
fn every_stage_of_an_order_is_told_apart() {
    let mut words = std::collections::BTreeSet::new();
    for stage in [
        Stage::Authorizing,
        Stage::Presenting,
        Stage::Accepting,
        Stage::Validating,
        Stage::Finalizing,
        Stage::Processing,
        Stage::Downloading,
    ] {
        let open = order::State::Open { url: "https://ca.example/1".into(), stage };
        let order = Order { state: open, ..order(Kind::Dns01) };
        let said =
            explain(&certificate(State::Ordering(Trigger::DoesNotExist)), None, Some(&order), NOW);

        assert!(said.next.is_some(), "{stage:?}");
        assert!(words.insert(said.summary), "{stage:?}");
    }
}

pub(super) fn failure(code: &str, class: Class) -> Failure {
    let part = |name: &str| Subproblem {
        identifier: Some(name.into()),
        acme_type: None,
        detail: "no".into(),
    };
    Failure {
        retry_at: (class == Class::Throttle).then_some(LATER),
        instance: (code == "acme_paused").then(|| "https://ca.example/unpause".into()),
        subproblems: match code {
            "acme_rejected_identifier" => vec![part("bad.example.com")],
            _ => vec![],
        },
        class,
        code: code.into(),
        ..Failure::of(code::INTERNAL_ERROR, "It offers: classic, shortlived.")
            .titled("It did not work")
    }
}

#[test]
fn a_certificate_that_waits_for_its_revocation_says_so_and_how_not_to_wait() {
    let wanted = served(State::Idle)
        .revocation_wanted(1, crate::domain::revocation::Reason::CessationOfOperation, NOW)
        .certificate
        .delete_once_revoked(LATER, NOW)
        .certificate;

    let said = explain(&wanted, None, None, NOW);

    assert_eq!(said.doing, Doing::Deleting);
    assert_eq!(said.next.unwrap().at, LATER);
    assert!(said.actions[0].contains("without `revoke`"), "{:?}", said.actions);
}

pub(super) fn certificate(state: State) -> Certificate {
    Certificate {
        state,
        failed_attempts: 1,
        order: Some(OrderId(Uuid::nil())),
        next_action_at: LATER,
        ..fixtures::certificate(NOW)
    }
}

pub(super) fn served(state: State) -> Certificate {
    let current = Issued {
        revision: 1,
        serial: "01".into(),
        not_before: NOW,
        not_after: NOW + Duration::days(90),
        renewal_time: NOW + Duration::days(60),
    };
    Certificate { current: Some(current), ..certificate(state) }
}

pub(in crate::domain) fn issuer() -> Issuer {
    let acme: Acme =
        serde_json::from_str(r#"{"server": "https://ca.example/dir", "solvers": []}"#).unwrap();
    Issuer {
        id: IssuerId(Uuid::nil()),
        kind: issuer::Kind::Issuer,
        namespace: "default".into(),
        name: "le".into(),
        acme,
        generation: 1,
        state: issuer::State::Pending,
        state_since: NOW,
        account: None,
        account_change: None,
        tries: 0,
        last_error: None,
        created_at: NOW,
        next_action_at: Some(NOW),
    }
}

/// One that has failed at its only challenge.
pub(super) fn order(kind: Kind) -> Order {
    let challenge = Challenge {
        domain: "app.example.com".into(),
        kind,
        state: challenge::State::Invalid,
        clean: true,
        reason: Some("no".into()),
        next_action_at: None,
        deadline: LATER,
        ..fixtures::challenge(0, NOW)
    };
    Order {
        names: vec!["app.example.com".into()],
        state: order::State::Done { url: None, end: End::Invalid },
        challenges: vec![challenge],
        next_action_at: Some(LATER),
        ..fixtures::order(NOW)
    }
}
