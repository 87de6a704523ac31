//! Looks again and again whether the audit log is whole, so that what was done to it alarms without anybody asking.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{VerifyError, walk};
use crate::domain::audit::{Break, ChainKey, Head};
use crate::storage::{Db, StorageError, audit_checkpoints};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::database as metrics;

/// Time before the first look, as nothing that takes long belongs to a start, and between two looks.
const FIRST_AFTER: Duration = Duration::from_mins(1);
const EVERY: Duration = Duration::from_hours(1);

/// Time between two pages: a log of a million entries takes a quarter of an hour, and a hundredth of a processor.
const PACE: Duration = Duration::from_millis(500);

/// Watches over the log for one process.
pub struct Watch {
    db: Db,
    key: ChainKey,
    /// The head that was found last: what is cut off behind it is missed.
    known: Option<Head>,
    broken: Option<Break>,
}

impl Watch {
    pub fn new(db: Db, key: ChainKey) -> Self {
        Self { db, key, known: None, broken: None }
    }

    /// Looks for as long as the service runs.
    pub async fn run(mut self, stop: CancellationToken) {
        let limit = LogLimit::new();
        let mut tick = tokio::time::interval_at(Instant::now() + FIRST_AFTER, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = async {
                tick.tick().await;
                self.look(Some(PACE)).await
            };
            let looked = tokio::select! {
                looked = look => looked,
                () = stop.cancelled() => return,
            };
            if let Err(error) = looked {
                tick.reset_after(FIRST_AFTER);
                if let Some(left_out) = limit.pass() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, left_out, "the audit log is not verified; trying again");
                }
            }
        }
    }

    /// Walks along the whole log, at a pace if there is one; the metric and the log say what was found.
    pub async fn look(&mut self, pace: Option<Duration>) -> Result<(), StorageError> {
        loop {
            let before = audit_checkpoints::last(&mut self.db.read().await?).await?;
            match walk(&self.db, &self.key, self.known.clone(), pace, |_, _| {}).await {
                Ok(head) => self.is_whole(head),
                Err(VerifyError::Storage(error)) => return Err(error),
                Err(VerifyError::Broken(found)) => {
                    // What is pruned under a walk leaves a gap before it.
                    if audit_checkpoints::last(&mut self.db.read().await?).await? != before {
                        continue;
                    }
                    self.is_broken(found);
                }
            }
            return Ok(());
        }
    }

    fn is_whole(&mut self, head: Head) {
        self.known = Some(head);
        metrics::audit_log_broken(false);
        if self.broken.take().is_some() {
            tracing::info!("the audit log is whole again");
        }
    }

    fn is_broken(&mut self, found: Break) {
        metrics::audit_log_broken(true);
        if self.broken.as_ref() != Some(&found) {
            let error = VerifyError::Broken(found.clone());
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "somebody has changed the audit log; `certwright audit verify` says the same"
            );
            self.broken = Some(found);
        }
    }
}
