//! Reviews: judges certificates anew after a policy has changed, a page in each step.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::certificate::{Certificate, Transition};
use crate::domain::id::{CertificateId, PolicyReviewId};
use crate::domain::policy::{EVERY, Policies};
use crate::pki;
use crate::storage::certificates::Wanted;
use crate::storage::lease::Lease;
use crate::storage::{Page, Scope, StorageError, certificates, policies, policy_reviews};
use crate::worker::context::{Context, SAVES};
use crate::worker::error::WorkerError;

/// Certificates that are judged in one step.
const PAGE: u32 = 200;

/// Judges the next page of a review. A policy that changes meanwhile takes the lease away and begins the review anew.
pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let mut tx = ctx.db.read().await?;
    let found = policy_reviews::find(&mut tx, PolicyReviewId(lease.id)).await?;
    let Some(review) = found else { return Ok(()) };
    let page = Page { after: review.reviewed_to.map(|id| id.0), ..Page::first(PAGE) };
    let wanted = Wanted {
        namespace: Some(review.namespace).filter(|namespace| namespace != EVERY),
        admitted_way: Some("policy"),
        ..Wanted::default()
    };
    let mut found = certificates::list(&mut tx, &Scope::Everything, &wanted, page).await?.rows;
    drop(tx);
    // One more was read than fits into the page.
    let limit = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let mut known: HashMap<&str, Arc<Policies>> = HashMap::new();
    for certificate in &found {
        let namespace = certificate.namespace.as_str();
        let policies = match known.get(namespace) {
            Some(policies) => Arc::clone(policies),
            None => policies::cached(&ctx.db, namespace).await?,
        };
        known.insert(namespace, Arc::clone(&policies));
        if reviewed(ctx, certificate.clone(), &policies).is_some() {
            save(ctx, certificate.id, &policies).await?;
        }
    }
    let reviewed_to = found.last().filter(|_| !is_last).map(|last| last.id);
    let mut tx = ctx.db.begin();
    policy_reviews::settle(&mut tx, &lease, reviewed_to, ctx.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}

fn reviewed(ctx: &Context, certificate: Certificate, policies: &Policies) -> Option<Transition> {
    let judged = certificate.judged(policies, pki::wanted_key(&certificate.spec));
    certificate.reviewed(judged, ctx.clock.now())
}

/// Saves what the judgement changes, in a transaction of its own; judges again where somebody else has changed the
/// certificate meanwhile.
async fn save(ctx: &Context, id: CertificateId, policies: &Policies) -> Result<(), StorageError> {
    for _ in 0..SAVES {
        match try_save(ctx, id, policies).await {
            Err(StorageError::LeaseLost(_)) => {}
            done => return done,
        }
    }
    try_save(ctx, id, policies).await
}

async fn try_save(
    ctx: &Context,
    id: CertificateId,
    policies: &Policies,
) -> Result<(), StorageError> {
    let mut tx = ctx.db.begin();
    let found = certificates::find(&mut tx, id, &Scope::Everything).await?;
    let Some((certificate, lease)) = found else { return Ok(()) };
    let Some(next) = reviewed(ctx, certificate, policies) else { return Ok(()) };
    certificates::save(&mut tx, &next, &lease, None).await?;
    tx.commit().await
}
