use time::macros::datetime;

use super::transitions::STEP_ENDS_WITHIN;
use super::*;
use crate::domain::challenge::{self, Action};
use crate::domain::failure::code;
use crate::domain::fixtures;

pub(super) const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

#[test]
fn a_cancelled_order_still_takes_its_records_away() {
    let cancelled = order([challenge::State::Pending, challenge::State::Presented])
        .cancel("its certificate was deleted", NOW)
        .order;

    assert!(cancelled.is_over());
    assert_eq!(cancelled.next_action_at, Some(NOW));
    let due = |at| cancelled.challenges.iter().map(|one| one.due(true, at)).collect::<Vec<_>>();
    assert_eq!(due(NOW), [None, Some(Action::CleanUp)], "the first may just be written");
    assert_eq!(due(NOW + STEP_ENDS_WITHIN), [Some(Action::CleanUp); 2]);
}

#[test]
fn cancelling_what_is_over_changes_nothing() {
    let once = order([]).cancel("first", NOW).order;
    let twice = once.clone().cancel("second", NOW);

    assert_eq!((twice.order, twice.outcome), (once, None));
}

#[test]
fn looks_that_found_nothing_new_do_not_lengthen_the_pause_after_the_first_trouble() {
    let mut waiting = order([]);
    let url = "https://ca.example/1".to_owned();
    waiting.state = State::Open { url, stage: Stage::Validating };
    let told = |order: Order, answer| order.apply(answer, NOW, Jitter::NONE).unwrap().order;
    let not_yet =
        || Answer::Polled(Seen { status: Status::Pending, expires: None, retry_at: None });
    let down = || Answer::Failed(Failure::of(code::ACME_UNAVAILABLE, "502"));
    for _ in 0..10 {
        waiting = told(waiting, not_yet());
    }

    let once = told(waiting, down());
    let twice = told(once.clone(), down());
    let again = told(twice.clone(), not_yet());

    assert_eq!(once.next_action_at, Some(NOW + Duration::seconds(5)));
    assert_eq!(twice.next_action_at, Some(NOW + Duration::seconds(10)));
    assert_eq!(again.next_action_at, Some(NOW + Duration::seconds(10)), "looks go on as they were");
    assert_eq!((again.tries, again.stalled_since), (2, Some(NOW)), "and nothing is forgotten");
}

#[test]
fn what_was_learned_says_when_to_poll_and_shortens_no_other_pause() {
    let ms = Duration::milliseconds;
    let at = |stage| Order {
        state: State::Open { url: "https://ca.example/1".into(), stage },
        ..order([challenge::State::Visible])
    };
    let seen = |status, asked: Option<Duration>| {
        Answer::Polled(Seen { status, expires: None, retry_at: asked.map(|pause| NOW + pause) })
    };
    let after = |waited: Duration, order: Order| Order { handed_out_at: NOW - waited, ..order };
    let validating = || after(ms(1_000), at(Stage::Validating));
    let polled =
        |polls, order: Order| Order { course: Course { polls, ..order.course.clone() }, ..order };
    let failed = |order| Order { tries: 1, stalled_since: Some(NOW), ..order };
    let finalized_before = |order: Order| Order {
        course: Course { reached: Some(Stage::Processing), polls: 3, ..order.course.clone() },
        ..order
    };
    let (pending, processing) = (Status::Pending, Status::Processing);
    for (what, order, answer, likely, expected) in [
        ("told to begin", at(Stage::Accepting), Answer::Accepted, ms(800), ms(800)),
        ("next door", at(Stage::Accepting), Answer::Accepted, ms(1), ms(3)),
        ("hours", at(Stage::Accepting), Answer::Accepted, Duration::HOUR, Duration::MINUTE),
        ("not yet", validating(), seen(pending, None), ms(1_100), ms(100)),
        ("soon again", validating(), seen(pending, None), ms(1_001), ms(15)),
        ("often seen", polled(20, validating()), seen(pending, None), ms(1_001), Duration::MINUTE),
        ("asked to wait", validating(), seen(pending, Some(ms(3_000))), ms(1_100), ms(3_000)),
        ("asked for less", validating(), seen(pending, Some(ms(50))), ms(1_100), ms(100)),
        (
            "after a failure",
            failed(polled(4, validating())),
            seen(pending, None),
            ms(1_001),
            ms(5_000),
        ),
        ("the CSR was taken", at(Stage::Finalizing), seen(processing, None), ms(400), ms(400)),
        (
            "asked then",
            at(Stage::Finalizing),
            seen(processing, Some(ms(3_000))),
            ms(400),
            ms(3_000),
        ),
        (
            "no progress",
            finalized_before(at(Stage::Finalizing)),
            seen(processing, None),
            ms(1),
            ms(1_600),
        ),
    ] {
        let conditions = Conditions { likely_done: Some(likely), ..Jitter::NONE.into() };
        let next = order.apply(answer, NOW, conditions).unwrap().order.next_action_at;
        assert_eq!(next, Some(NOW + expected), "{what}");
    }
}

