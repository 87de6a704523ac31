//! The tasks beside the requests that the audit log needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::spawn;
use crate::api::{self, AppState};
use crate::server::RefusedCertificate;
use crate::{audit, bootstrap};

/// Refusals are counted by the minute; this is how much later the log has them.
const WRITE_REFUSALS: Duration = Duration::from_secs(5);

/// What the audit log needs beside the requests themselves.
pub(super) async fn start(
    state: AppState,
    refused: mpsc::Receiver<RefusedCertificate>,
    stop: &CancellationToken,
) -> anyhow::Result<[JoinHandle<anyhow::Result<()>>; 4]> {
    let key = bootstrap::audit_key(&state.db, &state.sealer).await?;
    let sealer = audit::Sealer::new(state.db.clone(), key);
    let (clock, stopped) = (Arc::clone(&state.clock), stop.clone());
    let sealing = async move {
        sealer.run(&*clock, stopped).await;
        Ok(())
    };
    let watch =
        audit::Watch::new(state.db.clone(), bootstrap::audit_key(&state.db, &state.sealer).await?);
    let stopped = stop.clone();
    let watching = async move {
        watch.run(stopped).await;
        Ok(())
    };
    // This one ends with the listener over TLS, which need not be there.
    let refusing = tokio::spawn(write_refused_certificates(state.clone(), refused));
    let writing = write_refusals(state, stop.clone());
    Ok([spawn(stop, sealing), spawn(stop, watching), spawn(stop, writing), refusing])
}

/// Writes down which client certificates were refused, until there is no listener any more that could refuse one.
async fn write_refused_certificates(
    state: AppState,
    mut refused: mpsc::Receiver<RefusedCertificate>,
) -> anyhow::Result<()> {
    while let Some(certificate) = refused.recv().await {
        api::refuse_certificate(&state, certificate).await;
    }
    Ok(())
}

/// Writes down now and then what was refused.
async fn write_refusals(state: AppState, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(WRITE_REFUSALS);
    loop {
        let is_last = tokio::select! {
            _ = tick.tick() => false,
            () = stop.cancelled() => true,
        };
        state.refusals.write_counted(&state.db, state.clock.now(), is_last).await;
        if is_last {
            return Ok(());
        }
    }
}
