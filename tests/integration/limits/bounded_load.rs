//! However a CA answers, an order asks it no more than was promised. No I/O, no clock: values only.

use certwright::domain::backoff::Jitter;
use certwright::domain::challenge::{self, Action, Challenge, Observation, ProofTimeouts};
use certwright::domain::failure::{Class, Failure, code};
use certwright::domain::order::{
    Answer, Conditions, Order, Requests, Seen, State, Status, Step, Transition,
};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::support::fixtures;

const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const MINUTE: Duration = Duration::minutes(1);

/// What a call is answered, over and over.
#[derive(Debug, Clone)]
struct Habit {
    /// What it says, by turns.
    choices: Vec<u8>,
    /// `Retry-After`, in seconds from then.
    retry_after: Option<i64>,
    /// When orders expire, in seconds from then.
    expires: Option<i64>,
    /// Requests that each step takes, as far as it may.
    requests: u32,
}

fn habits() -> impl Strategy<Value = Vec<Habit>> {
    let seconds =
        || prop::option::of(prop_oneof![Just(0), 1..10_i64, 60..4_000_i64, Just(86_400), Just(-5)]);
    let habit = (prop::collection::vec(0..13_u8, 1..4), seconds(), seconds(), 1..40_u32).prop_map(
        |(choices, retry_after, expires, requests)| Habit {
            choices,
            retry_after,
            expires,
            requests,
        },
    );
    prop::collection::vec(habit, 8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_answers_make_an_order_ask_more_than_was_promised(
        names in 1..6_usize,
        habits in habits(),
        chance in 0.0..1.0_f64,
    ) {
        let mut order = order(names);
        let mut sent: Vec<(OffsetDateTime, u32)> = Vec::new();
        let mut now = START;
        for turn in 0.. {
            if order.is_over() {
                break;
            }
            let Some(at) = order.next_action_at else {
                return Err(TestCaseError::fail(format!("no wake-up: {order:?}")));
            };
            prop_assert!(at - START < Duration::days(35), "it never ends: {order:?}");
            now = now.max(at);
            if order.state == State::New && now - START > Duration::days(2) {
                // So does a worker that comes late: it would only go on like this for weeks.
                now += Duration::hours(12);
            }
            if order.has_expired(now) {
                prop_assert!(order.expire(now).order.is_over());
                break;
            }
            let Some(step) = order.next_step(now) else {
                order = Transition::waiting(order, now).order;
                continue;
            };
            let habit = &habits[place(&step)];
            let mut requests = order.course.requests.clone();
            if !matches!(step, Step::Solve(_)) {
                let count = habit.requests.min(requests.allowed(names, now));
                (0..count).for_each(|_| requests.count(now));
                sent.push((now, count));
            }
            let answer = answer(&step, habit, turn, now, names);
            let before = order.clone();
            let told = order.apply(answer, now, conditions(chance, requests));
            let told = told.map_err(|unexpected| TestCaseError::fail(unexpected.to_string()))?;
            order = told.order;
            if order.course.reached == before.course.reached && !order.is_over() {
                prop_assert!(order.tries >= before.tries, "failures were forgotten: {before:?}");
                prop_assert!(order.course.polls >= before.course.polls, "{before:?}");
                prop_assert!(before.stalled_since.is_none() || order.stalled_since == before.stalled_since);
            }
        }
        let (first, most, later) = (sent[0].0, 10 + 10 * names, 10 + names);
        prop_assert!(within(&sent, first) <= most, "{} at first", within(&sent, first));
        for (at, _) in sent.iter().filter(|(at, _)| *at - first >= MINUTE) {
            prop_assert!(within(&sent, *at) <= later, "{} from {at} on", within(&sent, *at));
        }
    }
}

/// Requests within the minute that begins then.
fn within(sent: &[(OffsetDateTime, u32)], from: OffsetDateTime) -> usize {
    let inside = sent.iter().filter(|(at, _)| *at >= from && *at - from < MINUTE);
    inside.map(|(_, count)| *count as usize).sum()
}

fn conditions(chance: f64, requests: Requests) -> Conditions {
    Conditions {
        jitter: Jitter::new(chance),
        // As soon as the machine lets it.
        likely_done: Some(Duration::ZERO),
        requests: Some(requests),
        bogus: None,
    }
}

fn place(step: &Step) -> usize {
    match step {
        Step::Create => 0,
        Step::ReadAuthorizations => 1,
        Step::Solve(_) => 2,
        Step::Accept => 3,
        Step::Poll => 4,
        Step::Inspect => 5,
        Step::Finalize => 6,
        Step::Download => 7,
    }
}

fn answer(step: &Step, habit: &Habit, turn: usize, now: OffsetDateTime, names: usize) -> Answer {
    let choice = habit.choices[turn % habit.choices.len()];
    let after = |seconds: Option<i64>| seconds.map(|seconds| now + Duration::seconds(seconds));
    let seen =
        |status| Seen { status, expires: after(habit.expires), retry_at: after(habit.retry_after) };
    if let Step::Solve(due) = step {
        let (propagation, delay) = (Duration::minutes(5), Duration::ZERO);
        let patience = ProofTimeouts { propagation, delay, likely: Some(Duration::ZERO) };
        let answer = |action| match (action, choice) {
            (Action::Present, _) => challenge::Answer::Presented(None),
            (Action::Check, 0) => {
                challenge::Answer::NotSeen(vec![Observation::missing("", "nothing")])
            }
            (Action::Check, _) => challenge::Answer::Seen,
            (Action::CleanUp, _) => challenge::Answer::CleanedUp,
        };
        let solved = due.iter().map(|(id, action)| (*id, patience, answer(*action)));
        return Answer::Solved(solved.collect());
    }
    let class = match choice {
        0 => Some(Class::Consistency),
        1 => Some(Class::Throttle),
        2 => Some(Class::Transient),
        3 | 4 => Some(Class::Conflict),
        5 if turn % 7 == 6 => Some(Class::Gone),
        6 if turn % 7 == 6 => Some(Class::Blocked),
        7 if turn % 7 == 6 => Some(Class::Validation),
        _ => None,
    };
    if let Some(class) = class {
        let failure =
            Failure { class, ..Failure::of(code::CLOUDFLARE_REFUSED, "no") }.with_status(403);
        return Answer::Failed(failure.not_before(after(habit.retry_after)));
    }
    let statuses = [Status::Pending, Status::Ready, Status::Processing, Status::Valid];
    let status = statuses[usize::from(choice) % 4];
    match step {
        Step::Create => Answer::Created("https://ca.example/order/1".into(), seen(status)),
        Step::ReadAuthorizations if choice == 5 => Answer::Authorizations(vec![]),
        Step::ReadAuthorizations => {
            Answer::Authorizations((1..=names).map(|n| challenge(n as u128)).collect())
        }
        Step::Accept => Answer::Accepted,
        Step::Inspect => Answer::Inspected(seen(status), vec![]),
        Step::Poll | Step::Finalize | Step::Download => Answer::Polled(seen(status)),
        Step::Solve(_) => unreachable!("answered above"),
    }
}

fn order(names: usize) -> Order {
    let names = (1..=names).map(|n| format!("{n}.example.com")).collect();
    Order { names, ..fixtures::order(START) }
}

fn challenge(n: u128) -> Challenge {
    fixtures::challenge(n, START)
}
