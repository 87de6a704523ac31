//! A circuit breaker for each CA and each DNS credential: whether it answers at all.
//!
//! After several failures in a row, from several orders, only one request at a time goes out; the
//! other orders are parked until the result is known. Each process has breakers of its own and loses
//! them with its end: the rows keep their wake-ups in the database.

use std::collections::HashMap;

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

use crate::domain::backoff;
use crate::domain::backoff::Jitter;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::OrderId;
use crate::telemetry::metrics::worker as metrics;

/// Failures in a row that open a breaker …
const FAILURES: usize = 10;
/// … when they come from at least so many orders: it is not the orders then.
const ORDERS: usize = 3;

/// A probe that has not come back after this long is given up; no step lasts longer.
const PROBE: Duration = Duration::seconds(100);

/// Pause of the orders that wait for another one's probe.
const PROBE_WAIT: Duration = Duration::seconds(2);

/// Upper bound for every pause.
const LONGEST: Duration = Duration::minutes(1);

/// Bounds the memory: beyond so many that do not answer, no further breaker is kept.
const MOST: usize = 1_000;

/// The breakers of this process, by the name of what is called.
#[derive(Default)]
pub(crate) struct Breakers(Mutex<HashMap<String, Breaker>>);

struct Breaker {
    /// The orders of the failures in a row, at most [`FAILURES`] of them.
    failed: Vec<OrderId>,
    last: Failure,
    open: Option<Open>,
}

struct Open {
    /// How often in a row a probe has failed.
    times: u32,
    until: OffsetDateTime,
    probe: Option<(OrderId, OffsetDateTime)>,
}

impl Breakers {
    /// Lets `order` call; the failure says what it waits for otherwise, and until when.
    pub(crate) fn admit(
        &self,
        called: &str,
        order: OrderId,
        now: OffsetDateTime,
    ) -> Result<(), Failure> {
        let mut breakers = self.0.lock();
        let Some(Breaker { open: Some(open), last, .. }) = breakers.get_mut(called) else {
            return Ok(());
        };
        let until = match open.probe {
            _ if now < open.until => open.until,
            Some((probing, ends)) if probing != order && now < ends => (now + PROBE_WAIT).min(ends),
            _ => {
                open.probe = Some((order, now + PROBE));
                return Ok(());
            }
        };
        Err(waiting(last).not_before(Some(until)))
    }

    /// Closes the breaker: an answer has come, whatever it says.
    pub(crate) fn answered(&self, called: &str) {
        let was = self.0.lock().remove(called);
        if was.is_some_and(|breaker| breaker.open.is_some()) {
            metrics::breaker_closed();
            tracing::info!(called, "answering again");
        }
    }

    /// Counts a call of `order` that was not answered.
    pub(crate) fn failed(
        &self,
        called: &str,
        order: OrderId,
        failure: &Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) {
        let mut breakers = self.0.lock();
        if breakers.len() >= MOST && !breakers.contains_key(called) {
            return;
        }
        let breaker = breakers.entry(called.to_owned()).or_insert_with(|| Breaker {
            failed: Vec::new(),
            last: failure.clone(),
            open: None,
        });
        breaker.last = failure.clone();
        match &mut breaker.open {
            // Calls that were under way when it opened say nothing new.
            Some(Open { probe, .. }) if probe.is_none_or(|(probing, _)| probing != order) => {}
            Some(open) => {
                open.times = open.times.saturating_add(1);
                open.until = now + pause(open.times, jitter);
                open.probe = None;
            }
            // A step with many names counts once.
            None if breaker.failed.last() == Some(&order) => {}
            None => {
                breaker.failed.push(order);
                let mut orders = breaker.failed.clone();
                orders.sort_unstable_by_key(|id| id.0);
                orders.dedup();
                if breaker.failed.len() >= FAILURES {
                    breaker.failed.remove(0);
                    if orders.len() >= ORDERS {
                        let until = now + pause(0, jitter);
                        breaker.open = Some(Open { times: 0, until, probe: None });
                        metrics::breaker_opened();
                        tracing::warn!(called, %failure, "not answering; one request at a time finds out when it does");
                    }
                }
            }
        }
    }
}

