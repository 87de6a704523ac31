//! Orders that one certificate costs, one after the other, at a CA that keeps failing.

use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{self, Certificate, Issued, Trigger};
use certwright::domain::failure::{Class, Failure};
use certwright::domain::order::{Answer, Order, Status, Step};
use time::{Duration, OffsetDateTime};

use super::order::{START, URL, apply, failed, failure, new, seen};
use crate::support::fixtures;

#[test]
fn a_refused_replacement_is_asked_for_once_more_and_no_more() {
    let plain = new();
    let refused = Answer::NotReplacing(failure(Class::Transient));

    let next = apply(plain, refused, START).order;

    assert_eq!(next.next_action_at, Some(START + Duration::seconds(5)), "like any trouble");
}

#[test]
fn a_birth_that_cannot_be_read_costs_three_orders_in_ten_minutes_at_most() {
    let mut order = new();
    let mut asked = Vec::new();
    while let Some(now) = order.next_action_at.filter(|at| *at < START + Duration::hours(1)) {
        assert_eq!(order.next_step(now), Some(Step::Create));
        asked.push(now);
        let unread = Failure { code: "acme_unreadable_answer".into(), ..failure(Class::Transient) };
        order = apply(order, Answer::Failed(unread), now).order;
    }

    for (place, first) in asked.iter().enumerate() {
        let soon = asked[place..].iter().filter(|at| **at - *first < Duration::minutes(10));
        assert!(soon.count() <= 3, "{asked:?}");
    }
    assert!(asked.len() > 10, "it goes on");
}

/// However a CA loses orders: three in ten minutes at most, then the long backoff and nothing before.
#[test]
fn a_ca_that_loses_every_order_is_asked_for_three_in_ten_minutes_at_most() {
    for class in [Class::Gone, Class::Consistency, Class::Validation] {
        for left in [None, Some(Duration::minutes(20)), Some(Duration::days(20))] {
            let asked = orders_asked_for(class, left, Duration::hours(6));
            for (place, first) in asked.iter().enumerate() {
                let within =
                    asked[place..].iter().filter(|at| **at - *first < Duration::minutes(10));
                let count = within.count();
                assert!(count <= 3, "{class:?}, {left:?} left: {count} from {first} on");
            }
            let attempts = asked.windows(2).filter(|two| two[1] - two[0] > Duration::minutes(5));
            let shortest = attempts.map(|two| two[1] - two[0]).min().unwrap();
            if left != Some(Duration::minutes(20)) {
                assert!(shortest >= Duration::hours(1), "{class:?}, {left:?} left: {shortest}");
            }
        }
    }
}

/// When the CA was asked for an order for a certificate that has so long to live, while it answers
/// everything else about orders like this.
fn orders_asked_for(class: Class, left: Option<Duration>, time: Duration) -> Vec<OffsetDateTime> {
    let mut asked = Vec::new();
    let mut certificate = certificate(left);
    let mut now = START;
    while now < START + time {
        // The worker's part: an attempt begins with an order of its own.
        let mut order = Order { created_at: now, next_action_at: Some(now), ..new() };
        certificate = certificate.wake(now).certificate;
        certificate = certificate.order_placed(order.request, order.id, now).certificate;
        loop {
            now = now.max(order.next_action_at.unwrap());
            let answer = match order.next_step(now).unwrap() {
                Step::Create => {
                    asked.push(now);
                    Answer::Created(URL.into(), seen(Status::Pending))
                }
                _ => failed(class),
            };
            let next = apply(order, answer, now);
            order = next.order;
            let Some(outcome) = next.outcome else { continue };
            let after = certificate.order_failed(outcome, order.predecessors, now, Jitter::NONE);
            certificate = after.certificate;
            let Some(at) = after.fresh_order_at else { break };
            let predecessors = order.predecessors + 1;
            order = Order { predecessors, next_action_at: Some(at), ..new() };
        }
        now = certificate.next_action_at;
    }
    asked
}

fn certificate(left: Option<Duration>) -> Certificate {
    let current = left.map(|left| Issued {
        revision: 1,
        serial: "01".into(),
        not_before: START - Duration::days(60),
        not_after: START + left,
        renewal_time: START,
    });
    let state = certificate::State::Triggered(Trigger::Renewing);
    Certificate { state, current, ..fixtures::certificate(START) }
}
