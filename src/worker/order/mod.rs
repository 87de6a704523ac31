//! Carries orders through: the interpreter of the order machine.

mod after_step;
mod authorizations;
mod chains;
pub(crate) mod clean_up;
mod conclude;
mod count;
mod download;
mod session;
mod settle;
mod solving;
mod step;
mod traced;

use self::after_step::{AfterStep, Hold, Kind, Taken, after_step};
use self::count::Entered;
use self::session::Session;
use self::settle::{Before, settle};
use crate::domain::backoff::Jitter;
use crate::domain::certificate::Certificate;
use crate::domain::failure::Failure;
use crate::domain::id::OrderId;
use crate::domain::order::{Answer, Order, Transition};
use crate::storage::lease::Lease;
use crate::storage::{Scope, StorageError, orders};
use crate::telemetry::trace;
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
use crate::worker::limits::Share;

/// Steps in one run. An order that could go on for ever gives its slot back now and then.
const STEPS_PER_RUN: usize = 50;

/// An order that this process has just added under a lease, with what is known of its attempt.
pub(crate) struct Placed {
    pub(crate) order: Order,
    pub(crate) lease: Lease,
    /// DER.
    pub(crate) csr: Vec<u8>,
    pub(crate) certificate: (Certificate, Lease),
    /// Its part of the issuer's quota.
    pub(crate) share: Share,
}

pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let Some(order) = find_open(ctx, OrderId(lease.id)).await? else { return Ok(()) };
    Box::pin(take_steps(ctx, Session::new(ctx), order, lease)).await
}

/// Takes the first steps of an order that was placed just now.
pub(crate) async fn go_on(ctx: &Context, placed: Placed) -> Result<(), WorkerError> {
    let Placed { order, lease, csr, certificate, share: _share } = placed;
    let session = Session::knowing(ctx, csr, certificate);
    // On the heap: on top of all that came before, it is too large to be handed around.
    Box::pin(take_steps(ctx, session, order, lease)).await
}

/// A step failed inside: for the order that is a failure like any other.
pub(crate) async fn fail(
    ctx: &Context,
    id: OrderId,
    failure: Failure,
    held: &Lease,
) -> Result<bool, WorkerError> {
    // One that is over has nobody left to tell; its proofs are still to be taken away.
    let Some(order) = find_open(ctx, id).await? else { return Ok(false) };
    trace::enter(order.own_trace());
    let now = ctx.clock.now();
    let before = Before::step(&order);
    let transition = if order.has_expired(now) {
        order.expire(now)
    } else {
        order.apply(Answer::Failed(failure), now, Jitter::random())?
    };
    let session = Session::new(ctx);
    Box::pin(settle(&session, &transition, &before, held, Hold::Release)).await?;
    Ok(true)
}

/// An order that is under way. One that has ended meanwhile is cleaned up after with others.
async fn find_open(ctx: &Context, id: OrderId) -> Result<Option<Order>, StorageError> {
    let found = orders::find(&mut ctx.db.read().await?, id, &Scope::Everything).await?;
    Ok(found.map(|(order, _)| order).filter(|order| !order.is_over()).map(|order| {
        // The row shows when the lease runs out; it was claimed because it is due.
        Order { next_action_at: Some(ctx.clock.now()), ..order }
    }))
}

/// Takes step after step, until there is something to wait for that is not to come at once.
///
/// Each is settled in one transaction, but for those that may be taken again: what came of them is saved
/// with the next.
async fn take_steps(
    ctx: &Context,
    mut session: Session<'_>,
    mut order: Order,
    mut lease: Lease,
) -> Result<(), WorkerError> {
    trace::enter(order.own_trace());
    let mut before = Before::step(&order);
    // The lease was taken just now.
    let mut extended = ctx.clock.now();
    for _ in 0..STEPS_PER_RUN {
        let now = ctx.clock.now();
        let mut kind = Kind::Effect;
        let entered = Entered::of(&order);
        let transition = if order.has_expired(now) {
            order.expire(now)
        } else if let Some(next) = order.next_step(now) {
            kind = Kind::of(&next);
            let traced = traced::step(&next, &order);
            let (answer, conditions) = step::take(&mut session, next, &order).await?;
            traced.ended(&answer);
            order.apply(answer, ctx.clock.now(), conditions)?
        } else if order.next_action_at.is_some_and(|at| at > now) {
            // The clock is not where the timer is: the row tells the time.
            break;
        } else {
            // Due, but nothing to do: never leave such a row without a wake-up.
            Transition::waiting(order, now)
        };
        let now = ctx.clock.now();
        entered.until(&transition.order, now);
        let next = after_step(Taken {
            kind,
            is_remarkable: before.is_changed_by(&transition),
            is_last: transition.order.is_over() || ctx.stop.is_cancelled(),
            pause: transition.order.next_action_at.map(|at| at - now),
            lease_age: now - extended,
        });
        let (pause, hold) = match next {
            AfterStep::GoOn(pause) => {
                order = before.went_on(transition);
                wait(ctx, pause).await;
                continue;
            }
            AfterStep::SaveAndGoOn(pause, hold) => (Some(pause), hold),
            AfterStep::SaveAndRest => (None, Hold::Release),
        };
        lease = settle(&session, &transition, &before, &lease, hold).await?;
        session.admission.settled();
        order = transition.order;
        let Some(pause) = pause else { return Ok(()) };
        if hold == Hold::Extend {
            extended = now;
        }
        before = Before::step(&order);
        if !wait(ctx, pause).await {
            break;
        }
    }
    let rest = Transition { order, events: Vec::new(), outcome: None };
    settle(&session, &rest, &before, &lease, Hold::Release).await?;
    Ok(())
}

/// Waits, and says whether the service goes on.
async fn wait(ctx: &Context, pause: time::Duration) -> bool {
    let pause = std::time::Duration::try_from(pause).unwrap_or_default();
    pause.is_zero() || tokio::time::timeout(pause, ctx.stop.cancelled()).await.is_err()
}