/// Whether a failure means that no answer came.
pub(super) fn is_silence(failure: &Failure) -> bool {
    failure.class == Class::Transient
        && !matches!(
            failure.known_code(),
            Some(
                code::ACME_CLIENT_BUSY
                | code::ISSUER_NOT_READY
                // An answer, to this one order.
                | code::ACME_REFUSED
                | code::ACME_MALFORMED
                | code::ACME_COMPOUND
                | code::ACME_UNKNOWN_STATUS
            )
        )
}

fn pause(times: u32, jitter: Jitter) -> Duration {
    backoff::transient(times, jitter).min(LONGEST)
}

/// What other orders are told. The failure's own words may be about names that are not theirs.
fn waiting(last: &Failure) -> Failure {
    let title = last.title.trim_end_matches('.');
    let why = match last.http_status {
        Some(status) => format!("{title} (HTTP {status})."),
        None => format!("{title}."),
    };
    Failure::of(code::CIRCUIT_OPEN, why)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn several_orders_failing_in_a_row_hold_all_the_others() {
        let breakers = opened();

        let waits = breakers.admit("ca", order(50), NOW).unwrap_err();

        assert_eq!(
            (waits.class, waits.retry_at),
            (Class::Throttle, Some(NOW + Duration::seconds(5)))
        );
        assert!(waits.detail.contains("502"), "the cause is shown: {waits}");
        assert!(!waits.detail.contains("a.example"), "and no other's words: {waits}");
        assert!(breakers.admit("other ca", order(50), NOW).is_ok(), "only whom it is about");
    }

    #[test]
    fn one_order_that_fails_again_and_again_holds_nobody() {
        let breakers = Breakers::default();
        (0..100).for_each(|_| fail(&breakers, 1, NOW));

        assert!(breakers.admit("ca", order(2), NOW).is_ok());
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let breakers = Breakers::default();
        for n in 0..50 {
            fail(&breakers, n, NOW);
            if n % 5 == 0 {
                breakers.answered("ca");
            }
        }
        assert!(breakers.admit("ca", order(99), NOW).is_ok());
    }

    #[test]
    fn one_probe_goes_out_and_its_success_lets_everybody_through() {
        let breakers = opened();
        let later = NOW + Duration::seconds(5);

        assert!(breakers.admit("ca", order(1), later).is_ok(), "the probe");
        let waits = breakers.admit("ca", order(2), later).unwrap_err();
        assert_eq!(waits.retry_at, Some(later + PROBE_WAIT));
        assert!(breakers.admit("ca", order(1), later).is_ok(), "the probe goes on");
        breakers.answered("ca");
        assert!(breakers.admit("ca", order(2), later).is_ok());
    }

    #[test]
    fn a_probe_that_fails_is_followed_by_one_after_a_longer_pause() {
        let breakers = opened();
        let mut now = NOW;
        let mut pauses = Vec::new();
        for n in 0..8 {
            let until = breakers.admit("ca", order(77), now).unwrap_err().retry_at.unwrap();
            pauses.push((until - now).whole_seconds());
            now = until;
            assert!(breakers.admit("ca", order(n), now).is_ok());
            fail(&breakers, n, now);
            fail(&breakers, n + 100, now);
        }
        assert_eq!(
            pauses,
            [5, 10, 20, 40, 60, 60, 60, 60],
            "and late failures of others count not"
        );
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let breakers = opened();
        let later = NOW + Duration::seconds(5);
        assert!(breakers.admit("ca", order(1), later).is_ok());

        assert!(breakers.admit("ca", order(2), later + PROBE - Duration::seconds(1)).is_err());
        assert!(breakers.admit("ca", order(2), later + PROBE).is_ok());
    }

    #[test]
    fn it_is_bounded() {
        let breakers = Breakers::default();
        for n in 0..2 * MOST {
            let called = n.to_string();
            breakers.failed(&called, order(1), &failure(), NOW, Jitter::NONE);
        }
        assert_eq!(breakers.0.lock().len(), MOST);
    }

    fn opened() -> Breakers {
        let breakers = Breakers::default();
        (0..10).for_each(|n| fail(&breakers, n, NOW));
        breakers
    }

    fn fail(breakers: &Breakers, n: u128, now: OffsetDateTime) {
        breakers.failed("ca", order(n), &failure(), now, Jitter::NONE);
    }

    fn order(n: u128) -> OrderId {
        OrderId(Uuid::from_u128(n))
    }

    fn failure() -> Failure {
        Failure::of(code::ACME_UNAVAILABLE, "for a.example").with_status(502)
    }
}
