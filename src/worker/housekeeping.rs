//! Forgets what is old, now and then.

use std::sync::Arc;

use time::Duration;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::storage::{Db, retention};

/// How often there is a look. Every replica looks: what one has forgotten costs the others nothing.
const EVERY: std::time::Duration = std::time::Duration::from_hours(1);

/// Keeps what nobody needs any more from piling up.
pub struct Housekeeper {
    /// Where it piles up.
    pub db: Db,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How long events are kept.
    pub event_retention: Duration,
    /// Cancelled when the service stops.
    pub stop: CancellationToken,
}

impl Housekeeper {
    /// Tidies up every hour, until it is stopped.
    pub async fn run(self) {
        loop {
            let pause = tokio::time::timeout(EVERY, self.stop.cancelled());
            if pause.await.is_ok() {
                return;
            }
            self.tidy().await;
        }
    }

    async fn tidy(&self) {
        let cutoff = self.clock.now() - self.event_retention;
        tokio::select! {
            // What is left is there the next time.
            () = self.stop.cancelled() => {}
            forgotten = retention::forget(&self.db, cutoff) => match forgotten {
                Ok(0) => {}
                Ok(events) => tracing::info!(events, "forgot old events"),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old events could not be forgotten; trying again in an hour"
                ),
            },
        }
    }
}
