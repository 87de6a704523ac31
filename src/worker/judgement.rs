//! Judges certificates by name policies, as those are at this moment.

use crate::domain::certificate::Certificate;
use crate::domain::failure::Failure;
use crate::domain::policy::{AdmittedBy, Approval, Judgement};
use crate::pki;
use crate::storage::{StorageError, policies};
use crate::worker::context::Context;

/// By what right a certificate may be issued now and whether somebody has to approve, or why not.
pub(crate) async fn judge(
    ctx: &Context,
    certificate: &Certificate,
) -> Result<Result<Judgement, Failure>, StorageError> {
    // No other right comes from a policy.
    if !matches!(certificate.admitted_by, AdmittedBy::Policy(_)) {
        let by = certificate.admitted_by.clone();
        return Ok(Ok(Judgement { by, approval: Approval::Auto }));
    }
    let policies = policies::cached(&ctx.db, &certificate.namespace).await?;
    Ok(certificate.judged(&policies, pki::wanted_key(&certificate.spec)))
}
