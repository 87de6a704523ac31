//! Takes proofs away once their orders are over: those of many orders at once, in few calls of the DNS
//! provider and one transaction.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::session::Session;
use super::solving::{Actions, answer, prepare};
use super::step::timed_out;
use crate::domain::backoff::Jitter;
use crate::domain::challenge::{self, Action, Challenge};
use crate::domain::id::{ChallengeId, IssuerId};
use crate::domain::order::{Answer, Order, Step, Transition};
use crate::storage::lease::Lease;
use crate::storage::{StorageError, cleanups, events, orders};
use crate::worker::context::{Context, SAVES, STEP_TIMEOUT, pause};
use crate::worker::error::{Trouble, WorkerError};

/// Orders that are cleaned up after together: as many as make one call of the provider.
pub(crate) const TOGETHER: usize = 200;

/// The result of one order's clean-up.
struct CleanedUp {
    before: Vec<Challenge>,
    transition: Transition,
    lease: Lease,
}

/// Takes away the proofs of orders that are over, and saves the result.
pub(crate) async fn run(ctx: &Context, over: Vec<(Order, Lease)>) -> Result<(), WorkerError> {
    let mut of_issuer: HashMap<IssuerId, Vec<(Order, Lease)>> = HashMap::new();
    for (mut order, lease) in over {
        // The row shows when the lease runs out; it was claimed because it is due.
        order.next_action_at = Some(ctx.clock.now());
        of_issuer.entry(order.issuer).or_default().push((order, lease));
    }
    let cleaned = join_all(of_issuer.into_values().map(|orders| clean_up(ctx, orders))).await;
    let mut all = Vec::new();
    for of_issuer in cleaned {
        all.extend(of_issuer?);
    }
    settle(ctx, all).await
}

/// Takes away the proofs of one issuer's orders.
async fn clean_up(
    ctx: &Context,
    orders: Vec<(Order, Lease)>,
) -> Result<Vec<CleanedUp>, WorkerError> {
    let mut tx = ctx.db.read().await?;
    let known = orders.iter().flat_map(|(order, _)| &order.challenges).map(|known| known.id);
    let shared = cleanups::shared(&mut tx, known).await?;
    drop(tx);
    let mut session = Session::new(ctx);
    let mut jobs = Vec::with_capacity(orders.len());
    for (order, lease) in orders {
        let mut due = match order.next_step(ctx.clock.now()) {
            Some(Step::Solve(due)) => due,
            _ => Vec::new(),
        };
        // Another challenge still needs these proofs; it takes them away itself.
        let kept: Vec<_> = due.extract_if(.., |(id, _)| shared.contains(id)).collect();
        let mut actions = match prepare(&mut session, due.clone(), &order).await {
            Ok(actions) => actions,
            Err(trouble) => failed(&due, trouble)?,
        };
        for (id, _) in kept {
            actions.done(id, challenge::Answer::CleanedUp);
        }
        jobs.push(async move {
            let results = tokio::time::timeout(STEP_TIMEOUT, actions.run()).await;
            (order, lease, results)
        });
    }
    let mut cleaned = Vec::with_capacity(jobs.len());
    for (order, lease, results) in join_all(jobs).await {
        let answer = match results {
            Ok(results) => answer(ctx, results, &order),
            Err(_) => Answer::Failed(timed_out()),
        };
        let before = order.challenges.clone();
        let transition = order.apply(answer, ctx.clock.now(), Jitter::random())?;
        cleaned.push(CleanedUp { before, transition, lease });
    }
    Ok(cleaned)
}

/// Saves all in one transaction, but for those that somebody else has changed meanwhile.
async fn settle(ctx: &Context, mut all: Vec<CleanedUp>) -> Result<(), WorkerError> {
    let mut tries = 0;
    while !all.is_empty() {
        match try_settle(ctx, &all).await {
            Ok(()) => break,
            Err(StorageError::LeaseLost(id)) if all.iter().any(|one| one.lease.id == id) => {
                all.retain(|one| one.lease.id != id);
            }
            // What was done out there must not be forgotten because the database is busy.
            Err(error) if error.is_passing() && tries < SAVES => {
                tries += 1;
                pause().await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn try_settle(ctx: &Context, all: &[CleanedUp]) -> Result<(), StorageError> {
    let mut tx = ctx.db.begin();
    for CleanedUp { before, transition, lease } in all {
        let order = &transition.order;
        orders::save(&mut tx, order, before, lease, None).await?;
        let (namespace, certificate) = (&order.namespace, Some(order.certificate));
        let now = ctx.clock.now();
        events::record(&mut tx, namespace, certificate, &transition.events, now);
    }
    tx.commit().await
}

/// Every action that is due has failed, for a reason that concerns them all.
fn failed(due: &[(ChallengeId, Action)], trouble: Trouble) -> Result<Actions, WorkerError> {
    let failure = trouble.into_failure()?;
    let mut actions = Actions::default();
    for (id, _) in due {
        actions.done(*id, challenge::Answer::Failed(failure.clone()));
    }
    Ok(actions)
}
