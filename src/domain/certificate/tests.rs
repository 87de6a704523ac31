use super::attempt::{PROBE_EVERY, SHORTEST_BACKOFF};
use super::*;
use crate::domain::backoff::{Jitter, Retry};
use crate::domain::event_type::EventType;
use crate::domain::explain;
use crate::domain::failure::code;
use crate::domain::fixtures;
use crate::domain::issuer::{self, Issuer};
use crate::domain::order::{self, ORDER_DEADLINE};
use time::Duration;
use time::macros::datetime;

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

#[test]
fn an_order_that_the_ca_lost_is_followed_by_a_fresh_one_at_once() {
    let next = wanted().order_failed(lost(), 0, NOW, Jitter::NONE);

    assert_eq!(next.fresh_order_at, Some(NOW));
    assert_eq!(next.certificate.failed_attempts, 0);
}

#[test]
fn after_three_lost_orders_the_long_backoff_begins() {
    let second = wanted().order_failed(lost(), 1, NOW, Jitter::NONE);
    let third = wanted().order_failed(lost(), 2, NOW, Jitter::NONE);

    assert_eq!(second.fresh_order_at, Some(NOW + Duration::minutes(1)));
    assert_eq!(third.fresh_order_at, None);
    assert_eq!(third.certificate.state, State::Backoff);
    assert_eq!(third.certificate.next_action_at, NOW + Duration::hours(1));
}

#[test]
fn a_certificate_leaves_it_to_its_issuer_to_be_woken_and_looks_seldom() {
    let mut certificate = wanted();
    for looks in 0..3 {
        let now = NOW + Duration::hours(looks);
        certificate = certificate.await_issuer("IssuerNotReady", "", now).certificate;
        assert_eq!(certificate.next_action_at - now, Duration::minutes(5));
    }
}

#[test]
fn a_new_certificate_begins_at_once_or_waits_for_its_issuer_and_says_so() {
    let begun = |issuer: Option<&Issuer>| {
        let begun = fixtures::certificate(NOW).begin(issuer, NOW);
        let reasons: Vec<_> = begun.events.iter().map(|event| event.reason).collect();
        (begun.certificate, reasons)
    };
    let mut issuer = explain::tests::issuer();
    issuer.state = issuer::State::Ready;
    let (ready, reasons) = begun(Some(&issuer));
    assert_eq!((ready.state, ready.next_action_at), (State::Triggered(Trigger::DoesNotExist), NOW));
    assert_eq!((ready.last_error, reasons), (None, vec!["Issuing"]));

    issuer.state = issuer::State::Pending;
    for (issuer, reason, code) in [
        (Some(&issuer), "IssuerNotReady", code::ISSUER_NOT_READY),
        (None, "IssuerNotFound", code::ISSUER_NOT_FOUND),
    ] {
        let (waiting, reasons) = begun(issuer);
        assert_eq!(waiting.state, State::AwaitingIssuer(Trigger::DoesNotExist));
        assert!(waiting.last_error.unwrap().is(code), "{reason}");
        assert_eq!(reasons, ["Issuing", reason]);
    }
}

#[test]
fn a_six_day_certificate_gets_several_tries_before_it_ends() {
    let mut short = wanted();
    short.current = Some(issued(NOW + Duration::days(2)));
    short.failed_attempts = 5;
    let failed = short.order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);

    assert_eq!(failed.certificate.next_action_at, NOW + Duration::hours(6));
}

#[test]
fn renewal_comes_at_two_thirds_or_half_of_the_real_lifetime() {
    let spec = wanted().spec;
    let end = |days| renewal_time(&spec, NOW, NOW + Duration::days(days), Jitter::NONE);

    assert_eq!(end(90), NOW + Duration::days(60) - Duration::hours(1) + Duration::hours(1));
    assert_eq!(end(6), NOW + Duration::days(3));
}

#[test]
fn renew_before_beyond_the_lifetime_is_ignored() {
    let spec = Spec { renew_before: Some("2400h".into()), ..wanted().spec };
    assert_eq!(
        renewal_time(&spec, NOW, NOW + Duration::days(90), Jitter::NONE),
        NOW + Duration::days(60)
    );
}

#[test]
fn a_renewal_that_fails_keeps_the_present_certificate_served() {
    let mut served = wanted();
    served.current = Some(issued(NOW + Duration::days(20)));
    let failed = served.order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);

    assert!(failed.certificate.current.is_some());
    assert_eq!(failed.certificate.phase(NOW), Phase::Failed);
}

#[test]
fn other_names_are_issued_at_once_whatever_the_backoff() {
    let mut failed = wanted().order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    failed.certificate.current = Some(issued(NOW + Duration::days(20)));
    let spec = Spec { dns_names: vec!["b.example.com".into()], ..wanted().spec };
    let changed = respecified(failed.certificate, spec).certificate;

    assert_eq!(changed.state, State::Triggered(Trigger::RequestChanged));
    assert_eq!((changed.generation, changed.failed_attempts, changed.next_action_at), (2, 0, NOW));
}

