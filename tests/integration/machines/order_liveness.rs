//! No order gets stuck, whatever is answered and wherever a crash comes.

use std::collections::HashSet;

use certwright::domain::backoff::Jitter;
use certwright::domain::challenge::{self, Action, Observation};
use certwright::domain::event::{Event, Resource};
use certwright::domain::failure::{Class, Failure};
use certwright::domain::id::ChallengeId;
use certwright::domain::order::{Answer, Seen, Status, Step};
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use super::order::{
    PACED, PATIENCE, START, URL, apply, challenge, failed, failure, new, record, seen,
};

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
