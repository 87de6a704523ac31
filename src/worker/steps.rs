//! The one place that knows which step belongs to which machine.

use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, IssuerId, OrderId, RevocationId, WebhookId};
use crate::storage::lease::{Lease, Machine};
pub(crate) use crate::worker::certificate::begin;
use crate::worker::context::Context;
pub(crate) use crate::worker::delivery::forget as forget_deliveries;
use crate::worker::error::WorkerError;
pub(crate) use crate::worker::housekeeping::schedule as schedule_tasks;
pub(crate) use crate::worker::order::clean_up::{TOGETHER as CLEAN_UPS_TOGETHER, run as clean_up};
pub(crate) use crate::worker::order::{Placed, go_on};
use crate::worker::{
    certificate, delivery, expiry, housekeeping, issuer, order, policy_review, revocation,
};

/// Takes the step that a claimed row wants. Returns the order with which its slot goes on.
pub(crate) async fn take(ctx: &Context, lease: Lease) -> Result<Option<Placed>, WorkerError> {
    match lease.machine {
        Machine::Certificate => return certificate::run(ctx, lease).await,
        Machine::Issuer => issuer::run(ctx, lease).await?,
        Machine::Order => order::run(ctx, lease).await?,
        Machine::Expiry => expiry::look_at_expiry(&ctx.db, lease, ctx.clock.now()).await?,
        Machine::Revocation => revocation::run(ctx, lease).await?,
        Machine::Task => housekeeping::run(ctx, lease).await?,
        Machine::PolicyReview => policy_review::run(ctx, lease).await?,
        Machine::Delivery => delivery::run(ctx, lease).await?,
    }
    Ok(None)
}

/// Tells a machine that its step failed inside. Returns whether the failure stands on the row, which
/// is tried again in its time then.
pub(crate) async fn fail(
    ctx: &Context,
    held: &Lease,
    failure: Failure,
) -> Result<bool, WorkerError> {
    let id = held.id;
    match held.machine {
        Machine::Issuer => issuer::fail(ctx, IssuerId(id), failure, held).await,
        Machine::Certificate => certificate::fail(ctx, CertificateId(id), failure, held).await,
        Machine::Order => order::fail(ctx, OrderId(id), failure, held).await,
        Machine::Revocation => revocation::fail(ctx, RevocationId(id), failure, held).await,
        Machine::Expiry => expiry::fail(ctx, CertificateId(id)).await,
        Machine::Delivery => delivery::fail(ctx, WebhookId(id), &failure, held).await,
        // They have no place for it.
        Machine::Task | Machine::PolicyReview => Ok(false),
    }
}
