//! What an order becomes, whatever the outside world answers. No I/O, no clock: values only.

use std::collections::HashSet;

use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{self, Certificate, Issued, Trigger};
use certwright::domain::challenge::{self, Action, Challenge, Observation, ProofTimeouts, Record};
use certwright::domain::event::{Event, Resource};
use certwright::domain::failure::{Class, Failure, code};
use certwright::domain::id::ChallengeId;
use certwright::domain::order::{
    Answer, Conditions, End, ORDER_DEADLINE, Order, Outcome, Seen, Stage, State, Status, Step,
    Transition,
};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::fixtures;

const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const URL: &str = "https://ca.example/order/1";
/// What has been sent lately may delay a step by so much.
const PACED: Duration = Duration::seconds(80);
const PATIENCE: ProofTimeouts =
    ProofTimeouts { propagation: Duration::minutes(5), delay: Duration::ZERO };

#[test]
fn an_order_goes_step_by_step_to_its_certificate() {
    let mut order = new();
    let mut steps = Vec::new();
    for answer in [
        Answer::Created(URL.into(), seen(Status::Pending)),
        Answer::Authorizations(vec![challenge(1), challenge(2)]),
        solved(&[1, 2], &challenge::Answer::Presented(Some(record()))),
        solved(&[1, 2], &challenge::Answer::Seen),
        Answer::Accepted,
        Answer::Polled(seen(Status::Ready)),
        Answer::Polled(seen(Status::Processing)),
        Answer::Polled(seen(Status::Valid)),
        Answer::Downloaded,
        solved(&[1, 2], &challenge::Answer::CleanedUp),
    ] {
        let now = order.next_action_at.unwrap();
        steps.push(order.next_step(now).unwrap());
        order = apply(order, answer, now).order;
    }

    let both = |action| Step::Solve(vec![(id(1), action), (id(2), action)]);
    assert_eq!(
        steps,
        [
            Step::Create,
            Step::ReadAuthorizations,
            both(Action::Present),
            both(Action::Check),
            Step::Accept,
            Step::Poll,
            Step::Finalize,
            Step::Poll,
            Step::Download,
            both(Action::CleanUp),
        ]
    );
    assert_eq!(order.state, State::Done { url: Some(URL.into()), end: End::Valid });
    assert_eq!(order.next_action_at, None, "nothing is left to do");
}

#[test]
fn what_is_refused_as_a_replacement_is_ordered_once_more_at_once() {
    let order = Order { replaces: Some("a.b".into()), ..new() };

    let next = apply(order, Answer::NotReplacing(failure(Class::Blocked)), START);

    assert_eq!((next.order.replaces.as_deref(), next.outcome), (None, None));
    assert_eq!(next.order.next_step(START), Some(Step::Create));
    assert_eq!(next.events[0].reason, "ReplacementRefused");
}

#[test]
fn names_that_are_proved_already_are_not_proved_again() {
    let order = open(Stage::Authorizing, &[]);

    let next = apply(order, Answer::Authorizations(vec![]), START).order;

    assert_eq!(next.next_step(START), Some(Step::Poll));
}

#[test]
fn a_404_on_what_was_just_handed_out_is_asked_again_and_nothing_is_lost() {
    let mut order = open(Stage::Authorizing, &[]);
    let mut now = START;
    let mut waits = Vec::new();
    while now < START + Duration::seconds(60) {
        let mut requests = order.course.requests.clone();
        requests.count(now);
        let conditions =
            Conditions { jitter: Jitter::NONE, first_poll: None, requests: Some(requests) };
        let next = order.apply(failed(Class::Consistency), now, conditions).unwrap();
        assert_eq!(next.outcome, None, "not while a replica may lag");
        order = next.order;
        let at = order.next_action_at.unwrap();
        waits.push((at - now).whole_milliseconds());
        now = at;
    }

    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 10_000, 15_000, 30_000]);
    assert_eq!(order.url(), Some(URL), "the same order");
    assert_eq!(order.next_step(now), Some(Step::ReadAuthorizations), "the same question");
}

