//! The one place that knows which step belongs to which machine.

use crate::domain::certificate::Certificate;
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, IssuerId, OrderId, RevocationId, WebhookId};
use crate::domain::order::Order;
use crate::storage::StorageError;
use crate::storage::lease::{Lease, Machine};
use crate::worker::context::Context;
use crate::worker::error::WorkerError;
pub(crate) use crate::worker::order::Placed;
use crate::worker::{
    certificate, delivery, expiry, housekeeping, issuer, order, policy_review, revocation,
};

/// Orders that are cleaned up after together: as many as make one call of a DNS provider.
pub(crate) const CLEAN_UPS_TOGETHER: usize = order::clean_up::TOGETHER;

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

/// Takes the first step of a certificate that this process has just added.
pub(crate) async fn take_first(
    ctx: &Context,
    certificate: Certificate,
    lease: Lease,
) -> Result<Option<Placed>, WorkerError> {
    certificate::begin(ctx, certificate, lease).await
}

/// Goes on with an order that a step has just placed.
pub(crate) async fn go_on(ctx: &Context, placed: Placed) -> Result<(), WorkerError> {
    order::go_on(ctx, placed).await
}

/// Takes away the proofs of orders that are over.
pub(crate) async fn clean_up(ctx: &Context, over: Vec<(Order, Lease)>) -> Result<(), WorkerError> {
    order::clean_up::run(ctx, over).await
}

/// Has the tasks in the database.
pub(crate) async fn schedule_tasks(ctx: &Context) {
    housekeeping::schedule(ctx).await;
}

/// Removes deliveries and messages that are older than they are to be kept; returns how many.
pub(crate) async fn forget_deliveries(ctx: &Context) -> Result<u64, StorageError> {
    delivery::forget(ctx).await
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
