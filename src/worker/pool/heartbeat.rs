//! Being seen by the other replicas, and taking over from those that are not seen any more.
//!
//! Every replica writes to the database that it lives, three times in each `worker.lease`. One that
//! has been silent for that long is dead, or cannot work anyhow: its rows are given back, and should
//! it come back, its tokens are outdated. Nobody is judged by a replica that was not heard itself for
//! as long, so that after an outage of the database all have the time to show up.
//!
//! On SQLite there is one process: what others hold when it starts, its dead former self held.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::{StorageError, heartbeat, lease};
use crate::worker::Worker;

/// So often within `worker.lease`.
const BEATS: u32 = 3;

impl Worker {
    /// Takes over what a former self of this process was working on, or says to the others that
    /// this one is there. Repeated until it works: nothing may be claimed before.
    pub(in crate::worker) async fn show_up(&self) {
        while let Err(error) = self.try_show_up().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database is not there yet; trying again in a second"
            );
            self.rest(Duration::from_secs(1)).await;
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    async fn try_show_up(&self) -> Result<(), StorageError> {
        if self.settings.shared {
            return self.beat().await.map(drop);
        }
        if !self.settings.alone {
            return Ok(());
        }
        let mut tx = self.db.begin();
        let rows = lease::give_back(&mut tx, None, self.clock.now()).await?;
        tx.commit().await?;
        if rows > 0 {
            tracing::info!(rows, "taking up what was under way when the last run was cut off");
        }
        Ok(())
    }

    /// Goes on saying that this process lives; for as long as it works, also while it stops.
    pub(in crate::worker) async fn stay_seen(self: Arc<Self>) {
        let mut tick = tokio::time::interval(self.settings.lease / BEATS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = 0;
        loop {
            tick.tick().await;
            let heard_for_long = heard > BEATS;
            match self.beat_and_bury(heard_for_long).await {
                Ok(()) => heard += 1,
                Err(error) => {
                    heard = 0;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot tell the other replicas that this one lives"
                    );
                }
            }
        }
    }

    async fn beat(&self) -> Result<time::OffsetDateTime, StorageError> {
        let mut tx = self.db.begin();
        let now = heartbeat::beat(&mut tx, &self.settings.name, self.clock.now()).await?;
        tx.commit().await?;
        self.clock.follow(now);
        Ok(now)
    }

    async fn beat_and_bury(&self, bury: bool) -> Result<(), StorageError> {
        let now = self.beat().await?;
        if !bury {
            return Ok(());
        }
        let period = time::Duration::try_from(self.settings.lease).unwrap_or(lease::LEASE);
        let mut tx = self.db.begin();
        let (silent, rows) = heartbeat::bury(&mut tx, now, period).await?;
        if silent.is_empty() {
            return Ok(());
        }
        tx.commit().await?;
        tracing::warn!(replicas = ?silent, rows, "replicas have fallen silent; others take over");
        Ok(())
    }

    /// What is not finished when the time for a stop is over is due at once, for whoever comes next.
    pub async fn leave(&self) {
        let left = async {
            let mut tx = self.db.begin();
            heartbeat::leave(&mut tx, &self.settings.name, self.clock.now()).await?;
            tx.commit().await
        };
        if let Err(error) = left.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was under way is taken up again when its lease has run out"
            );
        }
    }
}
