//! Revokes certificates at their CAs, by the account's key or by the certificate's own.

use super::context::{Context, STEP_TIMEOUT};
use super::error::{Tried, WorkerError};
use crate::domain::backoff::Jitter;
use crate::domain::certificate::{Certificate, Transition};
use crate::domain::failure::{Failure, code};
use crate::domain::id::RevocationId;
use crate::domain::revocation::{Revocation, State};
use crate::storage::lease::Lease;
use crate::storage::revocations::Evidence;
use crate::storage::{
    Scope, StorageError, certificates, issuers, requests, revisions, revocations,
};

pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let found = revocations::find(&mut ctx.db.read().await?, RevocationId(lease.id)).await?;
    let Some((revocation, evidence)) = found.filter(|(it, _)| it.state == State::Pending) else {
        return Ok(());
    };
    let asked = tokio::time::timeout(STEP_TIMEOUT, revoke(ctx, &revocation, &evidence)).await;
    failpoint!("after_revoke");
    let answer = match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(trouble)) => Err(trouble.into_failure()?),
        Err(_) => Err(Failure::timed_out("The revocation took too long", STEP_TIMEOUT)),
    };
    let next = revocation.apply(answer, ctx.clock.now(), Jitter::random());
    for _ in 0..10 {
        match settle(ctx, &next, &lease).await {
            // Its certificate was changed by somebody else meanwhile.
            Err(WorkerError::Storage(StorageError::LeaseLost(id))) if id != lease.id => {}
            settled => return settled,
        }
    }
    settle(ctx, &next, &lease).await
}

/// A step failed inside: for the revocation that is a failure like any other.
pub(crate) async fn fail(
    ctx: &Context,
    id: RevocationId,
    failure: Failure,
    held: &Lease,
) -> Result<bool, WorkerError> {
    let found = revocations::find(&mut ctx.db.read().await?, id).await?;
    let Some((revocation, _)) = found else { return Ok(false) };
    let next = revocation.apply(Err(failure), ctx.clock.now(), Jitter::random());
    settle(ctx, &next, held).await?;
    Ok(true)
}

/// Revokes by the account's key; where the CA refuses that, by the certificate's own.
async fn revoke(ctx: &Context, revocation: &Revocation, evidence: &Evidence) -> Tried<()> {
    let mut tx = ctx.db.read().await?;
    let found = issuers::find(&mut tx, revocation.issuer, &Scope::Everything).await?;
    let Some((issuer, _)) = found else {
        return Err(Failure::of(
            code::ISSUER_NOT_FOUND,
            "Without it nobody knows which CA to tell.",
        )
        .into());
    };
    let sealed = issuers::account_key(&mut tx, issuer.id).await?;
    drop(tx);
    let (leaf, reason) = (&evidence.leaf, revocation.reason);
    let by_account = match &issuer.account {
        None => Err(Failure::of(code::ISSUER_NOT_READY, "")),
        Some(known) => {
            let place = issuers::account_key_place(&issuer);
            let key = ctx.sealer.open(&place, &sealed)?;
            match ctx.ca.of(issuer.kind).account(&issuer.acme, &key, &known.url).await {
                Ok(account) => account.revoke(leaf, reason).await,
                Err(failure) => Err(failure),
            }
        }
    };
    let (Err(failure), Some(own)) = (&by_account, &evidence.private_key) else {
        return Ok(by_account?);
    };
    if !failure.is_refusal() || failure.is(code::ACME_BAD_REVOCATION_REASON) {
        return Ok(by_account?);
    }
    let (namespace, certificate) = (&revocation.namespace, revocation.certificate);
    let place = requests::private_key_place(namespace, certificate, evidence.request);
    let own = ctx.sealer.open(&place, own)?;
    match ctx.ca.of(issuer.kind).revoke_by_key(&issuer.acme, &own, leaf, reason).await {
        Ok(()) => Ok(()),
        Err(second) if second.is(code::ACME_ALREADY_REVOKED) => Err(second.into()),
        // The first answer says more about what a person can do.
        Err(_) => Ok(by_account?),
    }
}

/// The revocation, its revision, its certificate, and the history: all or nothing.
pub(crate) async fn settle(
    ctx: &Context,
    revocation: &Revocation,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin();
    revocations::save(&mut tx, revocation, lease).await?;
    if revocation.state == State::Done {
        revisions::revoked(&mut tx, revocation.certificate, revocation.revision, now).await?;
    }
    let found = certificates::find(&mut tx, revocation.certificate, &Scope::Everything).await?;
    if let Some((certificate, lease)) = found {
        let mut told = certificate.revocation_progressed(revocation, now);
        let (id, waits) = (told.certificate.id, told.certificate.deleting_since.is_some());
        let over = waits
            && revocation.state != State::Pending
            && !revocations::any_pending(&mut tx, id).await?;
        if over {
            told = told.then(|one| one.deleted(now));
        }
        certificates::save(&mut tx, &told, &lease, None).await?;
        if over {
            certificates::delete(&mut tx, id).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Deletes a certificate whose revocations are over. Usually the last revocation does so; this is for
/// certificates that it missed.
pub(crate) async fn delete_at_last(
    ctx: &Context,
    certificate: Certificate,
    lease: &Lease,
) -> Result<(), WorkerError> {
    let (id, now) = (certificate.id, ctx.clock.now());
    let mut tx = ctx.db.begin();
    if revocations::any_pending(&mut tx, id).await? {
        let later = Transition::silent(certificate, now);
        let later = later.looking_again_at(now + time::Duration::hours(1));
        certificates::save(&mut tx, &later, lease, None).await?;
    } else {
        certificates::save(&mut tx, &certificate.deleted(now), lease, None).await?;
        certificates::delete(&mut tx, id).await?;
    }
    tx.commit().await?;
    Ok(())
}