#[test]
fn after_two_minutes_of_404_the_order_counts_as_lost() {
    let order = apply(open(Stage::Authorizing, &[]), failed(Class::Consistency), START).order;

    let next = apply(order, failed(Class::Consistency), START + Duration::minutes(2));

    assert!(matches!(next.outcome, Some(Outcome::Lost(_))), "{:?}", next.outcome);
}

#[test]
fn a_certificate_that_is_not_there_yet_is_waited_for_longer() {
    let order = apply(open(Stage::Downloading, &[]), failed(Class::Consistency), START).order;

    let later = apply(order, failed(Class::Consistency), START + Duration::minutes(9));
    assert_eq!(later.outcome, None);
    let latest = apply(later.order, failed(Class::Consistency), START + Duration::minutes(10));
    assert!(matches!(latest.outcome, Some(Outcome::Lost(_))));
}

#[test]
fn asked_to_come_back_later_an_order_comes_back_later() {
    let at = START + Duration::minutes(30);
    let failure = Failure { retry_at: Some(at), ..failure(Class::Throttle) };

    let next = apply(new(), Answer::Failed(failure), START);

    assert_eq!(next.order.next_action_at, Some(at));
    assert_eq!(next.outcome, None);
}

#[test]
fn after_a_lost_answer_to_finalize_the_order_is_read_back_first() {
    let next = apply(open(Stage::Finalizing, &[]), failed(Class::Transient), START).order;
    assert_eq!(next.next_step(next.next_action_at.unwrap()), Some(Step::Poll));

    let valid = apply(next.clone(), Answer::Polled(seen(Status::Valid)), START).order;
    assert_eq!(valid.next_step(START), Some(Step::Download), "it had arrived");

    let soon = apply(next.clone(), Answer::Polled(seen(Status::Ready)), START).order;
    assert_eq!(
        soon.next_step(soon.next_action_at.unwrap()),
        Some(Step::Poll),
        "perhaps a lagging replica"
    );

    let later = START + Duration::seconds(11);
    let lost = apply(next, Answer::Polled(seen(Status::Ready)), later).order;
    assert_eq!(lost.next_step(later), Some(Step::Finalize), "it had not");
}

#[test]
fn a_csr_that_came_too_early_is_sent_again_as_soon_as_the_order_is_ready() {
    let refused = apply(open(Stage::Finalizing, &[]), failed(Class::Conflict), START).order;
    assert_eq!(refused.next_step(START), Some(Step::Poll), "first the order is read back");

    let pending = apply(refused, Answer::Polled(seen(Status::Pending)), START).order;
    let at = pending.next_action_at.unwrap();
    assert_eq!(pending.next_step(at), Some(Step::Poll), "a replica still says pending");
    let ready = apply(pending, Answer::Polled(seen(Status::Ready)), at).order;

    assert_eq!(ready.next_step(at), Some(Step::Finalize));
}

#[test]
fn a_ca_that_takes_long_to_sign_is_waited_for_with_the_same_order() {
    let mut order = open(Stage::Processing, &[]);
    let mut now = START;
    while now < START + Duration::minutes(30) {
        let next = apply(order, Answer::Polled(seen(Status::Processing)), now);
        assert_eq!(next.outcome, None);
        order = next.order;
        now = order.next_action_at.unwrap();
        assert_eq!(order.next_step(now), Some(Step::Poll));
    }
}

#[test]
fn a_state_that_goes_backwards_is_a_lagging_replica() {
    for earlier in [Status::Pending, Status::Ready] {
        let at_work = apply(open(Stage::Processing, &[]), Answer::Polled(seen(earlier)), START);
        let later = at_work.order.next_action_at.unwrap();
        assert_eq!(at_work.order.next_step(later), Some(Step::Poll), "{earlier:?}");
    }
    for earlier in [Status::Pending, Status::Ready, Status::Processing] {
        let mut there = open(Stage::Downloading, &[]);
        let mut now = START;
        while now < START + Duration::seconds(119) {
            there = apply(there, Answer::Polled(seen(earlier)), now).order;
            now = there.next_action_at.unwrap();
            assert_eq!(there.next_step(now), Some(Step::Download), "{earlier:?}");
        }
    }

    let forgotten = apply(
        open(Stage::Downloading, &[]),
        Answer::Polled(seen(Status::Ready)),
        START + Duration::minutes(2),
    );
    assert_eq!(forgotten.outcome, None);
    let now = START + Duration::minutes(2);
    assert_eq!(forgotten.order.next_step(now), Some(Step::Finalize), "no replica lags that long");
}

