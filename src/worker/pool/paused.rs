//! The rest before the work, while the installation is paused.

use std::time::Duration;

use super::Worker;
use crate::storage::pause;

/// How soon it is noticed that the installation was resumed: by another process, which sends no signal.
const LOOK: Duration = Duration::from_secs(2);

impl Worker {
    /// Returns once the installation is not paused, or the service stops. Until then nothing may be claimed, and nobody
    /// be told that this process is at work.
    pub async fn until_resumed(&self) {
        let ctx = &*self.context;
        let mut is_told = false;
        while !ctx.stop.is_cancelled() {
            match async { pause::find(&mut ctx.db.read().await?).await }.await {
                Ok(None) => break,
                Ok(Some(why)) if !is_told => {
                    tracing::warn!(%why, "paused: nothing is issued, renewed or delivered; `certwright resume` ends it");
                    is_told = true;
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot see whether the installation is paused; looking again"
                ),
            }
            ctx.rest(LOOK, ctx.db.signals().due()).await;
        }
        if is_told && !ctx.stop.is_cancelled() {
            tracing::info!("resumed");
        }
    }
}