#[test]
fn another_renewal_time_issues_nothing() {
    let mut served = wanted();
    served.state = State::Idle;
    served.current = Some(issued(NOW + Duration::days(90)));
    let spec = Spec { renew_before: Some("240h".into()), ..wanted().spec };
    let changed = respecified(served, spec).certificate;

    assert_eq!(changed.state, State::Idle);
    assert_eq!(changed.next_action_at, NOW + Duration::days(80));
}

#[test]
fn a_failure_is_told_once_however_often_it_is_tried_again() {
    let fail = |certificate: Certificate| {
        certificate.order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE)
    };
    let first = fail(wanted());
    let second = fail(first.certificate.clone());

    assert_eq!(first.event_types, [EventType::CertificateFailed]);
    assert_eq!(second.event_types, []);
}

#[test]
fn that_only_a_person_can_help_is_told_even_after_other_failures_and_once() {
    let block = |certificate: Certificate| {
        certificate.order_failed(order::Outcome::Blocked(failure()), 0, NOW, Jitter::NONE)
    };
    let failed = wanted().order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    let blocked = block(failed.certificate);
    let probed = block(blocked.certificate.clone());

    assert_eq!(blocked.event_types, [EventType::CertificateBlocked]);
    assert_eq!(probed.event_types, []);
}

#[test]
fn what_a_client_changed_in_vain_is_told_again() {
    let failed = wanted().order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    let spec = Spec { dns_names: vec!["b.example.com".into()], ..wanted().spec };
    let changed = respecified(failed.certificate, spec).certificate;
    let again =
        changed.clone().order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    let mended = changed.issued(issued(NOW + Duration::days(90)), None, NOW);

    assert_eq!(again.event_types, [EventType::CertificateFailed]);
    assert_eq!(mended.event_types, [EventType::CertificateIssued, EventType::CertificateRecovered]);
}

#[test]
fn recovery_is_told_only_of_what_was_told_to_be_broken() {
    let lasting = NOW + Duration::days(90);
    let first = wanted().issued(issued(lasting), None, NOW);
    let second = first.certificate.clone().issued(issued(lasting), None, NOW);
    let lost_once = wanted().order_failed(lost(), 0, NOW, Jitter::NONE).certificate;
    let failed = second.certificate.clone().order_failed(
        order::Outcome::Failed(failure()),
        0,
        NOW,
        Jitter::NONE,
    );
    let healed = failed.certificate.issued(issued(lasting), None, NOW);

    assert_eq!(first.event_types, [EventType::CertificateIssued]);
    assert_eq!(second.event_types, [EventType::CertificateRenewed]);
    assert_eq!(
        lost_once.issued(issued(lasting), None, NOW).event_types,
        [EventType::CertificateIssued]
    );
    assert_eq!(
        healed.event_types,
        [EventType::CertificateRenewed, EventType::CertificateRecovered]
    );
    assert_eq!(healed.certificate.told, Told::default());
}

#[test]
fn nothing_that_was_to_be_told_is_lost_on_the_way_to_what_follows() {
    let failed = wanted().order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    let next = failed.then(|certificate| certificate.trigger(Trigger::ManuallyTriggered, NOW));

    assert_eq!(next.event_types, [EventType::CertificateFailed]);
    assert_eq!(
        next.events.iter().map(|event| event.reason).collect::<Vec<_>>(),
        ["Failed", "Issuing"]
    );
}

fn lost() -> order::Outcome {
    order::Outcome::Lost(failure())
}

fn failure() -> Failure {
    Failure::of(code::ACME_NOT_FOUND_YET, "404")
}

/// Another specification, by the same right and without labels.
fn respecified(certificate: Certificate, spec: Spec) -> Transition {
    let right = certificate.admitted_by.clone();
    certificate.respecified(spec, BTreeMap::new(), right, NOW)
}

pub(super) fn issued(not_after: OffsetDateTime) -> Issued {
    Issued { revision: 1, serial: "01".into(), not_before: NOW, not_after, renewal_time: NOW }
}

pub(in crate::domain) fn wanted() -> Certificate {
    Certificate { state: State::Ordering(Trigger::DoesNotExist), ..fixtures::certificate(NOW) }
}

/// From the first failed renewal to the end of what is served.
/// Issued today, for ninety days.
pub(super) fn served() -> Certificate {
    let mut served = wanted();
    served.state = State::Idle;
    served.current = Some(issued(NOW + Duration::days(90)));
    served
}

#[test]
fn every_lifetime_leaves_room_for_several_tries() {
    for (days, least) in [(6, 12), (45, 20), (90, 25)] {
        for retry in [None, Some(Retry { initial: Some("200h".into()), max: Some("700h".into()) })]
        {
            let end = NOW + Duration::days(days);
            let mut served = wanted();
            served.current = Some(issued(end));
            served.spec.retry = retry;
            let mut now = renewal_time(&served.spec, NOW, end, Jitter::NONE);
            let mut tries = 0;
            // Nearer to its end than that, CAs are spared more.
            while now <= end - SHORTEST_BACKOFF * 8 {
                served.state = State::Ordering(Trigger::Renewing);
                let failed = order::Outcome::Failed(failure());
                served = served.order_failed(failed, 0, now, Jitter::NONE).certificate;
                let pause = served.next_action_at - now;
                assert!(pause <= (end - now) / 8, "{days} days: {pause} of {}", end - now);
                now = served.next_action_at;
                tries += 1;
            }
            assert!(tries >= least, "{days} days: {tries} tries");
        }
    }
}

