//! No machine gets stuck, whatever is answered and wherever a crash comes: certificates, challenges and
//! issuers; orders have their own file.

use certwright::domain::approval::{self, Decision};
use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{Certificate, Issued, State, Trigger};
use certwright::domain::challenge::{self, Action, Challenge, Observation, ProofTimeouts};
use certwright::domain::failure::{Class, Failure, code};
use certwright::domain::id::{IssuerId, OrderId, RequestId};
use certwright::domain::issuer::{self, Account, Issuer};
use certwright::domain::order::Outcome;
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::fixtures;

const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const PATIENCE: ProofTimeouts =
    ProofTimeouts { propagation: Duration::minutes(5), delay: Duration::seconds(10), likely: None };

/// A request that waits for approval.
const WAITS: RequestId = RequestId(Uuid::from_u128(1));

fn decision(verdict: approval::Verdict, now: OffsetDateTime) -> Decision {
    Decision { verdict, by: None, at: now, reason: "as agreed".into() }
}

/// Something that went wrong: which, and what the other side asked for.
fn trouble() -> impl Strategy<Value = Failure> {
    let classes = [
        Class::Consistency,
        Class::Throttle,
        Class::Transient,
        Class::Validation,
        Class::Conflict,
        Class::Gone,
        Class::Blocked,
    ];
    (prop::sample::select(classes.to_vec()), prop::option::of(-60_i64..200_000)).prop_map(
        |(class, seconds)| Failure {
            retry_at: seconds.map(|seconds| START + Duration::seconds(seconds)),
            class,
            ..Failure::of(code::CLOUDFLARE_REFUSED, "in their words")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// A certificate always has a wake-up, is never woken without something to do, and once it is
    /// asked for, an order follows as soon as its issuer is ready.
    #[test]
    fn no_certificate_gets_stuck(
        steps in prop::collection::vec((0_u8..10, trouble(), 0.0_f64..1.0, any::<bool>()), 60),
    ) {
        let mut one = certificate();
        let mut now = START;
        for (choice, failure, chance, crash) in steps {
            now = now.max(one.next_action_at);
            let jitter = Jitter::new(chance);
            let woken = one.clone().wake(now).certificate;
            let next = match woken.state {
                State::Triggered(_) | State::AwaitingIssuer(_) => match choice {
                    0 | 1 => woken.await_issuer("IssuerNotReady", "not ready", now).certificate,
                    2 | 3 if woken.request.is_none_or(|one| one != WAITS) => {
                        woken.await_approval(WAITS, now + Duration::hours(30), now).certificate
                    }
                    _ => woken.order_placed(RequestId(Uuid::nil()), OrderId(Uuid::nil()), now).certificate,
                },
                State::AwaitingApproval(_) => {
                    let verdict = match choice {
                        0..3 => approval::Verdict::Denied,
                        _ => approval::Verdict::Approved,
                    };
                    woken.decided(&decision(verdict, now), now).certificate
                }
                State::Ordering(_) => {
                    let outcome = match choice {
                        0 => Outcome::Lost(failure),
                        1 | 2 => Outcome::Failed(failure),
                        3 => Outcome::Blocked(failure),
                        _ => Outcome::Issued,
                    };
                    if outcome == Outcome::Issued {
                        woken.issued(issued(now), None, now).certificate
                    } else {
                        let after = woken.order_failed(outcome, u32::from(choice), now, jitter);
                        if let Some(at) = after.fresh_order_at {
                            prop_assert!(at >= now, "the successor has a wake-up");
                            prop_assert!(matches!(after.certificate.state, State::Ordering(_)));
                        }
                        after.certificate
                    }
                }
                // Woken too early, by a clock that was set: it goes back to sleep until its renewal.
                State::Idle => woken,
                // Denied: only somebody who asks makes it go on.
                State::Blocked if woken.last_error.as_ref().is_some_and(|it| it.is(code::REQUEST_DENIED)) => {
                    woken.trigger(Trigger::ManuallyTriggered, now).certificate
                }
                State::Backoff | State::Blocked => {
                    return Err(TestCaseError::fail(format!("woken, and nothing to do: {woken:?}")));
                }
            };
            if crash {
                now += Duration::minutes(2);
                continue;
            }
            prop_assert!(next.next_action_at >= now || next.state == State::Idle, "{next:?}");
            let latest = match next.state {
                State::Idle => next.current.as_ref().unwrap().not_after,
                // A failed attempt waits as the schedule says, or as long as the CA asked for.
                _ => (now + Duration::hours(36)).max(START + Duration::days(4)),
            };
            prop_assert!(next.next_action_at <= latest, "{next:?}");
            one = next;
        }
        // Whatever was: once the world is kind, it is issued.
        for _ in 0..6 {
            now = now.max(one.next_action_at);
            let woken = one.wake(now).certificate.trigger(Trigger::ManuallyTriggered, now).certificate;
            one = match woken.state {
                State::AwaitingApproval(_) => {
                    woken.decided(&decision(approval::Verdict::Approved, now), now).certificate
                }
                State::Ordering(_) => woken.issued(issued(now), None, now).certificate,
                State::Idle => woken,
                _ => woken.order_placed(RequestId(Uuid::nil()), OrderId(Uuid::nil()), now).certificate,
            };
        }
        prop_assert!(one.current.is_some());
    }

    /// A challenge is proved or fails by its deadline, and is then cleaned up, or given up loudly.
    #[test]
    fn no_challenge_gets_stuck(
        steps in prop::collection::vec((0_u8..8, trouble(), 0.0_f64..1.0, 0_u8..4), 80),
    ) {
        let mut one = challenge();
        let mut now = START;
        let mut is_over = false;
        let mut shown = false;
        let mut loud = false;
        let mut steps = steps.into_iter();
        for _ in 0..2_000 {
            let Some(at) = one.next_action_at else { break };
            prop_assert!(at <= one.deadline.max(now) || one.state == challenge::State::Visible, "{one:?}");
            now = now.max(at);
            let Some(action) = one.due(is_over, now) else {
                // Its order is proved and ends.
                prop_assert!(one.state == challenge::State::Visible, "{one:?}");
                is_over = true;
                one.schedule_clean_up(now);
                continue;
            };
            // When the answers run out, nothing works any more.
            let (choice, failure, chance, crash) = steps.next().unwrap_or((
                0,
                Failure::of(code::ACME_UNAVAILABLE, "for good"),
                0.0,
                3,
            ));
            if crash == 0 {
                now += Duration::minutes(2);
                continue;
            }
            let answer = match (choice, action) {
                (0..3, _) => challenge::Answer::Failed(failure),
                (_, Action::Present) => challenge::Answer::Presented(None),
                (3..6, Action::Check) => {
                    challenge::Answer::NotSeen(vec![Observation::missing("ns1", "has none")])
                },
                (_, Action::Check) => challenge::Answer::Seen,
                (_, Action::CleanUp) => challenge::Answer::CleanedUp,
            };
            match (action, &answer) {
                (Action::Present, _) => shown = true,
                (Action::CleanUp, challenge::Answer::CleanedUp) => shown = false,
                _ => {}
            }
            let (next, events, fatal) = one.clone().apply(answer, PATIENCE, now, Jitter::new(chance));
            if crash == 1 {
                now += Duration::minutes(2);
                continue;
            }
            loud |= events.iter().any(|event| event.message.contains("Left behind"));
            one = next;
            if fatal.is_some() {
                is_over = true;
                one.schedule_clean_up(now);
            }
        }
        prop_assert!(is_over && one.clean && one.next_action_at.is_none(), "{one:?}");
        prop_assert!(!shown || loud, "left behind in silence");
    }

    /// An issuer is registered as soon as its CA lets it; until then it tries, at least daily, and no
    /// earlier than it was asked to.
    #[test]
    fn no_issuer_gets_stuck(
        steps in prop::collection::vec((any::<bool>(), trouble(), 0.0_f64..1.0, any::<bool>()), 40),
    ) {
        let mut one = issuer();
        let mut now = START;
        for (well, failure, chance, crash) in steps {
            let Some(at) = one.next_action_at else {
                prop_assert!(one.state == issuer::State::Ready && one.account.is_some());
                one = one.reconsidered(now).issuer;
                continue;
            };
            now = now.max(at);
            let asked = failure.retry_at;
            let next = if well {
                let account = Account { url: "u".into(), server: "s".into(), email: None };
                one.clone().registered(account, now).issuer
            } else {
                let next = one.clone().not_registered(failure, now, Jitter::new(chance)).issuer;
                let at = next.next_action_at.unwrap();
                prop_assert!(at > now && asked.is_none_or(|asked| at >= asked));
                prop_assert!(at <= (now + Duration::hours(27)).max(START + Duration::days(3)), "{at}");
                next
            };
            if crash {
                now += Duration::minutes(2);
                continue;
            }
            one = next;
        }
        prop_assert!(one.state == issuer::State::Ready || one.next_action_at.is_some());
    }
}

fn issued(now: OffsetDateTime) -> Issued {
    Issued {
        revision: 1,
        serial: "0a".into(),
        not_before: now,
        not_after: now + Duration::days(90),
        renewal_time: now + Duration::days(60),
    }
}

fn certificate() -> Certificate {
    fixtures::certificate(START)
}

fn challenge() -> Challenge {
    fixtures::challenge(1, START)
}

#[test]
fn an_account_that_is_denied_is_not_registered_over_and_over() {
    let account = Account { url: "u".into(), server: "s".into(), email: None };
    let registered = issuer().registered(account, START).issuer;

    let soon = registered.clone().denied(START + Duration::seconds(5)).issuer;
    let late = registered.denied(START + Duration::days(3)).issuer;

    assert_eq!(soon.next_action_at, Some(START + Duration::minutes(10)));
    assert_eq!(late.next_action_at, Some(START + Duration::days(3)), "at once");
    assert_eq!(late.state, issuer::State::Pending);
}

fn issuer() -> Issuer {
    let acme = r#"{"server": "https://ca.example/dir", "solvers": [{"http01": {}}]}"#;
    Issuer {
        id: IssuerId(Uuid::nil()),
        kind: issuer::Kind::ClusterIssuer,
        namespace: String::new(),
        name: "le".into(),
        acme: serde_json::from_str(acme).unwrap(),
        generation: 1,
        state: issuer::State::Pending,
        state_since: START,
        account: None,
        account_change: None,
        tries: 0,
        last_error: None,
        created_at: START,
        next_action_at: Some(START),
    }
}
