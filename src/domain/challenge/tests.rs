use time::macros::datetime;

use super::*;
use crate::domain::fixtures;

const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
const PATIENCE: ProofTimeouts =
    ProofTimeouts { propagation: Duration::MINUTE, delay: Duration::ZERO, likely: None };

fn challenge(state: State) -> Challenge {
    Challenge { state, ..fixtures::challenge(1, NOW) }
}

fn failure(class: Class, status: Option<u16>, asked: Option<Duration>) -> Failure {
    let failure = Failure {
        class,
        ..Failure::of(code::CLOUDFLARE_REFUSED, "Nobody knows why").titled("It did not work")
    };
    Failure { http_status: status, retry_at: asked.map(|wait| NOW + wait), ..failure }
}

/// The pauses until it ends, and the failure that ended the order.
fn tried(mut tried: Challenge, failed: &Failure) -> (Vec<Duration>, Option<Failure>) {
    let (mut now, mut pauses) = (NOW, Vec::new());
    loop {
        let asked = failed.retry_at.map(|at| now + (at - NOW));
        let answer = Answer::Failed(failed.clone().not_before(asked));
        let (next, _, fatal) = tried.apply(answer, PATIENCE, now, Jitter::NONE);
        let Some(at) = next.next_action_at else { return (pauses, fatal) };
        pauses.push(at - now);
        (now, tried) = (at, next);
    }
}

#[test]
fn a_provider_that_says_later_without_a_time_is_asked_ever_more_seldom() {
    for asked in [None, Some(Duration::ZERO), Some(-Duration::HOUR)] {
        let later = failure(Class::Throttle, Some(429), asked);
        let (pauses, _) = tried(challenge(State::Pending), &later);

        assert_eq!(pauses[..3], [5, 10, 20].map(Duration::seconds), "{asked:?}");
        assert!(pauses.len() < 300, "{}", pauses.len());
    }
    let (pauses, _) = tried(
        challenge(State::Pending),
        &failure(Class::Throttle, Some(429), Some(Duration::HOUR)),
    );
    assert_eq!(pauses[0], Duration::HOUR, "never sooner than it asks");
}

#[test]
fn waiting_for_our_own_budget_takes_as_long_as_that() {
    let held = failure(Class::Throttle, None, Some(Duration::seconds(2)));
    let (next, _, _) =
        challenge(State::Pending).apply(Answer::Failed(held), PATIENCE, NOW, Jitter::NONE);
    assert_eq!(next.next_action_at, Some(NOW + Duration::seconds(2)));
}

#[test]
fn a_record_that_is_not_seen_is_looked_for_when_it_is_likely_to_be_there() {
    let (ms, s) = (Duration::milliseconds, Duration::seconds);
    for (waited, tries, likely, expected) in [
        (ms(100), 0, None, ms(500)),
        (ms(100), 0, Some(ms(400)), ms(300)),
        (ms(100), 0, Some(s(40)), s(10)),
        (s(5), 0, Some(ms(5_001)), ms(75)),
        (s(5), 30, Some(ms(5_001)), s(10)),
        (s(58), 2, Some(s(63)), s(2)),
    ] {
        let shown = Challenge {
            tries,
            deadline: NOW - waited + PATIENCE.propagation,
            ..challenge(State::Presented)
        };
        let timeouts = ProofTimeouts { likely, ..PATIENCE };
        let (next, ..) = shown.apply(Answer::NotSeen(vec![]), timeouts, NOW, Jitter::NONE);
        assert_eq!(next.next_action_at, Some(NOW + expected), "{waited}, {likely:?}");
    }
}

#[test]
fn a_refusal_that_nobody_knows_fails_the_attempt_within_about_an_hour() {
    let refused = failure(Class::Transient, Some(400), None);
    let (pauses, fatal) = tried(challenge(State::Pending), &refused);

    let total: Duration = pauses.iter().sum();
    assert!((40..90).contains(&total.whole_minutes()), "{total}");
    assert_eq!(fatal.map(|failure| failure.class), Some(Class::Transient), "not for a person");
    let (pauses, _) = tried(challenge(State::Pending), &failure(Class::Transient, None, None));
    let total: Duration = pauses.iter().sum();
    assert_eq!(total, Duration::hours(24), "who is silent is waited for");
}

#[test]
fn taking_away_is_tried_for_a_day_and_ever_more_seldom() {
    for class in [Class::Transient, Class::Blocked, Class::Conflict, Class::Throttle] {
        let (pauses, fatal) = tried(challenge(State::Valid), &failure(class, Some(403), None));

        let total: Duration = pauses.iter().sum();
        assert_eq!((total, fatal), (Duration::hours(24), None));
        assert!(pauses.len() < 40, "{class:?}: {}", pauses.len());
    }
}
