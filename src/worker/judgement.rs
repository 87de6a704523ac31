//! Judges certificates by name policies, as those are at this moment.

use crate::domain::certificate::Certificate;
use crate::domain::failure::Failure;
use crate::domain::policy::AdmittedBy;
use crate::pki;
use crate::storage::{StorageError, policies};
use crate::worker::context::Context;

/// By what right a certificate may be issued now, or why not.
pub(crate) async fn judge(
    ctx: &Context,
    certificate: &Certificate,
) -> Result<Result<AdmittedBy, Failure>, StorageError> {
    // No other right comes from a policy.
    if !matches!(certificate.admitted_by, AdmittedBy::Policy(_)) {
        return Ok(Ok(certificate.admitted_by.clone()));
    }
    let policies = policies::cached(&ctx.db, &certificate.namespace).await?;
    Ok(certificate.judged(&policies, pki::wanted_key(&certificate.spec)))
}
