//! What an order becomes, whatever the outside world answers. No I/O, no clock: values only.

use certwright::domain::backoff::Jitter;
use certwright::domain::challenge::{self, Action, Challenge, Kind, Patience, Record};
use certwright::domain::failure::{Class, Failure};
use certwright::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};
use certwright::domain::order::{
    Answer, End, ORDER_DEADLINE, Order, Outcome, Seen, Stage, State, Status, Step, Transition,
};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const URL: &str = "https://ca.example/order/1";
const PATIENCE: Patience = Patience { propagation: Duration::minutes(5), delay: Duration::ZERO };

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
        Answer::Looked(seen(Status::Ready)),
        Answer::Looked(seen(Status::Processing)),
        Answer::Looked(seen(Status::Valid)),
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
        let next = apply(order, failed(Class::Consistency), now);
        assert_eq!(next.outcome, None, "not while a replica may lag");
        order = next.order;
        let at = order.next_action_at.unwrap();
        waits.push((at - now).whole_milliseconds());
        now = at;
    }

    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000]);
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

    let valid = apply(next.clone(), Answer::Looked(seen(Status::Valid)), START).order;
    assert_eq!(valid.next_step(START), Some(Step::Download), "it had arrived");

    let soon = apply(next.clone(), Answer::Looked(seen(Status::Ready)), START).order;
    assert_eq!(
        soon.next_step(soon.next_action_at.unwrap()),
        Some(Step::Poll),
        "perhaps a lagging replica"
    );

    let later = START + Duration::seconds(11);
    let lost = apply(next, Answer::Looked(seen(Status::Ready)), later).order;
    assert_eq!(lost.next_step(later), Some(Step::Finalize), "it had not");
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
            Step::Poll => Answer::Looked(seen(Status::Ready)),
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
    let not_seen = || solved(&[1], &challenge::Answer::NotSeen("ns1 has no record".into()));

    let next = apply(order, not_seen(), START);
    assert_eq!(next.order.next_action_at, Some(START + Duration::milliseconds(500)));
    let over = apply(next.order, not_seen(), START + Duration::minutes(5));

    let Some(Outcome::Failed(failure)) = over.outcome else { panic!("{:?}", over.outcome) };
    assert_eq!(failure.detail, "ns1 has no record");
}

#[test]
fn an_open_order_does_not_outlive_its_deadline() {
    let order = open(Stage::Validating, &[1]);

    assert!(order.has_expired(START + ORDER_DEADLINE));
    let expired = order.expire(START + ORDER_DEADLINE);

    assert!(matches!(expired.outcome, Some(Outcome::Lost(_))));
    assert!(matches!(expired.order.state, State::Done { end: End::Expired, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever is answered, and however often a crash throws an answer away: an order ends, and
    /// then every proof is taken away again; until then it always has a wake-up.
    #[test]
    fn no_order_gets_stuck(answers in prop::collection::vec((0_u8..20, 0.0_f64..1.0, any::<bool>()), 400)) {
        let mut order = new();
        let mut now = START;
        let mut outcomes = 0;
        for (choice, chance, crash) in answers {
            let Some(at) = order.next_action_at else { break };
            prop_assert!(!order.is_over() || order.challenges.iter().any(|known| !known.clean));
            now = now.max(at);
            let next = if order.has_expired(now) {
                order.clone().expire(now)
            } else {
                let Some(step) = order.next_step(now) else {
                    return Err(TestCaseError::fail(format!("due, but nothing to do: {order:?}")));
                };
                let answer = answer_to(&step, choice, now);
                match order.clone().apply(answer, now, Jitter::new(chance)) {
                    Ok(next) => next,
                    Err(unexpected) => return Err(TestCaseError::fail(unexpected.to_string())),
                }
            };
            if crash {
                // The answer was never stored: the same step comes again after the lease.
                now += Duration::minutes(2);
                continue;
            }
            outcomes += usize::from(next.outcome.is_some());
            prop_assert!(outcomes <= 1, "an order ends once");
            order = next.order;
        }
        // From here on the world is kind to clean-up, and the order, if still open, times out.
        for _ in 0..100 {
            let Some(at) = order.next_action_at else { break };
            now = now.max(at).max(order.deadline);
            order = if order.has_expired(now) {
                order.expire(now).order
            } else {
                let Some(Step::Solve(due)) = order.next_step(now) else {
                    return Err(TestCaseError::fail("only clean-up is left"));
                };
                let answers =
                    due.into_iter().map(|(id, _)| (id, PATIENCE, challenge::Answer::CleanedUp));
                order.apply(Answer::Solved(answers.collect()), now, Jitter::NONE).unwrap().order
            };
        }
        prop_assert!(order.is_over());
        prop_assert!(order.next_action_at.is_none());
        prop_assert!(order.challenges.iter().all(|known| known.clean));
    }
}

/// One of the answers that a step can get, good and bad.
fn answer_to(step: &Step, choice: u8, now: OffsetDateTime) -> Answer {
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
    let retry_at = (choice == 1).then_some(now + Duration::minutes(10));
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
                    challenge::Answer::NotSeen("no".into())
                }
                (None, Action::Check) => challenge::Answer::Seen,
                (None, Action::CleanUp) => challenge::Answer::CleanedUp,
            };
            (*id, PATIENCE, answer)
        });
        return Answer::Solved(answers.collect());
    }
    if let Some(bad) = bad {
        return if choice == 6 && *step == Step::Poll {
            Answer::Ended(bad)
        } else {
            Answer::Failed(bad)
        };
    }
    let statuses = [Status::Pending, Status::Ready, Status::Processing, Status::Valid];
    let status = statuses[usize::from(choice) % 4];
    match step {
        Step::Create => Answer::Created(URL.into(), seen(status)),
        Step::ReadAuthorizations if choice > 15 => Answer::Authorizations(vec![]),
        Step::ReadAuthorizations => Answer::Authorizations(vec![challenge(1), challenge(2)]),
        Step::Accept => Answer::Accepted,
        Step::Poll | Step::Finalize => Answer::Looked(seen(status)),
        Step::Download if choice.is_multiple_of(2) => Answer::NotThereYet,
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
    Failure::new(class, "some_code", "It did not work", "in their words")
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
    Order {
        id: OrderId(Uuid::nil()),
        name: "a-1-00000000".into(),
        certificate: CertificateId(Uuid::nil()),
        request: RequestId(Uuid::nil()),
        issuer: IssuerId(Uuid::nil()),
        namespace: "default".into(),
        names: vec!["a.example.com".into()],
        profile: None,
        predecessors: 0,
        state: State::New,
        expires: None,
        challenges: vec![],
        tries: 0,
        stalled_since: None,
        attempts: 0,
        last_error: None,
        created_at: START,
        handed_out_at: START,
        next_action_at: Some(START),
        deadline: START + ORDER_DEADLINE,
    }
}

fn challenge(n: u128) -> Challenge {
    Challenge {
        id: id(n),
        authorization_url: format!("https://ca.example/authz/{n}"),
        url: format!("https://ca.example/chall/{n}"),
        domain: format!("{n}.example.com"),
        wildcard: false,
        kind: Kind::Dns01,
        solver: 0,
        token: "token".into(),
        key_authorization: "token.thumbprint".into(),
        state: challenge::State::Pending,
        record: None,
        clean: false,
        tries: 0,
        reason: None,
        next_action_at: Some(START),
        deadline: START + ORDER_DEADLINE,
    }
}
