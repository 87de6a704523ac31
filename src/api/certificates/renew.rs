//! Renewing a certificate now.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;
use uuid::Uuid;

use super::quota::Growth;
use super::{find, must_stay};
use crate::api::auth::{Authorized, CertificatesWrite};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Path, Query};
use crate::api::idempotency::{IdempotencyKey, accepted};
use crate::api::precondition::{Precondition, json};
use crate::api::problem::{ApiError, Errors};
use crate::api::wait::Held;
use crate::api::{AppState, retrying};
use crate::domain::certificate::{Certificate, Trigger};
use crate::storage::lease::LEASE;
use crate::storage::{Tx, audit, certificates, orders};
use crate::view::CertificateView;

/// Renew a certificate
///
/// Ignores the backoff, and joins an issuance that is under way already: an order that waits is tried
/// now, unless it waits because the CA asked for that. `explain` tells what is under way, and until when.
#[utoipa::path(post, path = "/certificates/{id}/renew", operation_id = "renewCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 202, body = CertificateView, description = "Accepted; it is being issued", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn renew(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &[], dry);
    let location = format!("/certificates/{id}");
    let once = || async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        must_stay(&present)?;
        known.must_match(&CertificateView::of(&present, now))?;
        let mut next = present.clone().trigger(Trigger::ManuallyTriggered, now);
        let is_new = next.certificate != present;
        next.certificate = next.certificate.triggered_by(who.reference());
        if is_new {
            certificates::save(&mut tx, &next, &lease, None).await?;
            Growth::by(Some(&present), &next.certificate).must_fit(&app, &mut tx).await?;
        }
        audit::changes(&mut tx, "certificates", present.id.0, &present.namespace);
        let body = json(&CertificateView::of(&next.certificate, now))?;
        attempt.remember(&app, &mut tx, (StatusCode::ACCEPTED, &location), &body).await?;
        if is_new || wake_orders(&mut tx, &present, now).await? || attempt.is_named() {
            dry.end(tx).await?;
        }
        Ok(dry.told(accepted(&location, body)))
    };
    attempt.once(&app, &Held::default(), || retrying(once)).await
}

/// Wakes the orders of a certificate that wait. One that is due within a lease is left alone: a worker may be at
/// it, and its step would be lost.
async fn wake_orders(
    tx: &mut Tx,
    certificate: &Certificate,
    now: OffsetDateTime,
) -> Result<bool, ApiError> {
    let mut woke = false;
    for (order, lease) in orders::open_of_certificate(tx, certificate.id).await? {
        if order.next_action_at.is_none_or(|at| at <= now + LEASE) {
            continue;
        }
        let before = order.challenges.clone();
        if let Some(next) = order.woken(now) {
            orders::save(tx, &next, &before, &lease, None).await?;
            woke = true;
        }
    }
    Ok(woke)
}
