//! Revoking certificates.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use super::cancel::cancel_orders;
use super::download::not_issued;
use super::{find, must_stay};
use crate::api::auth::{Authorized, CertificatesWrite, Principal};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Body, Path, Query};
use crate::api::idempotency::{IdempotencyKey, accepted};
use crate::api::precondition::{Precondition, json};
use crate::api::problem::{ApiError, Code, Errors, FieldCode};
use crate::api::wait::Held;
use crate::api::{AppState, retrying};
use crate::domain::certificate::{Certificate, State as CertificateState, Transition, Trigger};
use crate::domain::id::{IssuerId, RevocationId};
use crate::domain::revocation::{self, DEADLINE, Reason, Revocation};
use crate::pki;
use crate::storage::lease::Lease;
use crate::storage::revisions::Revision;
use crate::storage::{
    Page, Read, Scope, Tx, certificates, issuers, orders, revisions, revocations,
};
use crate::view::CertificateView;

/// A revocation to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "keyCompromise"}))]
pub(crate) struct RevocationSpec {
    /// `unspecified` (when absent), `keyCompromise`, `affiliationChanged`, `superseded` or
    /// `cessationOfOperation`.
    reason: Option<String>,
    /// The revision; the served one when absent.
    #[schema(minimum = 1)]
    revision: Option<i64>,
}

/// More revisions than are ever kept.
const ALL: u32 = 500;

