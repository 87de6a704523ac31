//! Steps that fail inside: by a bug, a row that cannot be read, a value that cannot be stored.
//!
//! Trying again in silence would hide them for ever. They become failures on their row like what fails
//! outside, with the pauses of those; the cause is for the log. Where not even that can be saved, the
//! row is put off, ever longer, and the log says so each time.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use time::Duration;
use uuid::Uuid;

use crate::domain::failure::{Failure, code};
use crate::storage::StorageError;
use crate::storage::lease::{self, Lease};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::worker as metrics;
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
use crate::worker::steps;

/// The pause after a row was put off for the first time; it doubles.
const FIRST_PAUSE: Duration = Duration::minutes(2);
const LONGEST_PAUSE: Duration = Duration::hours(6);
/// Bounds the memory; with more rows than this their pauses begin anew.
const MOST_REMEMBERED: usize = 10_000;

/// How often each row was put off in a row.
#[derive(Default)]
pub(super) struct InternalFailures(Mutex<HashMap<Uuid, u32>>);

impl InternalFailures {
    /// How long to put the row off this time.
    fn next_pause(&self, id: Uuid) -> Duration {
        let mut known = self.0.lock();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        let times = known.entry(id).or_default();
        let pause = FIRST_PAUSE * 2_i32.saturating_pow((*times).min(20));
        *times += 1;
        pause.min(LONGEST_PAUSE)
    }

    fn succeeded(&self, id: Uuid) {
        self.0.lock().remove(&id);
    }

    /// Has a row say what became of its step, whatever that is. Returns the result of a step that
    /// succeeded.
    pub(super) async fn ended<T>(
        &self,
        ctx: &Context,
        lease: &Lease,
        result: Result<T, WorkerError>,
    ) -> Option<T> {
        match result {
            Ok(done) => {
                self.succeeded(lease.id);
                return Some(done);
            }
            Err(WorkerError::Storage(StorageError::LeaseLost(id))) => {
                metrics::lease_lost();
                tracing::debug!(
                    %id,
                    machine = ?lease.machine,
                    "the lease was lost: somebody else changed or took it, and this step's result is void"
                );
            }
            Err(WorkerError::Storage(error)) if error.is_passing() => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.pass() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        id = %lease.id,
                        machine = ?lease.machine,
                        left_out,
                        "the database went away during a step; it is repeated"
                    );
                }
                ctx.release(lease.machine, lease.id).await;
            }
            Err(error) => {
                metrics::failed_inside();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    id = %lease.id,
                    machine = ?lease.machine,
                    "a step failed inside"
                );
                // On the heap: it is seldom needed, and would make each step's future larger.
                Box::pin(self.failed_inside(ctx, lease)).await;
            }
        }
        None
    }

    /// Has the row say so; or, where it cannot, puts it off.
    async fn failed_inside(&self, ctx: &Context, lease: &Lease) {
        match unpanicked(Box::pin(report(ctx, lease))).await {
            Ok(true) | Err(WorkerError::Storage(StorageError::LeaseLost(_))) => return,
            Ok(false) => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                id = %lease.id,
                machine = ?lease.machine,
                "that a step failed inside cannot be kept on its row"
            ),
        }
        let pause = self.next_pause(lease.id);
        let put_off = async {
            let mut tx = ctx.db.begin();
            let (owner, at) = (&ctx.settings.name, ctx.clock.now() + pause);
            lease::release(&mut tx, lease.machine, lease.id, owner, at).await?;
            tx.commit().await
        };
        match put_off.await {
            Ok(()) => tracing::warn!(
                id = %lease.id,
                machine = ?lease.machine,
                "it is tried again in {} min",
                pause.whole_minutes()
            ),
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                id = %lease.id,
                machine = ?lease.machine,
                "it cannot be put off either; it is tried again when its lease runs out"
            ),
        }
    }
}

/// Reports the failure to the row's machine. Returns whether nothing else is to be done: the failure
/// stands on the row, or somebody else has it.
async fn report(ctx: &Context, lease: &Lease) -> Result<bool, WorkerError> {
    let held =
        lease::held_by(&mut ctx.db.read().await?, lease.machine, lease.id, &ctx.settings.name)
            .await?;
    match held {
        Some(held) => steps::fail(ctx, &held, failure(lease)).await,
        None => Ok(true),
    }
}

/// Says where to look, and nothing of the cause: that may be anything, and tenants read this.
fn failure(lease: &Lease) -> Failure {
    Failure::of(
        code::INTERNAL_ERROR,
        format!(
            "Something inside failed; it is tried again. The service's log has the cause, under {}.",
            lease.id
        ),
    )
}

/// A panic is a failure like others.
pub(super) async fn unpanicked<T>(
    step: impl Future<Output = Result<T, WorkerError>>,
) -> Result<T, WorkerError> {
    AssertUnwindSafe(step)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(WorkerError::Panicked(words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_put_off_ever_longer_until_it_succeeds() {
        let failures = InternalFailures::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let minutes: Vec<_> = (0..9).map(|_| failures.next_pause(one).whole_minutes()).collect();

        assert_eq!(minutes, [2, 4, 8, 16, 32, 64, 128, 256, 360]);
        assert_eq!(failures.next_pause(other), FIRST_PAUSE);
        failures.succeeded(one);
        assert_eq!(failures.next_pause(one), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        let step = async {
            assert!(std::env::args().count() > 1_000_000, "the words");
            Ok(())
        };

        assert_eq!(unpanicked(step).await.unwrap_err().to_string(), "a step panicked: the words");
    }
}
