//! Begins attempts: when something has to be issued, makes key, CSR and order, and goes on with it; or has somebody
//! asked first.

mod approval;
mod keys;
mod rehearsal;
mod renewal;
mod request;
mod traced;

use time::OffsetDateTime;

use self::renewal::ask_for_renewal;
use self::request::{Prepared, prepare};
use super::context::Context;
use super::error::WorkerError;
use super::judgement::judge;
use super::order::Placed;
use super::revocation;
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, Course, State, Transition};
use crate::domain::failure::{Failure, code};
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::issuer::{self, Issuer, RenewalInformationSource};
use crate::domain::order::{Order, Outcome};
use crate::storage::lease::{Lease, Machine};
use crate::storage::{Scope, StorageError, certificates, issuers, orders};
use crate::telemetry::trace;

pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<Option<Placed>, WorkerError> {
    match find(ctx, CertificateId(lease.id)).await? {
        Some(certificate) => Box::pin(begin(ctx, certificate, lease)).await,
        None => Ok(None),
    }
}

/// A step failed inside: for the certificate that is a failure like any other.
pub(crate) async fn fail(
    ctx: &Context,
    id: CertificateId,
    failure: Failure,
    held: &Lease,
) -> Result<bool, WorkerError> {
    let Some(certificate) = find(ctx, id).await? else { return Ok(false) };
    trace::enter(certificate.trace);
    let next = certificate.failed_inside(failure, ctx.clock.now(), Jitter::random());
    settle(ctx, next, held).await?;
    Ok(true)
}

async fn find(ctx: &Context, id: CertificateId) -> Result<Option<Certificate>, StorageError> {
    let found = certificates::find(&mut ctx.db.read().await?, id, &Scope::Everything).await?;
    Ok(found.map(|(certificate, _)| certificate))
}

/// Takes the step of a certificate as it was read, or added, under this lease.
pub(crate) async fn begin(
    ctx: &Context,
    certificate: Certificate,
    lease: Lease,
) -> Result<Option<Placed>, WorkerError> {
    let now = ctx.clock.now();
    let reference = &certificate.spec.issuer_ref;
    let (kind, namespace) = (reference.kind, &certificate.namespace);
    let issuer = issuers::cached_by_name(&ctx.db, kind, namespace, &reference.name).await?;

    if certificate.deleting_since.is_some() {
        Box::pin(revocation::delete_at_last(ctx, certificate, &lease)).await?;
        return Ok(None);
    }
    if let Some(issuer) = issuer.as_ref().filter(|_| certificate.is_to_rehearse(now)) {
        let next = Box::pin(rehearsal::run(ctx, certificate, issuer)).await?;
        settle(ctx, next, &lease).await?;
        return Ok(None);
    }
    let (woken, _span) = traced::begun(certificate.wake(now));
    let next = if woken.certificate.ari_is_due(now) {
        Box::pin(ask_for_renewal(ctx, woken.certificate, issuer.as_ref())).await
    } else {
        match woken.certificate.state {
            State::Triggered(_) | State::AwaitingIssuer(_) => match issuer {
                Some(issuer) if issuer.state == issuer::State::Ready => {
                    return Box::pin(attempt(ctx, woken, &issuer, lease)).await;
                }
                issuer => woken.then(|one| one.wait_for(issuer.as_ref(), now)),
            },
            State::AwaitingApproval(_) => {
                Box::pin(approval::look(ctx, woken, &lease)).await?;
                return Ok(None);
            }
            State::Ordering(_) => Box::pin(watch(ctx, woken)).await?,
            State::Idle | State::Backoff | State::Blocked => woken,
        }
    };
    settle(ctx, next, &lease).await?;
    Ok(None)
}

