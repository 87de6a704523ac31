//! The request of an attempt: made anew, or the one that has waited for approval.

use time::OffsetDateTime;
use uuid::Uuid;

use super::keys::key_and_csr;
use crate::domain::approval::Approval;
use crate::domain::certificate::Certificate;
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{OrderId, RequestId};
use crate::domain::order::Order;
use crate::secret::Sealed;
use crate::storage::requests::{self, Request, RequestState};
use crate::storage::{Scope, StorageError, Tx};
use crate::worker::context::Context;
use crate::worker::error::WorkerError;

/// The request of an attempt before it is saved how that goes on.
pub(super) struct Prepared {
    pub(super) request: Request,
    /// A remark for people.
    pub(super) event: Option<Event>,
    is_new: bool,
    /// The key of a new one; `None` where the client holds it.
    sealed: Option<Sealed>,
}

/// The request that an attempt goes on with: it was made before, and has no order.
pub(super) async fn at_hand(
    ctx: &Context,
    certificate: &Certificate,
) -> Result<Option<Request>, StorageError> {
    let Some(id) = certificate.request else { return Ok(None) };
    // Its key may be the compromised one.
    if certificate.key_is_compromised() && certificate.keeps_its_key() {
        return Ok(None);
    }
    let found = requests::find(&mut ctx.db.read().await?, id, &Scope::Everything).await?;
    // One that was approved for another CA is no good for this one.
    let was_forgotten = |one: &Request| {
        certificate.approved.is_none() && one.approval.as_ref().is_some_and(Approval::is_approved)
    };
    Ok(found.filter(|one| one.waits() && !was_forgotten(one)))
}

/// The request at hand, or a new one with key and CSR; or why there can be none until a person acts.
pub(super) async fn prepare(
    ctx: &Context,
    certificate: &Certificate,
    now: OffsetDateTime,
) -> Result<Result<Prepared, Failure>, WorkerError> {
    if let Some(request) = at_hand(ctx, certificate).await? {
        return Ok(Ok(Prepared { request, event: None, is_new: false, sealed: None }));
    }
    let id = RequestId::generate(now);
    let made = match key_and_csr(ctx, certificate, id).await? {
        Ok(made) => made,
        Err(failure) => return Ok(Err(failure)),
    };
    let request = Request {
        id,
        name: certificate.request_name(),
        certificate: certificate.id,
        namespace: certificate.namespace.clone(),
        revision: certificate.next_revision(),
        csr: made.csr,
        state: RequestState::Pending,
        message: String::new(),
        order: OrderId(Uuid::nil()),
        requested_by: certificate.requested_by.clone(),
        approval: None,
        created_at: now,
        finished_at: None,
    };
    Ok(Ok(Prepared { request, event: made.event, is_new: true, sealed: made.sealed }))
}

impl Prepared {
    /// Saves that it has this order.
    pub(super) async fn order(
        &self,
        tx: &mut Tx,
        order: &Order,
        now: OffsetDateTime,
    ) -> Result<(), StorageError> {
        let message = format!("Waiting on certificate issuance from order {}", order.name);
        if self.is_new {
            let request = Request { message, order: order.id, ..self.request.clone() };
            return requests::insert(tx, &request, self.sealed.as_ref()).await;
        }
        let (id, state) = (self.request.id, RequestState::Pending);
        requests::progress(tx, id, state, &message, order.id, now).await
    }

    /// Saves that it waits for approval, a new one until this deadline; the deadline that counts.
    pub(super) async fn ask(
        &self,
        tx: &mut Tx,
        deadline: OffsetDateTime,
    ) -> Result<OffsetDateTime, StorageError> {
        let approval = self.request.approval.clone().unwrap_or_else(|| Approval::until(deadline));
        let deadline = approval.deadline;
        if self.is_new {
            let request = Request {
                message: "Not signing CertificateRequest until it is Approved".to_owned(),
                approval: Some(approval),
                ..self.request.clone()
            };
            requests::insert(tx, &request, self.sealed.as_ref()).await?;
        }
        Ok(deadline)
    }
}
