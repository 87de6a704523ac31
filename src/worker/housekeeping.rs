//! Periodic tasks. One replica does each: a task is a row with a wake-up and a lease.

use std::sync::atomic::Ordering;

use time::{Duration, OffsetDateTime};

use crate::domain::backoff::{self, Jitter};
use crate::domain::id::TaskId;
use crate::domain::words::words;
use crate::storage::lease::Lease;
use crate::storage::{StorageError, event_tickets, retention, tasks};
use crate::worker::context::{Context, STEP_TIMEOUT};
use crate::worker::error::WorkerError;
use crate::worker::{delivery, orphaned_records};

words! {
    /// The database knows a task by its name.
    #[derive(Clone, Copy)]
    enum Task {
        SweepDns = "sweep_dns",
        ForgetEvents = "forget_events",
        ForgetDeliveries = "forget_deliveries",
        ForgetIssuance = "forget_issuance",
    }
}

/// A retention task that was not finished within a step goes on after this long.
const GO_ON_AFTER: Duration = Duration::seconds(1);

/// Adds the tasks to the database. If that fails the log says so, and the service starts all the same.
pub(crate) async fn schedule(ctx: &Context) {
    let scheduled = async {
        let now = ctx.clock.now();
        let mut tx = ctx.db.begin();
        for task in Task::ALL {
            let id = TaskId::generate(now).0;
            tasks::schedule(&mut tx, id, task.as_str(), now + every(ctx, task)).await?;
        }
        tx.commit().await
    };
    if let Err(error) = scheduled.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "housekeeping is not scheduled anew"
        );
    }
}

pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let mut tx = ctx.db.read().await?;
    let name = tasks::find(&mut tx, lease.id).await?;
    drop(tx);
    let known = name.as_deref().and_then(Task::parse);
    let sooner = match known {
        Some(Task::SweepDns) => {
            let asked = orphaned_records::sweep(ctx, &lease).await?.retry_at;
            after_sweep(ctx, asked)
        }
        Some(Task::ForgetEvents) => {
            let cutoff = ctx.clock.now() - ctx.settings.event_retention;
            let mut tx = ctx.db.begin();
            event_tickets::forget(&mut tx, ctx.clock.now()).await?;
            tx.commit().await?;
            within_a_step(ctx, retention::forget(&ctx.db, cutoff)).await?
        }
        Some(Task::ForgetDeliveries) => within_a_step(ctx, delivery::forget(ctx)).await?,
        Some(Task::ForgetIssuance) => {
            let cutoff = ctx.clock.now() - ctx.settings.order_retention;
            within_a_step(ctx, retention::forget_issuance(&ctx.db, cutoff)).await?
        }
        // A newer version's.
        None => None,
    };
    let regular = ctx.clock.now() + known.map_or(Duration::HOUR, |task| every(ctx, task));
    let mut tx = ctx.db.begin();
    tasks::settle(&mut tx, &lease, sooner.map_or(regular, |at| at.min(regular))).await?;
    tx.commit().await?;
    Ok(())
}

/// Removes old rows for as long as a step may take; returns when to go on if that was not long enough.
async fn within_a_step(
    ctx: &Context,
    removing: impl Future<Output = Result<u64, StorageError>>,
) -> Result<Option<OffsetDateTime>, StorageError> {
    let removed = tokio::select! {
        // The next run removes the rest.
        () = ctx.stop.cancelled() => return Ok(None),
        removed = tokio::time::timeout(STEP_TIMEOUT, removing) => removed,
    };
    Ok(match removed {
        Ok(rows) => {
            tracing::debug!(rows = rows?, "removed old rows");
            None
        }
        Err(_) => Some(ctx.clock.now() + GO_ON_AFTER),
    })
}

/// When to sweep again after a sweep that a provider put off: soon, then ever more seldom.
fn after_sweep(ctx: &Context, asked: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    let put_off = &ctx.limits.sweeps_put_off;
    let Some(asked) = asked else {
        put_off.store(0, Ordering::Relaxed);
        return None;
    };
    let times = put_off.fetch_add(1, Ordering::Relaxed);
    Some(asked.max(ctx.clock.now() + backoff::sweep(times, Jitter::random())))
}

fn every(ctx: &Context, task: Task) -> Duration {
    match task {
        Task::SweepDns => Duration::try_from(ctx.settings.sweep_interval).unwrap_or(Duration::HOUR),
        Task::ForgetEvents | Task::ForgetDeliveries | Task::ForgetIssuance => Duration::HOUR,
    }
}
