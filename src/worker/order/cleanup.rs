//! Takes proofs away once their orders are over: those of many orders at once, in few calls of the DNS
//! provider and one transaction.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::session::{Session, Solving, Trouble, timed_out};
use crate::domain::challenge;
use crate::domain::challenge::{Action, Challenge};
use crate::domain::id::{ChallengeId, IssuerId};
use crate::domain::order::{Answer, Order, Step, Transition};
use crate::storage::lease::Lease;
use crate::storage::{StorageError, cleanups, events, orders};
use crate::worker::{SAVES, STEP_TIMEOUT, Worker, WorkerError};

/// Orders that are cleaned up after together: as many as make one call of the provider.
pub(in crate::worker) const TOGETHER: usize = 200;

/// What came of one order's clean-up.
struct Tidied {
    before: Vec<Challenge>,
    transition: Transition,
    lease: Lease,
}

impl Worker {
    /// Claims orders that are over and whose proofs are to be taken away.
    pub(in crate::worker) async fn orders_to_clean_up(
        &self,
    ) -> Result<Vec<(Order, Lease)>, StorageError> {
        let (owner, now) = (&self.settings.name, self.clock.now());
        let mut tx = self.db.begin();
        let claimed = cleanups::claim(&mut tx, owner, now, TOGETHER).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Takes their proofs away together; where that fails inside, each for itself, so that one that
    /// cannot be done keeps no other from it.
    pub(in crate::worker) async fn clean_up_all(&self, over: Vec<(Order, Lease)>) {
        let together = AssertUnwindSafe(self.clean_up(over.clone())).catch_unwind().await;
        match together {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "orders could not be cleaned up together; each is cleaned up by itself"
            ),
            Err(_) => tracing::error!("cleaning up panicked; each order is cleaned up by itself"),
        }
        for (order, lease) in over {
            Box::pin(self.see_through(&lease, self.clean_up(vec![(order, lease)]))).await;
        }
    }

    /// Takes their proofs away, and saves what came of it.
    async fn clean_up(&self, over: Vec<(Order, Lease)>) -> Result<(), WorkerError> {
        let mut of_issuer: HashMap<IssuerId, Vec<(Order, Lease)>> = HashMap::new();
        for (mut order, lease) in over {
            // The row shows when the lease runs out; it was claimed because it is due.
            order.next_action_at = Some(self.clock.now());
            of_issuer.entry(order.issuer).or_default().push((order, lease));
        }
        let tidied = join_all(of_issuer.into_values().map(|orders| self.tidy(orders))).await;
        let mut all = Vec::new();
        for tidied in tidied {
            all.extend(tidied?);
        }
        self.settle_clean_ups(all).await
    }

    /// Takes away the proofs of one issuer's orders.
    async fn tidy(&self, orders: Vec<(Order, Lease)>) -> Result<Vec<Tidied>, WorkerError> {
        let mut tx = self.db.read().await?;
        let known = orders.iter().flat_map(|(order, _)| &order.challenges).map(|known| known.id);
        let shared = cleanups::shared(&mut tx, known).await?;
        drop(tx);
        let mut session = Session::new(self);
        let mut jobs = Vec::with_capacity(orders.len());
        for (order, lease) in orders {
            let mut due = match order.next_step(self.clock.now()) {
                Some(Step::Solve(due)) => due,
                _ => Vec::new(),
            };
            // The others take theirs away.
            let kept: Vec<_> = due.extract_if(.., |(id, _)| shared.contains(id)).collect();
            let mut solving = match session.prepare(due.clone(), &order).await {
                Ok(solving) => solving,
                Err(trouble) => failed(&due, trouble)?,
            };
            for (id, _) in kept {
                solving.done(id, challenge::Answer::CleanedUp);
            }
            jobs.push(async move {
                let solved = tokio::time::timeout(STEP_TIMEOUT, solving.run()).await;
                (order, lease, solved)
            });
        }
        let mut tidied = Vec::with_capacity(jobs.len());
        for (order, lease, solved) in join_all(jobs).await {
            let answer = match solved {
                Ok(solved) => session.understand_solved(solved, &order),
                Err(_) => Answer::Failed(timed_out()),
            };
            let before = order.challenges.clone();
            let transition = order.apply(answer, self.clock.now(), crate::worker::jitter())?;
            tidied.push(Tidied { before, transition, lease });
        }
        Ok(tidied)
    }

    /// Saves all in one transaction, but for those that somebody else has changed meanwhile.
    async fn settle_clean_ups(&self, mut all: Vec<Tidied>) -> Result<(), WorkerError> {
        let mut tries = 0;
        while !all.is_empty() {
            match self.try_settle_clean_ups(&all).await {
                Ok(()) => break,
                Err(StorageError::LeaseLost(id)) if all.iter().any(|one| one.lease.id == id) => {
                    all.retain(|one| one.lease.id != id);
                }
                // What was done out there must not be forgotten because the database is busy.
                Err(StorageError::Unavailable(_)) if tries < SAVES => {
                    tries += 1;
                    crate::worker::pause().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn try_settle_clean_ups(&self, all: &[Tidied]) -> Result<(), StorageError> {
        let mut tx = self.db.begin();
        for Tidied { before, transition, lease } in all {
            let order = &transition.order;
            orders::save(&mut tx, order, before, lease, None).await?;
            let (namespace, certificate) = (&order.namespace, Some(order.certificate));
            let now = self.clock.now();
            events::record(&mut tx, namespace, certificate, &transition.events, now);
        }
        tx.commit().await
    }
}

/// What cannot be done for a reason that concerns all that is due.
fn failed(due: &[(ChallengeId, Action)], trouble: Trouble) -> Result<Solving, WorkerError> {
    let failure = match trouble {
        Trouble::Failed(failure) => failure,
        Trouble::Broken(WorkerError::Secret(error)) => crate::worker::unreadable(&error),
        Trouble::Broken(error) => return Err(error),
    };
    let mut solving = Solving::default();
    for (id, _) in due {
        solving.done(*id, challenge::Answer::Failed(failure.clone()));
    }
    Ok(solving)
}