/// Stores key, CSR and order; the CA is asked only afterwards. Where somebody has to approve first, no order is placed.
async fn attempt(
    ctx: &Context,
    woken: Transition,
    issuer: &Issuer,
    lease: Lease,
) -> Result<Option<Placed>, WorkerError> {
    let certificate = &woken.certificate;
    let now = ctx.clock.now();
    let judged = judge(ctx, certificate).await?;
    let course = certificate.course(judged.as_ref().map_err(Clone::clone), None, now);
    let is_free = course == Course::Order;
    let prepared = match course {
        Course::Block(failure) => Err(failure),
        Course::Order | Course::Ask | Course::GiveUp => prepare(ctx, certificate, now).await?,
    };
    let (by, prepared) = match (judged, prepared) {
        (Ok(judged), Ok(prepared)) => (judged.by, prepared),
        (Err(failure), _) | (_, Err(failure)) => {
            let blocked = woken
                .then(|one| one.order_failed(Outcome::Blocked(failure), 0, now, Jitter::random()));
            settle(ctx, blocked, &lease).await?;
            return Ok(None);
        }
    };
    let admitted = woken.then(|one| Transition::silent(one.admitted(by), now));
    if is_free {
        return place_order(ctx, admitted, prepared, issuer, lease).await;
    }
    let mut tx = ctx.db.begin();
    let deadline = prepared.ask(&mut tx, now + ctx.settings.approval_timeout).await?;
    let request = prepared.request.id;
    let waiting = admitted.then(|one| one.await_approval(request, deadline, now));
    certificates::save(&mut tx, &waiting.remarking(prepared.event), &lease, None).await?;
    tx.commit().await?;
    Ok(None)
}

async fn place_order(
    ctx: &Context,
    admitted: Transition,
    prepared: Prepared,
    issuer: &Issuer,
    lease: Lease,
) -> Result<Option<Placed>, WorkerError> {
    let now = ctx.clock.now();
    let request = prepared.request.id;
    let order = first_order(&admitted.certificate, issuer, request, now);
    let placed = admitted.then(|one| one.order_placed(request, order.id, now));
    let placed = placed.remarking(prepared.event.clone());
    let mut tx = ctx.db.begin();
    let lease = certificates::save(&mut tx, &placed, &lease, None).await?;
    prepared.order(&mut tx, &order, now).await?;
    // Where the issuer's quota is used up, the order waits to be claimed like any other.
    let share = ctx.limits.quota.take_issuer(issuer.id);
    let hold = share.as_ref().map(|_| (ctx.settings.name.as_str(), now));
    let order_lease = orders::insert(&mut tx, &order, hold).await?;
    if let Err(error) = tx.commit().await {
        // It may be there all the same; then nobody is working on it.
        ctx.release(Machine::Order, order.id.0).await;
        return Err(error.into());
    }
    Ok(share.map(|share| Placed {
        order,
        lease: order_lease,
        csr: prepared.request.csr,
        certificate: (placed.certificate, lease),
        share,
    }))
}

/// The first order of an attempt.
fn first_order(
    certificate: &Certificate,
    issuer: &Issuer,
    request: RequestId,
    now: OffsetDateTime,
) -> Order {
    let id = OrderId::generate(now);
    let spec = &certificate.spec;
    let account = issuer.account.as_ref().map(|account| account.url.as_str());
    let not_after = spec.not_after(now).filter(|_| issuer.acme.enable_duration_feature);
    let wants_ari = issuer.acme.renewal_information_source == RenewalInformationSource::Ari;
    Order {
        profile: [&spec.profile, &issuer.acme.profile]
            .into_iter()
            .flatten()
            .find(|profile| !profile.is_empty())
            .cloned(),
        replaces: certificate.replaces(account).filter(|_| wants_ari),
        not_after,
        deadline: certificate.order_deadline(now, not_after),
        ..Order::placed(id, certificate, request, issuer.id, now)
    }
}

/// An order's end changes its certificate in one transaction, so this is never needed; but a
/// certificate that waits for an order that is over would wait for ever.
async fn watch(ctx: &Context, woken: Transition) -> Result<Transition, StorageError> {
    let mut tx = ctx.db.read().await?;
    let order = match woken.certificate.order {
        Some(id) => orders::find(&mut tx, id, &Scope::Everything).await?,
        None => None,
    };
    drop(tx);
    let now = ctx.clock.now();
    if let Some((order, _)) = order.filter(|(order, _)| !order.is_over()) {
        return Ok(woken.looking_again_at(order.deadline.max(now) + time::Duration::hours(1)));
    }
    let failure = Failure::of(code::ORDER_GONE, "");
    Ok(woken.then(|one| one.order_failed(Outcome::Failed(failure), 0, now, Jitter::NONE)))
}

async fn settle(ctx: &Context, transition: Transition, lease: &Lease) -> Result<(), StorageError> {
    let mut tx = ctx.db.begin();
    certificates::save(&mut tx, &transition, lease, None).await?;
    tx.commit().await?;
    Ok(())
}
