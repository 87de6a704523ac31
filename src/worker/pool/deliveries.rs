//! The loop of the deliveries. They have slots of their own, so that slow receivers never take those of
//! issuance.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::{LONG, RETRY, Worker, longest_rest};
use crate::storage::StorageError;
use crate::storage::lease::{self, Lease, Machine};
use crate::telemetry::LogLimit;
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
use crate::worker::steps;

impl Worker {
    /// Delivers until it is stopped, then finishes what is under way.
    pub async fn run_deliveries(self: Arc<Self>) {
        let ctx = &*self.context;
        let permits = Arc::new(Semaphore::new(ctx.settings.delivery_concurrency));
        let (tasks, limit) = (TaskTracker::new(), LogLimit::new());
        while !ctx.stop.is_cancelled() {
            let free = permits.available_permits();
            let pause = match claim(ctx, free).await {
                Ok(claimed) if claimed.is_empty() => {
                    // A slot that comes free is a signal, too.
                    if free == 0 { LONG } else { until_next(ctx).await }
                }
                Ok(claimed) => {
                    for lease in claimed {
                        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                        let worker = Arc::clone(&self);
                        tasks.spawn(async move {
                            worker.take_step(lease).await;
                            drop(permit);
                            worker.context.db.signals().deliverable().notify_one();
                        });
                    }
                    continue;
                }
                Err(error) => {
                    if let Some(left_out) = limit.pass() {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            left_out,
                            "cannot look for deliveries; trying again every second"
                        );
                    }
                    RETRY
                }
            };
            ctx.rest(pause, ctx.db.signals().deliverable()).await;
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Works off every webhook that is due at this moment, one after the other; returns how many were.
    pub async fn deliver_due(&self) -> Result<usize, WorkerError> {
        let mut worked = 0;
        loop {
            let claimed = claim(&self.context, 1).await?;
            let Some(lease) = claimed.into_iter().next() else { return Ok(worked) };
            self.take_step(lease).await;
            worked += 1;
        }
    }

    /// Removes deliveries and messages that are older than they are to be kept; returns how many.
    pub async fn forget_deliveries(&self) -> Result<u64, StorageError> {
        steps::forget_deliveries(&self.context).await
    }
}

async fn claim(ctx: &Context, free: usize) -> Result<Vec<Lease>, StorageError> {
    if free == 0 {
        return Ok(Vec::new());
    }
    let now = ctx.clock.now();
    let mut tx = ctx.db.read().await?;
    let due = lease::next_delivery_due(&mut tx).await?;
    drop(tx);
    if due.is_none_or(|at| at > now) {
        return Ok(Vec::new());
    }
    let mut tx = ctx.db.begin();
    let claimed = lease::claim(&mut tx, Machine::Delivery, &ctx.settings.name, now, free).await?;
    tx.commit().await?;
    Ok(claimed)
}

async fn until_next(ctx: &Context) -> Duration {
    let longest = longest_rest(ctx);
    let due = async { lease::next_delivery_due(&mut ctx.db.read().await?).await };
    match due.await {
        Ok(Some(at)) => Duration::try_from(at - ctx.clock.now()).unwrap_or_default().min(longest),
        Ok(None) => longest,
        Err(_) => RETRY,
    }
}