#[test]
fn waiting_for_the_ca_takes_nothing_of_a_certificates_life() {
    let end = NOW + Duration::hours(2);
    let wanted = Order {
        state: State::New,
        not_after: Some(end),
        deadline: deadline(NOW, Some(end)),
        ..order([])
    };
    let throttled =
        Failure::of(code::ACME_RATE_LIMITED, "429").not_before(Some(NOW + Duration::hours(30)));
    let down = Failure::of(code::ACME_UNAVAILABLE, "502");
    let told = |failure| wanted.clone().apply(Answer::Failed(failure), NOW, Jitter::NONE);

    let waits = told(throttled).unwrap().order;
    assert_eq!(waits.not_after, Some(end + Duration::hours(30)), "nobody has heard of it");
    assert_eq!(waits.deadline, NOW + Duration::hours(31));
    let again = told(down).unwrap().order;
    assert_eq!(again.not_after, Some(end), "the CA may have heard of it");
    assert!(again.has_expired(NOW + Duration::hours(1)), "half a life is left for the next one");
}

/// One moment, which every view shows; nothing is added to it, however long it takes.
#[test]
fn a_new_order_comes_back_at_the_moment_that_was_named() {
    let until = NOW + Duration::hours(26);
    let why = Failure::of(code::ACME_RATE_LIMITED, "429").not_before(Some(until));
    for why in [why.clone().with_status(429), why] {
        let waits = Order { state: State::New, ..order([]) };
        let waits = waits.apply(Answer::Failed(why), NOW, Jitter::new(0.9)).unwrap().order;
        assert_eq!(waits.next_action_at, Some(until));
    }
}

/// Longer pauses would leave an order with bad luck behind at a CA that refuses a part of all requests.
#[test]
fn a_ca_that_breaks_its_promises_is_asked_more_seldom_but_soon() {
    let state = State::Open { url: "https://ca.example/1".into(), stage: Stage::Processing };
    let mut waits = Order { state, next_action_at: Some(NOW), ..order([]) };
    let (mut now, mut pauses) = (NOW, Vec::new());
    for _ in 0..8 {
        let busy = Failure::of(code::ACME_BUSY, "in a second");
        let busy = busy.with_status(503).not_before(Some(now + Duration::seconds(1)));
        waits = waits.apply(Answer::Failed(busy), now, Jitter::NONE).unwrap().order;
        let next = waits.next_action_at.unwrap();
        pauses.push((next - now).whole_seconds());
        now = next;
    }
    assert_eq!(pauses, [1, 1, 1, 5, 10, 15, 15, 15]);
}

#[test]
fn a_long_life_leaves_an_order_its_day() {
    assert_eq!(deadline(NOW, None), NOW + ORDER_DEADLINE);
    assert_eq!(deadline(NOW, Some(NOW + Duration::days(90))), NOW + ORDER_DEADLINE);
    assert_eq!(deadline(NOW, Some(NOW + Duration::hours(10))), NOW + Duration::hours(5));
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_failed_attempt() {
    let mut fetching = order([]);
    fetching.state = State::Open { url: "https://ca.example/1".into(), stage: Stage::Downloading };
    let bad = Failure::of(code::ACME_WRONG_KEY, "");

    let ended = fetching.apply(Answer::Failed(bad.clone()), NOW, Jitter::NONE).unwrap();

    assert_eq!(ended.outcome, Some(Outcome::Failed(bad)), "a fresh order would bring the same");
    assert!(
        matches!(ended.order.state, State::Done { end: End::Errored, .. }),
        "the CA calls it valid"
    );
}

/// Such a row without a URL could not be saved, and the order would be placed again and again.
#[test]
fn an_order_that_the_ca_never_had_is_not_one_that_it_found_invalid() {
    let refused = Failure::of(code::ACME_CAA, "no");
    let wanted = Order { state: State::New, ..order([]) };

    let ended = wanted.apply(Answer::Failed(refused.clone()), NOW, Jitter::NONE).unwrap();

    assert_eq!(ended.order.state, State::Done { url: None, end: End::Errored });
    assert_eq!(ended.outcome, Some(Outcome::Failed(refused)));
}

pub(super) fn order<const N: usize>(states: [challenge::State; N]) -> Order {
    Order {
        state: State::Open { url: "https://ca.example/1".into(), stage: Stage::Presenting },
        challenges: (1..).zip(states).map(|(place, state)| challenge(place, state)).collect(),
        ..fixtures::order(NOW)
    }
}

fn challenge(place: u128, state: challenge::State) -> Challenge {
    let deadline = NOW + Duration::minutes(5);
    Challenge { state, deadline, ..fixtures::challenge(place, NOW) }
}
