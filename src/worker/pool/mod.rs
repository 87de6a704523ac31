//! The pool: claims what is due as far as there are slots, and sees its steps through.

mod claim;
mod clock_watch;
mod deliveries;
mod handoff;
mod heartbeat;
mod internal_failure;
mod paused;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::claim::{Look, Work};
use self::internal_failure::{InternalFailures, unpanicked};
use self::slots::Slots;
use crate::domain::order::Order;
use crate::storage::StorageError;
use crate::storage::lease::Lease;
use crate::telemetry::{LogLimit, trace};
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
use crate::worker::steps::{self, Placed};

/// How long a loop rests that counts on a signal. It looks again in case the clock was set.
const LONG: Duration = Duration::from_hours(1);

/// On PostgreSQL another replica's signal may get lost: a loop rests no longer than this.
const POLL: Duration = Duration::from_secs(5);

/// How long a loop rests after the database did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The worker of a process.
pub struct Worker {
    context: Arc<Context>,
    slots: Slots,
    failures: InternalFailures,
}

impl Worker {
    /// It does nothing before it is told to.
    pub fn new(context: Context) -> Arc<Self> {
        let slots = Slots::new(context.settings.concurrency, context.db.signals().clone());
        let failures = InternalFailures::default();
        Arc::new(Self { context: Arc::new(context), slots, failures })
    }

    /// Works until it is stopped, then finishes the steps that are under way.
    pub async fn run(self: Arc<Self>) {
        let ctx = &*self.context;
        let tasks = TaskTracker::new();
        // Nothing may be claimed before the others know that this process is there.
        heartbeat::register(ctx).await;
        steps::schedule_tasks(ctx).await;
        let beating = ctx.settings.shared.then(|| {
            AbortOnDropHandle::new(tokio::spawn(heartbeat::run(Arc::clone(&self.context))))
        });
        let context = Arc::clone(&self.context);
        let watching = tokio::spawn(async move { clock_watch::run(&context).await });
        let watching = AbortOnDropHandle::new(watching);
        let handed = handoff::open(&self);
        tasks.spawn(handoff::run(Arc::clone(&self), handed, tasks.clone()));
        while !ctx.stop.is_cancelled() {
            match self.claim().await {
                Ok(claimed) => {
                    for work in claimed {
                        let slot = self.slots.take().await;
                        let worker = Arc::clone(&self);
                        tasks.spawn(async move {
                            Box::pin(worker.carry(work)).await;
                            drop(slot);
                        });
                    }
                }
                Err(pause) => ctx.rest(pause, ctx.db.signals().due()).await,
            }
        }
        ctx.db.handoff().close();
        tasks.close();
        tasks.wait().await;
        drop((beating, watching));
    }

    /// Takes a step with everything that is due at this moment; returns how much that was.
    pub async fn work_due(&self) -> Result<usize, StorageError> {
        let free = self.context.settings.concurrency;
        let Look::Found(found) = claim::look(&self.context, &self.slots, free).await? else {
            return Ok(0);
        };
        let count = found.len();
        for work in found {
            Box::pin(self.carry(work)).await;
        }
        Ok(count)
    }

    /// Gives back the rows that this process has not finished: they are due at once.
    pub async fn leave(&self) {
        heartbeat::leave(&self.context).await;
    }

    /// Claims what is due. `Err`: how long there is nothing to claim.
    async fn claim(&self) -> Result<Vec<Work>, Duration> {
        let (ctx, slots) = (&*self.context, &self.slots);
        let signals = ctx.db.signals();
        // Before the look: until it is known better, everything that changes is worth another one.
        signals.looks_at(None);
        slots.work_may_wait();
        let free = slots.free();
        if free == 0 {
            return Err(LONG);
        }
        ctx.pulse.looks();
        let looked = claim::look(ctx, slots, free).await;
        ctx.pulse.has_looked();
        match looked {
            Ok(Look::Found(found)) => Ok(found),
            Ok(Look::Nothing(next)) => {
                slots.no_work_waits();
                signals.looks_at(next);
                Err(claim::until(ctx, next))
            }
            Ok(Look::Crowded) => match claim::next_claimable(ctx, slots, free).await {
                Ok(next) => Err(claim::until(ctx, next)),
                Err(_) => Err(RETRY),
            },
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        left_out,
                        "cannot look for work; trying again every second"
                    );
                }
                Err(RETRY)
            }
        }
    }

    /// Does what was claimed, and then gives back its part of the quota.
    async fn carry(&self, work: Work) {
        match work {
            Work::Row(lease, _share) => self.take_step(lease).await,
            Work::Certificate(certificate, lease, _share) => {
                let step = Box::pin(steps::begin(&self.context, *certificate, lease));
                self.see_through(&lease, step).await;
            }
            Work::CleanUps(over, _slot) => self.clean_up(over).await,
        }
    }

    async fn take_step(&self, lease: Lease) {
        let step = Box::pin(steps::take(&self.context, lease));
        self.see_through(&lease, step).await;
    }

    /// Takes a step, and has its row say what became of it; then goes on with the order that the step
    /// has placed. What fails from there on is the order's.
    async fn see_through(
        &self,
        lease: &Lease,
        step: impl Future<Output = Result<Option<Placed>, WorkerError>>,
    ) {
        // The row that is read says which trace that is.
        trace::within(None, Box::pin(self.carry_through(lease, step))).await;
    }

    async fn carry_through(
        &self,
        lease: &Lease,
        step: impl Future<Output = Result<Option<Placed>, WorkerError>>,
    ) {
        let result = unpanicked(step).await;
        let Some(placed) = self.failures.ended(&self.context, lease, result).await.flatten() else {
            return;
        };
        let lease = placed.lease;
        let steps = Box::pin(steps::go_on(&self.context, placed));
        let result = unpanicked(steps).await;
        self.failures.ended(&self.context, &lease, result).await;
    }

    /// Cleans up after orders together; where that fails inside, after each by itself, so that one that
    /// cannot be done keeps no other from it.
    async fn clean_up(&self, over: Vec<(Order, Lease)>) {
        let ctx = &self.context;
        let together = Box::pin(steps::clean_up(ctx, over.clone()));
        let Err(error) = unpanicked(together).await else { return };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "orders could not be cleaned up together; each is cleaned up by itself"
        );
        for (order, lease) in over {
            let alone = Box::pin(steps::clean_up(ctx, vec![(order, lease)]));
            let result = unpanicked(alone).await;
            self.failures.ended(ctx, &lease, result).await;
        }
    }
}

/// The longest rest of a loop that finds nothing due.
fn longest_rest(ctx: &Context) -> Duration {
    if ctx.db.dialect() == "sqlite" { LONG } else { POLL }
}