#[test]
fn a_certificates_own_pauses_come_before_its_issuers() {
    let issuers = Retry { initial: Some("10m".into()), max: None };
    let failed = |certificate: Certificate| {
        let outcome = order::Outcome::Failed(failure());
        let next = certificate.order_failed_under(Some(&issuers), outcome, 0, NOW, Jitter::NONE);
        next.certificate.next_action_at - NOW
    };
    let mut own = wanted();
    own.spec.retry = Some(Retry { initial: Some("3h".into()), max: None });

    assert_eq!(failed(wanted()), Duration::minutes(10));
    assert_eq!(failed(own), Duration::hours(3));
}

#[test]
fn a_renewal_by_hand_waits_for_no_pause() {
    for state in [State::Backoff, State::Blocked, State::Idle] {
        let mut waiting = wanted();
        waiting.state = state;
        waiting.current = Some(issued(NOW + Duration::days(20)));
        waiting.next_action_at = NOW + Duration::hours(9);
        let next = waiting.trigger(Trigger::ManuallyTriggered, NOW).certificate;

        assert_eq!(next.state, State::Triggered(Trigger::ManuallyTriggered));
        assert_eq!(next.next_action_at, NOW);
    }
}

#[test]
fn success_forgets_what_failed_before() {
    let mut failing = wanted();
    for _ in 0..5 {
        failing = failing
            .order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE)
            .certificate;
    }
    let done = failing.issued(issued(NOW + Duration::days(90)), None, NOW).certificate;
    assert_eq!((done.failed_attempts, &done.last_error), (0, &None));

    let mut again = done;
    again.current = None;
    let failed = again.order_failed(order::Outcome::Failed(failure()), 0, NOW, Jitter::NONE);
    assert_eq!(failed.certificate.next_action_at, NOW + Duration::hours(1), "from the beginning");
}

#[test]
fn what_is_blocked_or_pausing_tries_at_once_when_its_spec_changes() {
    let change = |state: State, change: fn(&mut Spec)| {
        let mut waiting = wanted();
        waiting.state = state;
        waiting.failed_attempts = 3;
        waiting.next_action_at = NOW + Duration::hours(9);
        let mut spec = waiting.spec.clone();
        change(&mut spec);
        respecified(waiting, spec).certificate
    };
    let names = |spec: &mut Spec| spec.dns_names = vec!["b.example.com".into()];
    let retry =
        |spec: &mut Spec| spec.retry = Some(Retry { initial: Some("5m".into()), max: None });

    for state in [State::Blocked, State::Backoff] {
        assert_eq!(change(state, names).next_action_at, NOW);
    }
    assert_eq!(
        change(State::Backoff, retry).next_action_at,
        NOW,
        "it need not sit out the old pause"
    );
    assert_eq!(change(State::Blocked, retry).next_action_at, NOW + Duration::hours(9));
}

#[test]
fn what_is_blocked_is_probed_in_time_for_what_is_served() {
    let probed = |left: Option<Duration>| {
        let mut blocked = wanted();
        blocked.current = left.map(|left| issued(NOW + left));
        let outcome = order::Outcome::Blocked(failure());
        blocked.order_failed(outcome, 0, NOW, Jitter::NONE).certificate.next_action_at - NOW
    };

    assert_eq!(probed(None), PROBE_EVERY);
    assert_eq!(probed(Some(Duration::days(60))), PROBE_EVERY);
    assert_eq!(probed(Some(Duration::hours(8))), Duration::hours(1));
    assert_eq!(probed(Some(Duration::minutes(8))), SHORTEST_BACKOFF);
}

#[test]
fn an_order_for_a_renewal_leaves_time_for_several_more() {
    let mut served = wanted();
    let length = |certificate: &Certificate| certificate.order_deadline(NOW, None) - NOW;
    assert_eq!(length(&served), ORDER_DEADLINE);

    for (left, most) in [(30 * 24, 24 * 60), (80, 10 * 60), (1, 10)] {
        served.current = Some(issued(NOW + Duration::hours(left)));
        assert_eq!(length(&served), Duration::minutes(most), "{left} h left");
    }
    served.current = Some(issued(NOW - Duration::hours(1)));
    assert_eq!(length(&served), ORDER_DEADLINE, "nothing is served any more");
}

#[test]
fn a_time_that_the_ca_asks_for_is_not_waited_for_past_the_end() {
    let mut served = wanted();
    served.current = Some(issued(NOW + Duration::hours(8)));
    let asked = failure().not_before(Some(NOW + Duration::hours(24)));

    let failed = served.order_failed(order::Outcome::Failed(asked), 0, NOW, Jitter::NONE);

    assert_eq!(failed.certificate.next_action_at, NOW + Duration::hours(4));
}