/// Revoke a certificate
///
/// The CA is told in the background, for up to three days if it cannot be reached; `status.revocation`
/// tells how it goes. A served certificate that was revoked is issued anew; after `keyCompromise` with
/// a new key in any case, and every kept revision with the same key is revoked with it.
#[utoipa::path(post, path = "/certificates/{id}/revoke", operation_id = "revokeCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = RevocationSpec,
    responses((status = 202, body = CertificateView, description = "Accepted; the CA is being told", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn revoke(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
    body: Body<RevocationSpec>,
) -> Result<Response, ApiError> {
    let reason = reason(body.value.reason.as_deref())?;
    let attempt = key.attempt(&who, &body.content, dry);
    let location = format!("/certificates/{id}");
    let once = || async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        must_stay(&present)?;
        known.must_match(&CertificateView::of(&present, now))?;
        let wanted = wanted(&mut tx, &present, body.value.revision, now).await?;
        let next = match wanted.revoked_at {
            Some(_) => present,
            None => begin(&mut tx, (present, &lease), &who, &wanted, (reason, now)).await?,
        };
        let body = json(&CertificateView::of(&next, now))?;
        attempt.remember(&app, &mut tx, (StatusCode::ACCEPTED, &location), &body).await?;
        dry.end(tx).await?;
        Ok(dry.told(accepted(&location, body)))
    };
    attempt.once(&app, &Held::default(), || retrying(once)).await
}

/// The revision that is meant, unless it has ended.
async fn wanted(
    tx: &mut Read,
    present: &Certificate,
    revision: Option<i64>,
    now: OffsetDateTime,
) -> Result<Revision, ApiError> {
    let served = present.current.as_ref().map(|issued| issued.revision);
    let number = revision.or(served).unwrap_or_default();
    let wanted = revisions::find(tx, present.id, number).await?;
    let wanted = wanted.ok_or_else(|| not_issued(present.id.0, number))?;
    if wanted.not_after <= now {
        let detail =
            format!("revision {number} ended at {}: there is nothing to revoke", wanted.not_after);
        return Err(ApiError::field("/revision", FieldCode::Invalid, detail));
    }
    Ok(wanted)
}

/// Stores the revocation of a revision, and of those with the same key if that is compromised.
async fn begin(
    tx: &mut Tx,
    (mut certificate, lease): (Certificate, &Lease),
    who: &Principal,
    wanted: &Revision,
    (reason, now): (Reason, OffsetDateTime),
) -> Result<Certificate, ApiError> {
    let mut targets = vec![wanted.clone()];
    if reason == Reason::KeyCompromise {
        targets = of_the_same_key(valid(tx, &certificate, now).await?, wanted)?;
    }
    let served = certificate.current.as_ref().map(|issued| issued.revision);
    if targets.iter().any(|target| served == Some(target.revision)) {
        // It is issued anew then.
        certificate = certificate.triggered_by(who.reference());
    }
    let mut told = Transition::silent(certificate, now);
    for target in &targets {
        if revocations::is_pending(tx, target.certificate, target.revision).await? {
            continue;
        }
        insert(tx, &told.certificate, target, reason, now).await?;
        told = told.then(|one| one.revocation_wanted(target.revision, reason, now));
    }
    let certificate = &told.certificate;
    if certificate.key_is_compromised()
        && certificate.keeps_its_key()
        && matches!(
            certificate.state,
            CertificateState::Ordering(_) | CertificateState::AwaitingApproval(_)
        )
    {
        // The current order, or request, would issue for the compromised key.
        cancel_orders(tx, certificate, "the key of its certificate is compromised", now).await?;
        told = told.then(|one| one.restarted(Trigger::Revoked, now));
    }
    certificates::save(tx, &told, lease, None).await?;
    Ok(told.certificate)
}

/// Stores revocations of all valid revisions; returns whether there are any.
pub(super) async fn everything(
    tx: &mut Tx,
    certificate: &Certificate,
    now: OffsetDateTime,
) -> Result<bool, ApiError> {
    let targets = valid(tx, certificate, now).await?;
    for target in &targets {
        if !revocations::is_pending(tx, certificate.id, target.revision).await? {
            insert(tx, certificate, target, Reason::CessationOfOperation, now).await?;
        }
    }
    Ok(!targets.is_empty())
}

/// Marks the certificate to be deleted with the last of its revocations.
pub(super) async fn then_delete(
    tx: &mut Tx,
    certificate: Certificate,
    lease: &Lease,
    now: OffsetDateTime,
) -> Result<Certificate, ApiError> {
    let revision = certificate.current.as_ref().map(|issued| issued.revision);
    let mut told = Transition::silent(certificate, now);
    if let Some(revision) = revision {
        told = told.then(|one| one.revocation_wanted(revision, Reason::CessationOfOperation, now));
    }
    let told = told.then(|one| one.delete_once_revoked(now + DEADLINE + Duration::hours(1), now));
    certificates::save(tx, &told, lease, None).await?;
    Ok(told.certificate)
}

/// The kept revisions that are neither over nor revoked, oldest first.
async fn valid(
    tx: &mut Read,
    certificate: &Certificate,
    now: OffsetDateTime,
) -> Result<Vec<Revision>, ApiError> {
    let mut kept = revisions::list(tx, certificate.id, None, Page::first(ALL)).await?.rows;
    kept.retain(|one| one.not_after > now && one.revoked_at.is_none());
    kept.reverse();
    Ok(kept)
}

fn of_the_same_key(kept: Vec<Revision>, wanted: &Revision) -> Result<Vec<Revision>, ApiError> {
    let compromised = public_key(wanted)?;
    let mut same = Vec::new();
    for one in kept {
        if one.revision == wanted.revision || public_key(&one)? == compromised {
            same.push(one);
        }
    }
    Ok(same)
}

fn public_key(revision: &Revision) -> Result<Vec<u8>, ApiError> {
    let inside = |error: pki::PkiError| ApiError::Inside(Box::new(error));
    pki::public_key_of_certificate(&leaf(revision)?).map_err(inside)
}

fn leaf(revision: &Revision) -> Result<Vec<u8>, ApiError> {
    pki::leaf(&revision.chain).map_err(|error| ApiError::Inside(Box::new(error)))
}

async fn insert(
    tx: &mut Tx,
    certificate: &Certificate,
    target: &Revision,
    reason: Reason,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let revocation = Revocation {
        id: RevocationId::generate(now),
        certificate: certificate.id,
        namespace: certificate.namespace.clone(),
        issuer: issuer_of(tx, certificate, target).await?,
        revision: target.revision,
        reason,
        state: revocation::State::Pending,
        tries: 0,
        last_error: None,
        created_at: now,
        next_action_at: Some(now),
        deadline: now + DEADLINE,
    };
    revocations::insert(tx, &revocation, &leaf(target)?).await?;
    Ok(())
}

/// The issuer by whose account the revision was issued: its order's, else the one that the certificate names now.
async fn issuer_of(
    tx: &mut Read,
    certificate: &Certificate,
    target: &Revision,
) -> Result<IssuerId, ApiError> {
    if let Some((order, _)) = orders::find(tx, target.order, &Scope::Everything).await?
        && issuers::find(tx, order.issuer, &Scope::Everything).await?.is_some()
    {
        return Ok(order.issuer);
    }
    let named = &certificate.spec.issuer_ref;
    let found = issuers::find_by_name(tx, named.kind, &certificate.namespace, &named.name).await?;
    found.map(|(issuer, _)| issuer.id).ok_or_else(|| {
        let detail = format!(
            "There is no {} `{}` (any more) by whose account revision {} could be revoked.",
            named.kind.as_str(),
            named.name,
            target.revision
        );
        ApiError::Because(Code::AccountNotReady, detail)
    })
}

fn reason(given: Option<&str>) -> Result<Reason, ApiError> {
    let Some(text) = given else { return Ok(Reason::Unspecified) };
    Reason::parse(text).ok_or_else(|| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let detail = format!("is one of {}", known.join(", "));
        ApiError::field("/reason", FieldCode::Invalid, detail)
    })
}