#[test]
fn a_csr_that_the_ca_never_takes_is_not_sent_for_ever() {
    let mut order = open(Stage::Finalizing, &[]);
    let mut now = START;
    let mut sent = 0;
    let outcome = loop {
        now = now.max(order.next_action_at.unwrap());
        let answer = match order.next_step(now).unwrap() {
            Step::Finalize => {
                sent += 1;
                failed(Class::Transient)
            }
            Step::Poll => Answer::Polled(seen(Status::Ready)),
            other => panic!("{other:?}"),
        };
        let next = apply(order, answer, now);
        if let Some(outcome) = next.outcome {
            break outcome;
        }
        assert!(next.order.last_error.is_some(), "what is wrong is said all along");
        order = next.order;
    };

    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert!(sent < 40, "{sent} times");
    assert!(now < START + Duration::hours(1));
}

#[test]
fn a_refused_proof_ends_the_order_and_is_cleaned_up() {
    let order = open(Stage::Validating, &[1]);

    let next = apply(order, Answer::Ended(failure(Class::Validation)), START);

    assert!(matches!(next.outcome, Some(Outcome::Failed(_))));
    assert_eq!(next.order.next_step(START), Some(Step::Solve(vec![(id(1), Action::CleanUp)])));
}

#[test]
fn a_wrong_token_blocks_the_order_and_says_why() {
    let order = open(Stage::Presenting, &[1]);
    let answer = solved(&[1], &challenge::Answer::Failed(failure(Class::Blocked)));

    let next = apply(order, answer, START);

    assert!(matches!(next.outcome, Some(Outcome::Blocked(_))));
    assert_eq!(next.order.last_error, Some(failure(Class::Blocked)));
}

#[test]
fn a_proof_that_nobody_sees_in_time_fails_with_what_was_seen() {
    let mut order = open(Stage::Presenting, &[1]);
    order.challenges[0].state = challenge::State::Presented;
    order.challenges[0].deadline = START + Duration::minutes(5);
    let not_seen = || {
        solved(
            &[1],
            &challenge::Answer::NotSeen(vec![
                Observation::seen("ns0", "has the record"),
                Observation::missing("ns1", "has no record"),
            ]),
        )
    };

    let next = apply(order, not_seen(), START);
    assert_eq!(next.order.next_action_at, Some(START + Duration::milliseconds(500)));
    let over = apply(next.order, not_seen(), START + Duration::minutes(5));

    let Some(Outcome::Failed(failure)) = over.outcome else { panic!("{:?}", over.outcome) };
    assert_eq!(failure.detail, "ns1 has no record");
}

#[test]
fn an_open_order_does_not_outlive_its_deadline() {
    let end = START + ORDER_DEADLINE;
    let order = Order { next_action_at: Some(end), ..open(Stage::Processing, &[1]) };

    assert_eq!(order.next_step(end), Some(Step::Poll), "there is a last look");
    let expired = apply(order, Answer::Polled(seen(Status::Processing)), end);

    assert!(matches!(expired.outcome, Some(Outcome::Failed(_))), "it counts: {expired:?}");
    assert!(matches!(expired.order.state, State::Done { end: End::Expired, .. }));

    let unheard = Order { next_action_at: Some(end), ..new() };
    assert!(unheard.has_expired(end), "there is nothing to look at");
    assert!(matches!(unheard.expire(end).outcome, Some(Outcome::Failed(_))));
}

#[test]
fn an_order_that_is_valid_at_the_last_look_is_fetched() {
    let asked = Seen { retry_at: Some(START + Duration::days(1)), ..seen(Status::Processing) };
    let mut order = apply(open(Stage::Finalizing, &[]), Answer::Polled(asked), START).order;

    assert_eq!(order.next_action_at, Some(START + Duration::minutes(5)), "polls come in minutes");
    order.next_action_at = Some(order.deadline);
    let end = order.deadline;
    let valid = apply(order, Answer::Polled(seen(Status::Valid)), end);

    assert_eq!((valid.outcome, valid.order.next_step(end)), (None, Some(Step::Download)));
}

