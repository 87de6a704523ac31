//! Heartbeats: each replica writes to the database that it lives, and takes over from those that do not
//! any more.
//!
//! Every replica beats three times in each `worker.lease`. One that has been silent for that long is
//! dead, or cannot work anyhow: its rows are given back, and should it come back, its tokens are
//! outdated. A replica that was not heard itself for as long judges no other, so that after an outage of
//! the database all have the time to beat.
//!
//! On SQLite there is one process: what others hold when it starts, its dead former self held.

use std::sync::Arc;

use crate::storage::{StorageError, heartbeat, lease};
use crate::telemetry::LogLimit;
use crate::worker::context::Context;

/// Beats within `worker.lease`.
const BEATS: u32 = 3;

/// Takes over what a former self of this process was working on, or says to the others that this
/// replica is there. Repeated until it works: nothing may be claimed before.
pub(super) async fn register(ctx: &Context) {
    let limit = LogLimit::new();
    while let Err(error) = try_register(ctx).await {
        if let Some(left_out) = limit.pass() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                left_out,
                "the database is not there yet; trying again every second"
            );
        }
        ctx.rest(super::RETRY, ctx.db.signals().due()).await;
        if ctx.stop.is_cancelled() {
            return;
        }
    }
}

async fn try_register(ctx: &Context) -> Result<(), StorageError> {
    if ctx.settings.shared {
        return beat(ctx).await.map(drop);
    }
    if !ctx.settings.alone {
        return Ok(());
    }
    let mut tx = ctx.db.begin();
    let rows = lease::give_back(&mut tx, None, ctx.clock.now()).await?;
    tx.commit().await?;
    if rows > 0 {
        tracing::info!(rows, "taking up what was under way when the last run was cut off");
    }
    Ok(())
}

/// Beats for as long as this process works, also while it stops.
pub(super) async fn run(ctx: Arc<Context>) {
    let mut tick = tokio::time::interval(ctx.settings.lease / BEATS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heard, limit) = (0, LogLimit::new());
    loop {
        tick.tick().await;
        let may_reap = heard > BEATS;
        match beat_and_reap(&ctx, may_reap).await {
            Ok(()) => heard += 1,
            Err(error) => {
                heard = 0;
                if let Some(left_out) = limit.pass() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        left_out,
                        "cannot tell the other replicas that this one lives"
                    );
                }
            }
        }
    }
}

async fn beat_and_reap(ctx: &Context, may_reap: bool) -> Result<(), StorageError> {
    let now = beat(ctx).await?;
    if may_reap { reap_dead_replicas(ctx, now).await } else { Ok(()) }
}

async fn beat(ctx: &Context) -> Result<time::OffsetDateTime, StorageError> {
    let mut tx = ctx.db.begin();
    let now = heartbeat::beat(&mut tx, &ctx.settings.name, ctx.clock.now()).await?;
    tx.commit().await?;
    ctx.pulse.has_beaten();
    ctx.clock.follow(now);
    Ok(now)
}

async fn reap_dead_replicas(ctx: &Context, now: time::OffsetDateTime) -> Result<(), StorageError> {
    let period = time::Duration::try_from(ctx.settings.lease).unwrap_or(lease::LEASE);
    let mut tx = ctx.db.begin();
    let (silent, rows) = heartbeat::reap(&mut tx, now, period).await?;
    if silent.is_empty() {
        return Ok(());
    }
    tx.commit().await?;
    tracing::warn!(replicas = ?silent, rows, "replicas have fallen silent; others take over");
    Ok(())
}

/// Gives back the rows that are not finished when the time for a stop is over: they are due at once.
pub(super) async fn leave(ctx: &Context) {
    let left = async {
        let mut tx = ctx.db.begin();
        heartbeat::leave(&mut tx, &ctx.settings.name, ctx.clock.now()).await?;
        tx.commit().await
    };
    if let Err(error) = left.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "what was under way is taken up again when its lease has run out"
        );
    }
}
