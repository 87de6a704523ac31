//! The request meter of a step: it counts every request to a CA, also those that a call repeats, and
//! withholds one too many.
//!
//! Two bounds apply: the order's requests in this minute ([`Requests`]), and the account's refused or
//! unanswered requests ([`Limiter`]).

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::limiter::{Limiter, Token};
use crate::domain::order::Requests;

/// The requests of one step.
pub struct Meter {
    names: usize,
    requests: Mutex<Requests>,
    limiter: OnceLock<Arc<Limiter>>,
    /// Tokens of requests that were refused for their nonce; the next try decides about their cost.
    for_nonces: Mutex<Vec<Token>>,
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// The order has sent what it may in this minute.
    Order {
        /// The time at which the order may send again.
        until: OffsetDateTime,
    },
    /// The CA refuses what the account sends, or does not answer.
    Account {
        /// The time of this request's turn.
        until: OffsetDateTime,
    },
}

/// The outcome of a request, as far as the meter is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Good,
    BadNonce,
    Refused,
}

tokio::task_local! {
    static METER: Arc<Meter>;
}

impl Meter {
    /// Makes the meter of an order with `names` names that has sent `requests` so far.
    pub fn new(names: usize, requests: Requests) -> Arc<Self> {
        Arc::new(Self {
            names,
            requests: Mutex::new(requests),
            limiter: OnceLock::new(),
            for_nonces: Mutex::default(),
        })
    }

    /// From here on refusals are at the cost of this account.
    pub fn at_the_cost_of(&self, limiter: Arc<Limiter>) {
        self.limiter.get_or_init(|| limiter);
    }

    /// The requests that the order has sent so far.
    pub fn requests(&self) -> Requests {
        self.requests.lock().clone()
    }

    /// Runs an operation whose requests are counted.
    pub async fn scope<F: Future>(self: &Arc<Self>, operation: F) -> F::Output {
        METER.scope(Arc::clone(self), operation).await
    }

    fn count(&self, now: OffsetDateTime) -> Result<(), Withheld> {
        let mut requests = self.requests.lock();
        if requests.allowed(self.names, now) == 0 {
            return Err(Withheld::Order { until: requests.free_at(self.names, 1, now) });
        }
        requests.count(now);
        Ok(())
    }
}

/// Asks whether the running step may send one more request. A step without a meter may.
pub(super) async fn admit(now: OffsetDateTime) -> Result<Option<Token>, Withheld> {
    let Ok(meter) = METER.try_with(Arc::clone) else { return Ok(None) };
    let token = match meter.limiter.get() {
        Some(limiter) => {
            Some(limiter.take(now).await.map_err(|until| Withheld::Account { until })?)
        }
        None => None,
    };
    if let Err(withheld) = meter.count(now) {
        // Nothing is sent for it.
        token.into_iter().for_each(Token::excuse);
        return Err(withheld);
    }
    Ok(token)
}

/// Records the outcome of an admitted request. A token that is not given back is spent.
pub(super) fn answered(token: Option<Token>, came: Came) {
    let Some(token) = token else { return };
    let Ok(meter) = METER.try_with(Arc::clone) else { return };
    let mut for_nonces = meter.for_nonces.lock();
    match came {
        Came::Good => {
            token.give_back();
            for_nonces.drain(..).for_each(Token::excuse);
        }
        Came::BadNonce => for_nonces.push(token),
        Came::Refused => {}
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::ca::call::{Asked, Call, Transport, Trouble};
    use crate::ca::classify::classify;
    use crate::domain::backoff::Jitter;
    use crate::domain::failure::{Failure, code};
    use crate::domain::fixtures;

    use crate::domain::limits::{Limit, Limits, Refusals};
    use crate::domain::order::{Answer, Conditions};

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[tokio::test]
    async fn one_request_too_many_is_not_sent() {
        let meter = Meter::new(1, Requests::default());

        let sent = meter.scope(async {
            let mut sent = 0;
            while admit(NOW).await.is_ok() {
                sent += 1;
            }
            sent
        });

        assert_eq!(sent.await, 20);
        assert_eq!(meter.requests().allowed(1, NOW), 0);
    }

    #[tokio::test]
    async fn a_nonce_that_was_refused_costs_nothing_once_the_next_is_taken() {
        // A new process begins with three of them, and earns one with each good answer.
        let limiter = Arc::new(Limiter::new(Refusals { at_once: 24, per_second: 0.001 }, NOW));
        let meter = Meter::new(9, Requests::default());
        meter.at_the_cost_of(limiter);

        let refused = meter.scope(async {
            for _ in 0..5 {
                answered(admit(NOW).await.unwrap(), Came::BadNonce);
                answered(admit(NOW).await.unwrap(), Came::Good);
            }
            let mut refused = 0;
            while let Ok(token) = admit(NOW).await {
                answered(token, Came::Refused);
                refused += 1;
            }
            refused
        });

        assert_eq!(refused.await, 8);
    }

    /// The whole of a process: each order has its own bound, and together they have the account's.
    #[tokio::test]
    async fn two_hundred_orders_at_a_ca_that_refuses_everything_send_what_was_set() {
        let limit = Limit { count: 300, per: "1m".into() };
        let limits = Limits { refused_requests: Some(limit), ..Limits::default() };
        let limiter = Arc::new(Limiter::new(limits.refusals(), NOW));
        let mut orders: Vec<_> = (0..200).map(|_| fixtures::order(NOW)).collect();
        let mut sent: Vec<OffsetDateTime> = Vec::new();
        let (mut now, mut parked) = (NOW, 0);
        while now < NOW + Duration::minutes(20) {
            let due = orders.iter().filter_map(|order| order.next_action_at).min().unwrap();
            now = now.max(due);
            for order in orders.iter_mut().filter(|order| order.next_step(now).is_some()) {
                let meter = Meter::new(1, order.course.requests.clone());
                meter.at_the_cost_of(Arc::clone(&limiter));
                let failure = meter.scope(refused(now, &mut sent)).await;
                parked += usize::from(failure.is(code::ACME_REFUSALS_SPENT));
                let conditions = Conditions {
                    jitter: Jitter::NONE,
                    likely_done: None,
                    requests: Some(meter.requests()),
                    bogus: None,
                };
                let told = order.clone().apply(Answer::Failed(failure), now, conditions);
                *order = told.unwrap().order;
            }
        }

        for from in &sent {
            let in_a_minute = sent.iter().filter(|at| *at >= from && **at - *from < MINUTE);
            assert!(in_a_minute.count() <= 300, "from {from} on");
        }
        assert!(sent.len() > 1_000, "it is tried all the while: {}", sent.len());
        assert!(parked > 0, "and some had to wait for their turn");
    }

    const MINUTE: Duration = Duration::minutes(1);

    /// A call that is put again as often as a CA may want, and is refused each time.
    async fn refused(now: OffsetDateTime, sent: &mut Vec<OffsetDateTime>) -> Failure {
        let asked = Asked::of(Call::NewOrder);
        for _ in 0..15 {
            match admit(now).await {
                Ok(token) => answered(token, Came::Refused),
                Err(withheld) => {
                    let trouble = Trouble::Transport(Transport::Withheld(withheld));
                    return classify(asked, &trouble);
                }
            }
            sent.push(now);
        }
        Failure::of(code::ACME_UNAVAILABLE, "no").with_status(500)
    }
}
