//! Watches the expiry of certificates that are served.

use time::OffsetDateTime;

use super::context::Context;
use super::error::WorkerError;
use crate::domain::event::Event;
use crate::domain::expiry::Renewal;
use crate::domain::id::CertificateId;
use crate::storage::lease::Lease;
use crate::storage::{Db, Scope, certificates, events, expiry_watches};

/// Checks one watch. It asks nothing but the database, so that no trouble of the outside world keeps a
/// warning back.
pub async fn look_at_expiry(db: &Db, lease: Lease, now: OffsetDateTime) -> Result<(), WorkerError> {
    let id = CertificateId(lease.id);
    let mut tx = db.begin();
    let watch = expiry_watches::find(&mut tx, id).await?;
    let certificate = certificates::find(&mut tx, id, &Scope::Everything).await?;
    let (Some(watch), Some((certificate, _))) = (watch, certificate) else { return Ok(()) };
    let renewal = Renewal {
        due: certificate.current.as_ref().map_or(watch.not_after, |issued| issued.renewal_time),
        failed_attempts: certificate.failed_attempts,
        last_error: certificate.last_error.as_ref(),
    };
    let looked = watch.look(&renewal, now);
    expiry_watches::save(&mut tx, &looked, &certificate, &lease).await?;
    tx.commit().await?;
    Ok(())
}

/// A watch has no place for a failure: its certificate's history has.
pub(crate) async fn fail(ctx: &Context, id: CertificateId) -> Result<bool, WorkerError> {
    let mut tx = ctx.db.begin();
    let found = certificates::find(&mut tx, id, &Scope::Everything).await?;
    let Some((certificate, _)) = found else { return Ok(false) };
    let message = "Its end cannot be watched over: something inside fails; see the log";
    let event = Event::warning(id, "InternalError", message);
    events::record(&mut tx, &certificate.namespace, Some(id), &[event], ctx.clock.now());
    tx.commit().await?;
    Ok(false)
}
