//! Signals: the first asks to stop, the second insists.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process at once:
/// nothing is lost, since what was under way is taken up again when its leases run out.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        for asked in 0_u8.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked > 0 {
                tracing::warn!("asked to stop again: stopping at once");
                std::process::exit(130);
            }
            tracing::info!("stopping; what is under way is finished first");
            token.cancel();
        }
    });
    Ok(stop)
}