#[test]
fn a_ca_that_never_ends_looking_is_inspected_and_given_up_after_an_hour() {
    let mut order = Order { next_action_at: Some(START), ..open(Stage::Validating, &[1]) };
    let said = || vec![("https://ca.example/chall/1".to_owned(), failure(Class::Transient))];
    let mut inspections = Vec::new();
    let (outcome, end) = loop {
        let now = order.next_action_at.unwrap();
        let answer = match order.next_step(now).unwrap() {
            Step::Poll => Answer::Polled(seen(Status::Pending)),
            Step::Inspect => {
                inspections.push((now - START).whole_minutes());
                Answer::Inspected(seen(Status::Pending), said())
            }
            other => panic!("{other:?}"),
        };
        let next = apply(order, answer, now);
        if let Some(outcome) = next.outcome {
            break (outcome, now);
        }
        if !inspections.is_empty() {
            assert_eq!(
                next.order.last_error.as_ref().unwrap().code,
                "cloudflare_refused",
                "it is shown"
            );
            assert!(next.order.challenges[0].reason.is_some());
        }
        order = next.order;
    };

    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.class, Class::Validation);
    assert!((60..62).contains(&(end - START).whole_minutes()), "{end}");
    assert!(inspections[0] == 2 && inspections.len() <= 7, "{inspections:?}");
}

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

#[test]
fn an_order_ends_when_the_ca_forgets_it_whatever_else_it_was_told_to_wait_for() {
    let expires = Some(START + Duration::hours(1));
    let known = Seen { expires, ..seen(Status::Pending) };
    let order = apply(new(), Answer::Created(URL.into(), known.clone()), START).order;
    assert_eq!((order.expires, order.deadline), (expires, START + Duration::hours(1)));

    let retry_at = Some(START + Duration::hours(5));
    for class in [Class::Throttle, Class::Transient] {
        let answer = Answer::Failed(Failure { retry_at, ..failure(class) });
        let waiting = apply(order.clone(), answer, START).order;
        let last = START + Duration::minutes(58);
        assert_eq!(waiting.next_action_at, Some(last), "{class:?}: there is time for a look");
        let late = apply(waiting, failed(Class::Transient), last).order;
        assert!(late.next_action_at <= expires);
    }

    // A CA may also say so later, or shorten it.
    let sooner = Seen { expires: Some(START + Duration::minutes(5)), ..known };
    let looked = apply(open(Stage::Validating, &[1]), Answer::Polled(sooner), START).order;
    assert_eq!(looked.deadline, START + Duration::minutes(5));
}

