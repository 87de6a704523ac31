//! Before the CA is asked: whether an order that shares a limit was told to wait, and whose turn it is.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use time::{Duration, OffsetDateTime};

use super::breaker::{Breakers, is_silence};
use super::budget;
use super::learned_waits::{LearnedWaits, Look, Work};
use super::order_gate::{OrderGates, Pass};
use super::order_window::NewOrders;
use super::quota::Quota;
use super::refused_requests::Limiters;
use crate::ca::Limiter;
use crate::clock::Clock;
use crate::domain::backoff::Jitter;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::order::{Answer, Order, Stage, Step};
use crate::domain::throttle::{Scope, told_to_others};
use crate::storage::{Db, StorageError, Tx, throttles};
use crate::worker::error::Tried;

/// How long the orders that share a limit wait where the CA names no time.
pub(crate) const UNNAMED: Duration = Duration::minutes(1);

/// How long an order that the CA has begun on goes on before it looks again whether others were told to
/// wait: what it is told itself it hears anyhow.
const UNDISTURBED: Duration = Duration::seconds(1);

/// Pause of an order that was not let through the gate.
const NEXT_PASS: Duration = Duration::seconds(2);

/// The limits of this process: the counters in its memory, which are bounded and of no consequence when
/// they are lost, and the limits in the database that all replicas share.
pub struct Limits {
    db: Db,
    clock: Arc<dyn Clock>,
    pub(crate) quota: Arc<Quota>,
    pub(crate) breakers: Breakers,
    order_gates: OrderGates,
    pub(crate) learned_waits: LearnedWaits,
    refused_requests: Limiters,
    /// Searches for orphaned records in a row that a provider put off.
    pub(crate) sweeps_put_off: AtomicU32,
}

impl Limits {
    /// Nothing is counted yet.
    pub fn new(db: &Db, clock: &Arc<dyn Clock>, quota: Quota, new_orders: NewOrders) -> Self {
        Self {
            db: db.clone(),
            clock: Arc::clone(clock),
            quota: Arc::new(quota),
            breakers: Breakers::default(),
            order_gates: OrderGates::new(new_orders),
            learned_waits: LearnedWaits::new(),
            refused_requests: Limiters::new(),
            sweeps_put_off: AtomicU32::new(0),
        }
    }

    /// The throttle that holds one of these buckets, told to an order that the CA did not tell itself.
    pub(crate) async fn throttle(&self, keys: &[String]) -> Result<Option<Failure>, StorageError> {
        let held = throttles::held(&mut self.db.read().await?, keys, self.clock.now()).await?;
        Ok(held.map(|(until, why)| told_to_others(why, until)))
    }

    /// The limiter of the requests that a CA refuses to an order's account.
    pub(crate) fn refused_requests(&self, issuer: &Issuer, order: &Order) -> Arc<Limiter> {
        self.refused_requests.of(issuer, order, self.clock.now())
    }
}

/// The state of a session's admission to the CA, from before the step until it is settled.
#[derive(Default)]
pub(crate) struct Admission {
    step: Admitted,
    /// When it was last asked whether anybody was told to wait.
    asked: Option<OffsetDateTime>,
    /// The CA's name among what is called.
    endpoint: Option<String>,
}

/// The part that is over once a step is settled.
#[derive(Default)]
struct Admitted {
    /// When the CA was asked.
    began: Option<OffsetDateTime>,
    pass: Option<Pass>,
    hold: Option<Hold>,
    /// The step was not taken at all.
    is_parked: bool,
}

/// A limit that the CA has just named: it is stored with the step's result.
struct Hold {
    key: String,
    scope: Scope,
    until: OffsetDateTime,
    why: Failure,
}

