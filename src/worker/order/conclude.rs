//! Concludes an order: its end changes its request, its certificate, and sometimes its issuer.

use time::OffsetDateTime;

use super::session::Download;
use crate::domain::ari::Ari;
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, Issued, Transition};
use crate::domain::failure::{Failure, code};
use crate::domain::id::OrderId;
use crate::domain::issuer;
use crate::domain::order::{self, Order, Outcome};
use crate::pki::Leaf;
use crate::storage::lease::Lease;
use crate::storage::requests::RequestState;
use crate::storage::revisions::{self, Revision};
use crate::storage::{Scope, StorageError, Tx, certificates, issuers, orders, requests};

/// How an order has ended.
pub(super) struct Ended<'a> {
    pub(super) order: &'a Order,
    pub(super) outcome: &'a Outcome,
    pub(super) download: Option<&'a Download>,
}

pub(super) async fn conclude(
    tx: &mut Tx,
    Ended { order, outcome, download }: Ended<'_>,
    certificate: Certificate,
    lease: &Lease,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let mut transition = match (outcome, download) {
        (Outcome::Issued, Some(download)) => issued(tx, order, download, certificate, now).await?,
        (outcome, _) => {
            let issuer = issuers::find(tx, order.issuer, &Scope::Everything).await?;
            let retry = issuer.and_then(|(issuer, _)| issuer.acme.retry);
            let (outcome, predecessors) = (outcome.clone(), order.predecessors);
            let jitter = Jitter::random();
            certificate.order_failed_under(retry.as_ref(), outcome, predecessors, now, jitter)
        }
    };
    let failure = failure_of(outcome);
    if let Some(at) = transition.fresh_order_at {
        let mut fresh = successor(order, OrderId::generate(now), now, at);
        fresh.not_after = fresh.not_after.and(transition.certificate.spec.not_after(at));
        fresh.deadline = transition.certificate.order_deadline(at, fresh.not_after);
        transition = transition.with_fresh_order(fresh.id);
        orders::insert(tx, &fresh, None).await?;
        let message = format!("The CA lost order {}; waiting on order {}", order.id, fresh.id);
        let (request, state) = (order.request, RequestState::Pending);
        requests::progress(tx, request, state, &message, fresh.id, now).await?;
    } else if let Some(failure) = failure {
        let (message, state) = (failure.to_string(), RequestState::Failed);
        requests::progress(tx, order.request, state, &message, order.id, now).await?;
    }
    if let Some(failure) = failure {
        tell_issuer(tx, order, failure, now).await?;
    }
    certificates::save(tx, &transition, lease, None).await?;
    Ok(())
}

/// Stores what was issued as the certificate's next revision.
async fn issued(
    tx: &mut Tx,
    order: &Order,
    download: &Download,
    certificate: Certificate,
    now: OffsetDateTime,
) -> Result<Transition, StorageError> {
    let revision = certificate.current.as_ref().map_or(0, |issued| issued.revision) + 1;
    let Leaf { serial, fingerprint, not_before, not_after, ari } = download.leaf.clone();
    let (account, validity) = (download.account.clone(), (not_before, not_after));
    let ari = ari.map(|name| Ari::new(name, account, validity, now, Jitter::random()));
    let renewal_time = certificate.renewal(not_before, not_after, ari.as_ref());
    let kept = i64::from(certificate.spec.revision_history_limit.max(1));
    let stored = Revision {
        certificate: certificate.id,
        revision,
        request: order.request,
        order: order.id,
        chain: download.chain.clone(),
        serial: serial.clone(),
        fingerprint,
        not_before,
        not_after,
        issued_at: now,
        revoked_at: None,
    };
    let message = "Certificate fetched from issuer successfully";
    revisions::insert(tx, &stored, kept, message).await?;
    let issued = Issued { revision, serial, not_before, not_after, renewal_time };
    Ok(certificate.issued(issued, ari, now).remarking(download.remarks.iter().cloned()))
}

/// Some failures are about the account: the issuer is not ready any more, and says so with every
/// certificate that waits for it.
async fn tell_issuer(
    tx: &mut Tx,
    order: &Order,
    failure: &Failure,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let is_forgotten = failure.is(code::ACME_ACCOUNT_DOES_NOT_EXIST);
    if !is_forgotten && !failure.is(code::ACME_USER_ACTION_REQUIRED) {
        return Ok(());
    }
    let found = issuers::find(tx, order.issuer, &Scope::Everything).await?;
    let ready = found.filter(|(issuer, _)| issuer.state == issuer::State::Ready);
    let Some((issuer, lease)) = ready else { return Ok(()) };
    let told = if is_forgotten {
        // It registers again by itself.
        issuer.denied(now)
    } else {
        issuer.not_registered(failure.clone(), now, Jitter::random())
    };
    issuers::save(tx, &told, &lease).await?;
    Ok(())
}

fn failure_of(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Issued => None,
        Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) => {
            Some(failure)
        }
    }
}

/// A fresh order for the same request: the same key and CSR, from the beginning.
fn successor(lost: &Order, id: OrderId, now: OffsetDateTime, at: OffsetDateTime) -> Order {
    let request = lost.name.rsplit_once('-').map_or(lost.name.as_str(), |(request, _)| request);
    Order {
        id,
        name: order::name(request, id),
        predecessors: lost.predecessors + 1,
        state: order::State::New,
        expires: None,
        challenges: Vec::new(),
        tries: 0,
        stalled_since: None,
        course: lost.course.for_successor(),
        attempts: 0,
        last_error: None,
        created_at: now,
        handed_out_at: now,
        next_action_at: Some(at),
        deadline: at + order::ORDER_DEADLINE,
        ..lost.clone()
    }
}
