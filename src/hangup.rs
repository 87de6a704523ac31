//! SIGHUP: the level of the log is read again. Everything else is read at the start.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::telemetry;

/// Where the settings come from.
pub(crate) type Reread = Box<dyn Fn() -> anyhow::Result<Config> + Send>;

/// Takes over `log.level` as `reread` finds it with each SIGHUP. A configuration that cannot be used changes nothing.
pub(crate) fn on_signal(reread: Reread) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match level(&reread) {
                Ok(level) => tracing::info!(level, "the level of the log was read again"),
                Err(error) => tracing::error!(error, "the level of the log stays as it was"),
            }
        }
    });
    Ok(())
}

fn level(reread: &Reread) -> Result<String, String> {
    let level = reread().map_err(|error| format!("{error:#}"))?.log_level;
    telemetry::set_log_level(&level)?;
    Ok(level)
}