impl Admission {
    /// Refuses a step that the CA would refuse, or for which it is not the time.
    pub(crate) async fn admit(
        &mut self,
        limits: &Limits,
        step: &Step,
        issuer: &Issuer,
        order: &Order,
    ) -> Tried<()> {
        let refused = self.refusal(limits, step, issuer, order).await?;
        self.step.is_parked = refused.is_some();
        match refused {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    async fn refusal(
        &mut self,
        limits: &Limits,
        step: &Step,
        issuer: &Issuer,
        order: &Order,
    ) -> Result<Option<Failure>, StorageError> {
        let now = limits.clock.now();
        let asker = order.asker(issuer);
        let is_new = matches!(step, Step::Create);
        if is_new {
            // Also where a changed issuer had it look again at once.
            if let Some(at) = order.course.may_order_at().filter(|at| *at > now) {
                return Ok(Some(too_many(at)));
            }
            let Some(pass) = limits.order_gates.pass(asker.account, &order.namespace, now).await
            else {
                return Ok(Some(no_turn(limits.clock.now() + NEXT_PASS)));
            };
            // Its pass ends once a refusal is stored: whoever gets the next finds that.
            self.step.pass = Some(pass);
        }
        let now = limits.clock.now();
        if is_new || self.asked.is_none_or(|asked| now - asked >= UNDISTURBED) {
            let scopes = if is_new { asker.scopes() } else { vec![Scope::Endpoint] };
            let keys: Vec<_> = scopes.iter().map(|scope| asker.key(scope)).collect();
            let held = limits.throttle(&keys).await?;
            let goes_round =
                held.is_some() && is_new && goes_round(limits, order, issuer, now).await?;
            if let Some(failure) = held.filter(|_| !goes_round) {
                if is_new {
                    budget::leave_queue(&limits.db, issuer, order).await?;
                }
                return Ok(Some(failure));
            }
            self.asked = Some(now);
        }
        if is_new && let Some(spent) = budget::reserve(&limits.db, issuer, order, now).await? {
            return Ok(Some(spent));
        }
        self.step.began = Some(limits.clock.now());
        let endpoint = self.endpoint.get_or_insert_with(|| asker.key(&Scope::Endpoint));
        Ok(limits.breakers.admit(endpoint, order.id, now).err())
    }

    /// Takes note of what the CA's answer means for others.
    pub(crate) fn note(
        &mut self,
        limits: &Limits,
        step: &Step,
        answer: &Answer,
        issuer: &Issuer,
        order: &Order,
    ) {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| !self.step.is_parked) else {
            return;
        };
        note_silence(limits, endpoint, answer, order);
        self.learn(limits, endpoint, step, answer, order);
        let Answer::Failed(failure) = answer else {
            // There is nothing in the answer that another order would have to find stored.
            if let Some(pass) = self.step.pass.take() {
                pass.taken(limits.clock.now());
            }
            return;
        };
        let now = limits.clock.now();
        if let Some(pass) = self.step.pass.as_ref().filter(|_| is_too_much(failure)) {
            pass.refused(now, failure.retry_at.unwrap_or(now));
        }
        let Some(scope) = failure.scope.clone() else { return };
        let until = failure.retry_at.unwrap_or(now + UNNAMED);
        let key = order.asker(issuer).key(&scope);
        self.step.hold = Some(Hold { key, scope, until, why: failure.clone() });
    }

    fn learn(&self, limits: &Limits, ca: &str, step: &Step, answer: &Answer, order: &Order) {
        let (Answer::Polled(seen) | Answer::Inspected(seen, _)) = answer else { return };
        let (Step::Poll | Step::Inspect, Some(stage), Some(at)) =
            (step, order.awaits(), self.step.began)
        else {
            return;
        };
        let work = Work::of(order, ca, stage);
        let is_first = order.course.polls == 0;
        let look = Look { at_what: order.id.0, began: order.handed_out_at, at, is_first };
        limits.learned_waits.looked(&work, look, work.is_done(seen.status));
    }

    /// When what the CA was told to do is likely to be done, counted from its beginning.
    pub(crate) fn likely_done(
        &self,
        limits: &Limits,
        step: &Step,
        order: &Order,
    ) -> Option<Duration> {
        let (stage, waited) = match step {
            Step::Accept => (Stage::Validating, Duration::ZERO),
            Step::Finalize => (Stage::Processing, Duration::ZERO),
            Step::Poll | Step::Inspect => {
                (order.awaits()?, limits.clock.now() - order.handed_out_at)
            }
            _ => return None,
        };
        let work = Work::of(order, self.endpoint.as_ref()?, stage);
        Some(limits.learned_waits.likely(&work, waited))
    }

    /// Stores in the transaction that settles the step what others have to find.
    pub(crate) async fn store(&self, tx: &mut Tx, now: OffsetDateTime) -> Result<(), StorageError> {
        if let Some(Hold { key, scope, until, why }) = &self.step.hold {
            throttles::hold(tx, key, scope, *until, why, now).await?;
        }
        Ok(())
    }

    /// The step is settled: the order that waits for its pass finds what came of it.
    pub(crate) fn settled(&mut self) {
        self.step = Admitted::default();
    }
}

/// Whether a throttle of others need not hold this order: the CA does not count it (RFC 9773, section 5), unless it has
/// said otherwise to this very order. What a CA says of all its requests holds for everybody.
async fn goes_round(
    limits: &Limits,
    order: &Order,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<bool, StorageError> {
    let was_told = order
        .last_error
        .as_ref()
        .is_some_and(|failure| failure.class == Class::Throttle && failure.http_status.is_some());
    if was_told || !budget::is_exempt(&limits.db, order, now).await? {
        return Ok(false);
    }
    let everything = order.asker(issuer).key(&Scope::Endpoint);
    Ok(limits.throttle(&[everything]).await?.is_none())
}

/// Whether a CA that fails to take an order so may take it with fewer others at once.
fn is_too_much(failure: &Failure) -> bool {
    match &failure.scope {
        Some(Scope::Endpoint | Scope::Account) => true,
        Some(Scope::RegisteredDomain(_) | Scope::ExactSet | Scope::Name(_)) => false,
        None => {
            matches!(failure.http_status, Some(408 | 429 | 503 | 504))
                || failure.is(code::ACME_TIMEOUT)
                || failure.is(code::STEP_TIMED_OUT)
        }
    }
}

/// Takes note of whether the CA has answered at all.
fn note_silence(limits: &Limits, called: &str, answer: &Answer, order: &Order) {
    match answer {
        Answer::Failed(failure) if is_silence(failure) => {
            let now = limits.clock.now();
            limits.breakers.failed(called, order.id, failure, now, Jitter::random());
        }
        // Ours, before anything was sent.
        Answer::Failed(failure) if failure.http_status.is_none() => {}
        _ => limits.breakers.answered(called),
    }
}

fn too_many(at: OffsetDateTime) -> Failure {
    Failure::of(code::ACME_ORDERS_UNANSWERED, "It may have made them all the same.")
        .not_before(Some(at))
}

fn no_turn(at: OffsetDateTime) -> Failure {
    Failure::of(code::ACME_NO_TURN, "The CA is slow to answer them, or has refused one lately.")
        .not_before(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ca_has_too_much_of_is_told_by_its_limit_its_status_or_its_silence() {
        let limited = |scope| {
            let failure = Failure::of(code::ACME_RATE_LIMITED, "").with_status(429);
            Failure { scope: Some(scope), ..failure }
        };
        let refused = |status| Failure::of(code::ACME_UNAVAILABLE, "").with_status(status);
        for (failure, expected) in [
            (limited(Scope::Endpoint), true),
            (limited(Scope::Account), true),
            (limited(Scope::RegisteredDomain("example.com".into())), false),
            (limited(Scope::ExactSet), false),
            (limited(Scope::Name("www.example.com".into())), false),
            (refused(503), true),
            (refused(504), true),
            (refused(408), true),
            (refused(500), false),
            (refused(502), false),
            (Failure::of(code::ACME_TIMEOUT, ""), true),
            (Failure::of(code::STEP_TIMED_OUT, ""), true),
            (Failure::of(code::ACME_UNREACHABLE, ""), false),
            (Failure::of(code::ACME_REFUSALS_SPENT, ""), false),
            (Failure::of(code::ACME_ORDER_PACED, ""), false),
            (Failure::of(code::ACME_REFUSED, "").with_status(403), false),
        ] {
            assert_eq!(is_too_much(&failure), expected, "{failure:?}");
        }
    }
}
