//! What an order becomes, whatever the outside world answers. No I/O, no clock: values only.

use certwright::domain::backoff::Jitter;
use certwright::domain::challenge::{self, Action, Challenge, Observation, ProofTimeouts, Record};
use certwright::domain::failure::{Class, Failure, code};
use certwright::domain::id::ChallengeId;
use certwright::domain::order::{
    Answer, Conditions, End, ORDER_DEADLINE, Order, Outcome, Seen, Stage, State, Status, Step,
    Transition,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::fixtures;

pub(super) const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
pub(super) const URL: &str = "https://ca.example/order/1";
/// What has been sent lately may delay a step by so much.
pub(super) const PACED: Duration = Duration::seconds(80);
pub(super) const PATIENCE: ProofTimeouts =
    ProofTimeouts { propagation: Duration::minutes(5), delay: Duration::ZERO, likely: None };

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
        let conditions = Conditions { requests: Some(requests), ..Jitter::NONE.into() };
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
fn an_end_that_has_passed_while_the_order_is_still_there_is_not_believed() {
    let passed = Some(START - Duration::days(5));
    let behind = |status| Seen { expires: passed, ..seen(status) };
    let created = apply(new(), Answer::Created(URL.into(), behind(Status::Pending)), START).order;
    let polled =
        apply(open(Stage::Validating, &[1]), Answer::Polled(behind(Status::Pending)), START);
    for order in [created, polled.order] {
        assert_eq!((order.expires, order.deadline > START), (None, true));
    }
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

pub(super) fn apply(order: Order, answer: Answer, now: OffsetDateTime) -> Transition {
    order.apply(answer, now, Jitter::NONE).unwrap()
}

fn solved(which: &[u128], answer: &challenge::Answer) -> Answer {
    Answer::Solved(which.iter().map(|n| (id(*n), PATIENCE, answer.clone())).collect())
}

pub(super) fn failed(class: Class) -> Answer {
    Answer::Failed(failure(class))
}

pub(super) fn failure(class: Class) -> Failure {
    Failure { class, ..Failure::of(code::CLOUDFLARE_REFUSED, "in their words") }
}

pub(super) fn seen(status: Status) -> Seen {
    Seen { status, expires: None, retry_at: None }
}

fn id(n: u128) -> ChallengeId {
    ChallengeId(Uuid::from_u128(n))
}

pub(super) fn record() -> Record {
    Record { name: "n".into(), value: "v".into(), zone: "z".into(), id: "r".into() }
}

fn open(stage: Stage, challenges: &[u128]) -> Order {
    Order {
        state: State::Open { url: URL.into(), stage },
        challenges: challenges.iter().map(|n| challenge(*n)).collect(),
        ..new()
    }
}

pub(super) fn new() -> Order {
    fixtures::order(START)
}

pub(super) fn challenge(n: u128) -> Challenge {
    fixtures::challenge(n, START)
}
