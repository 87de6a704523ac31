//! Watches the clock. One that is set back leaves rows that wait by the time of before: they are looked at now.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};

use crate::storage::{StorageError, wake_ups};
use crate::worker::context::Context;
use crate::worker::steps;

/// Time from one look at the clock to the next.
const EVERY: Duration = Duration::from_mins(1);

/// A clock that is slewed, or follows the database's, moves by less.
const JUMP: time::Duration = time::Duration::seconds(30);

/// What the clock shows, beside one that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: OffsetDateTime,
    steady: Instant,
}

impl Reading {
    fn take(ctx: &Context) -> Self {
        Self { wall: ctx.clock.now(), steady: Instant::now() }
    }

    /// By how much the clock was set back since then, if it was.
    fn set_back_since(self, before: Self) -> Option<time::Duration> {
        let passed = time::Duration::try_from(self.steady - before.steady).ok()?;
        let by = passed - (self.wall - before.wall);
        (by > JUMP).then_some(by)
    }
}

/// Looks at what a former run has left, and from then on whenever the clock was set back.
pub(super) async fn run(ctx: &Context) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Reading::take(ctx);
    let mut is_to_do = true;
    loop {
        tick.tick().await;
        let reading = Reading::take(ctx);
        if let Some(by) = reading.set_back_since(known) {
            tracing::warn!(seconds = by.whole_seconds(), "the clock was set back");
            is_to_do = true;
        }
        known = reading;
        if is_to_do {
            is_to_do = match clamp(ctx, reading.wall).await {
                Ok(()) => false,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "cannot look for what waits by a wrong clock; trying again"
                    );
                    true
                }
            };
        }
    }
}

async fn clamp(ctx: &Context, now: OffsetDateTime) -> Result<(), StorageError> {
    if !wake_ups::are_from_the_future(&mut ctx.db.read().await?, now).await? {
        return Ok(());
    }
    let mut tx = ctx.db.begin();
    let rows = wake_ups::clamp(&mut tx, now).await?;
    tx.commit().await?;
    tracing::warn!(rows, "a clock was ahead when these were scheduled; they are looked at now");
    steps::schedule_tasks(ctx).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn only_a_clock_that_falls_behind_a_steady_one_was_set_back() {
        let before = Reading { wall: datetime!(2026-01-01 12:00 UTC), steady: Instant::now() };
        let later = |wall: time::Duration| Reading {
            wall: before.wall + wall,
            steady: before.steady + Duration::from_mins(1),
        };
        let minute = time::Duration::MINUTE;
        for (wall, set_back) in [
            (minute, None),
            (minute - time::Duration::seconds(29), None),
            (minute + time::Duration::days(2), None),
            (minute - time::Duration::days(2), Some(time::Duration::days(2))),
        ] {
            assert_eq!(later(wall).set_back_since(before), set_back, "{wall}");
        }
    }
}