#[test]
fn a_proof_that_cannot_be_written_for_a_while_is_not_waited_for_past_the_orders_end() {
    let mut order = open(Stage::Presenting, &[1]);
    order.deadline = START + Duration::hours(1);
    let failure =
        Failure { retry_at: Some(START + Duration::hours(5)), ..failure(Class::Throttle) };

    let waiting = apply(order, solved(&[1], &challenge::Answer::Failed(failure)), START).order;

    assert_eq!(waiting.next_action_at, Some(START + Duration::hours(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever is answered, and wherever a crash comes (before a step has its effect, or after it
    /// and before that is saved): an order ends, by its deadline; then every proof is taken away
    /// again, or given up loudly; until then it always has a wake-up.
    #[test]
    fn no_order_gets_stuck(
        answers in prop::collection::vec((0_u8..20, 0.0_f64..1.0, 0_u8..4), 400),
        lives in prop::option::of(1_i64..30),
        kind_to_clean_up in any::<bool>(),
    ) {
        let mut order = new();
        let mut now = START;
        let mut outcomes = 0;
        let mut shown = HashSet::new();
        let mut left = HashSet::new();
        let seen = |status| Seen { expires: lives.map(|hours| START + Duration::hours(hours)), ..seen(status) };
        for (choice, chance, crash) in answers {
            let Some(at) = order.next_action_at else { break };
            prop_assert!(!order.is_over() || order.challenges.iter().any(|known| !known.clean));
            if !order.is_over() {
                let bound = (order.deadline + PACED).max(now + PACED);
                prop_assert!(at <= bound, "it sleeps past its deadline: {order:?}");
            }
            for known in order.challenges.iter().filter(|known| !known.clean) {
                prop_assert!(known.next_action_at.is_some() || !matches!(known.state, challenge::State::Pending | challenge::State::Presented));
            }
            now = now.max(at);
            if crash == 0 {
                // Nothing has happened; somebody else takes it up after the lease.
                now += Duration::minutes(2);
                continue;
            }
            let next = if order.has_expired(now) {
                order.clone().expire(now)
            } else {
                let Some(step) = order.next_step(now) else {
                    return Err(TestCaseError::fail(format!("due, but nothing to do: {order:?}")));
                };
                let answer = answer_to(&step, choice, now, seen);
                note_effects(&step, &answer, &mut shown);
                match order.clone().apply(answer, now, Jitter::new(chance)) {
                    Ok(next) => next,
                    Err(unexpected) => return Err(TestCaseError::fail(unexpected.to_string())),
                }
            };
            if crash == 1 {
                // It has happened, and is not remembered: the same step comes again after the lease.
                now += Duration::minutes(2);
                continue;
            }
            outcomes += usize::from(next.outcome.is_some());
            prop_assert!(outcomes <= 1, "an order ends once");
            left.extend(given_up(&next.events));
            order = next.order;
        }
        // From here on the world is kind to clean-up, or never; the order, if still open, times out.
        for _ in 0..1_000 {
            let Some(at) = order.next_action_at else { break };
            now = now.max(at);
            if !order.is_over() {
                now = now.max(order.deadline);
            }
            let next = if order.has_expired(now) {
                order.expire(now)
            } else if !order.is_over() {
                apply(order, failed(Class::Transient), now)
            } else {
                let Some(step) = order.next_step(now) else {
                    return Err(TestCaseError::fail("only clean-up is left"));
                };
                let Step::Solve(due) = &step else {
                    return Err(TestCaseError::fail("only clean-up is left"));
                };
                let done = if kind_to_clean_up {
                    challenge::Answer::CleanedUp
                } else {
                    challenge::Answer::Failed(failure(Class::Transient))
                };
                let answers = due.iter().map(|(id, _)| (*id, PATIENCE, done.clone()));
                let answer = Answer::Solved(answers.collect());
                note_effects(&step, &answer, &mut shown);
                order.apply(answer, now, Jitter::NONE).unwrap()
            };
            left.extend(given_up(&next.events));
            order = next.order;
        }
        prop_assert!(order.is_over());
        prop_assert!(order.next_action_at.is_none(), "{order:?}");
        prop_assert!(order.challenges.iter().all(|known| known.clean));
        prop_assert!(shown.is_subset(&left), "left behind in silence: {shown:?}, said: {left:?}");
    }
}

/// What a step leaves in the DNS. A write that failed may have been written all the same.
fn note_effects(step: &Step, answer: &Answer, shown: &mut HashSet<ChallengeId>) {
    let Step::Solve(due) = step else { return };
    let Answer::Solved(answers) = answer else {
        shown
            .extend(due.iter().filter(|(_, action)| *action == Action::Present).map(|(id, _)| *id));
        return;
    };
    for ((id, action), (_, _, answer)) in due.iter().zip(answers) {
        match (action, answer) {
            (Action::Present, _) => drop(shown.insert(*id)),
            (Action::CleanUp, challenge::Answer::CleanedUp) => drop(shown.remove(id)),
            _ => {}
        }
    }
}

/// The challenges whose proof was said to be left behind.
fn given_up(events: &[Event]) -> Vec<ChallengeId> {
    let loud = events.iter().filter(|event| event.message.contains("Left behind"));
    loud.filter_map(|event| match event.about {
        Resource::Challenge(id) => Some(id),
        _ => None,
    })
    .collect()
}

/// One of the answers that a step can get, good and bad.
fn answer_to(
    step: &Step,
    choice: u8,
    now: OffsetDateTime,
    seen: impl Fn(Status) -> Seen,
) -> Answer {
    let class = match choice {
        0 => Some(Class::Consistency),
        1 => Some(Class::Throttle),
        2 => Some(Class::Transient),
        3 => Some(Class::Conflict),
        4 => Some(Class::Gone),
        5 => Some(Class::Blocked),
        6 => Some(Class::Validation),
        _ => None,
    };
    // Now and then somebody asks to be left alone for longer than an order lives.
    let retry_at = match choice {
        1 => Some(now + Duration::minutes(10)),
        2 if now.minute().is_multiple_of(5) => Some(now + Duration::hours(50)),
        _ => None,
    };
    let bad = class.map(|class| Failure { retry_at, ..failure(class) });
    if let Step::Solve(due) = step {
        // Now and then the step as a whole comes to nothing.
        if let (Some(bad), true) = (&bad, due.len() > 1 && class != Some(Class::Blocked)) {
            return Answer::Failed(bad.clone());
        }
        let answers = (0_u8..).zip(due).map(|(place, (id, action))| {
            // Challenges of one order fare differently.
            let bad = bad.clone().filter(|_| choice % 2 == place % 2);
            let answer = match (&bad, action) {
                (Some(bad), _) => challenge::Answer::Failed(bad.clone()),
                (None, Action::Present) => challenge::Answer::Presented(Some(record())),
                (None, Action::Check) if choice.is_multiple_of(2) => {
                    challenge::Answer::NotSeen(vec![Observation::missing("", "no")])
                }
                (None, Action::Check) => challenge::Answer::Seen,
                (None, Action::CleanUp) => challenge::Answer::CleanedUp,
            };
            (*id, PATIENCE, answer)
        });
        return Answer::Solved(answers.collect());
    }
    if let Some(bad) = bad {
        return if choice == 6 && matches!(step, Step::Poll | Step::Inspect) {
            Answer::Ended(bad)
        } else {
            Answer::Failed(bad)
        };
    }
    let statuses = [Status::Pending, Status::Ready, Status::Processing, Status::Valid];
    let status = statuses[usize::from(choice) % 4];
    match step {
        Step::Create if choice == 7 => Answer::NotReplacing(failure(Class::Conflict)),
        Step::Create => Answer::Created(URL.into(), seen(status)),
        Step::ReadAuthorizations if choice > 15 => Answer::Authorizations(vec![]),
        Step::ReadAuthorizations => Answer::Authorizations(vec![challenge(1), challenge(2)]),
        Step::Accept => Answer::Accepted,
        Step::Poll | Step::Finalize => Answer::Polled(seen(status)),
        Step::Inspect => {
            let said = ("https://ca.example/chall/1".into(), failure(Class::Validation));
            Answer::Inspected(seen(status), vec![said])
        }
        Step::Download if choice.is_multiple_of(2) => Answer::Polled(seen(status)),
        Step::Download => Answer::Downloaded,
        Step::Solve(_) => unreachable!("answered above"),
    }
}

fn apply(order: Order, answer: Answer, now: OffsetDateTime) -> Transition {
    order.apply(answer, now, Jitter::NONE).unwrap()
}

fn solved(which: &[u128], answer: &challenge::Answer) -> Answer {
    Answer::Solved(which.iter().map(|n| (id(*n), PATIENCE, answer.clone())).collect())
}

fn failed(class: Class) -> Answer {
    Answer::Failed(failure(class))
}

fn failure(class: Class) -> Failure {
    Failure { class, ..Failure::of(code::CLOUDFLARE_REFUSED, "in their words") }
}

fn seen(status: Status) -> Seen {
    Seen { status, expires: None, retry_at: None }
}

fn id(n: u128) -> ChallengeId {
    ChallengeId(Uuid::from_u128(n))
}

fn record() -> Record {
    Record { name: "n".into(), value: "v".into(), zone: "z".into(), id: "r".into() }
}

fn open(stage: Stage, challenges: &[u128]) -> Order {
    Order {
        state: State::Open { url: URL.into(), stage },
        challenges: challenges.iter().map(|n| challenge(*n)).collect(),
        ..new()
    }
}

fn new() -> Order {
    fixtures::order(START)
}

fn challenge(n: u128) -> Challenge {
    fixtures::challenge(n, START)
}
