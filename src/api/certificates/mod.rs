//! Certificates: showing them.

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::AppState;
use super::auth::{Authorized, CertificatesRead};
use super::extract::Path;
use super::precondition::Precondition;
use super::problem::{ApiError, Code, Errors};
use super::wait::Wait;
use crate::domain::certificate::Certificate;
use crate::domain::id::CertificateId;
use crate::storage::{Read, Scope, certificates, lease::Lease};

pub(crate) mod admit;
pub(crate) mod cancel;
pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod download;
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod quota;
pub(crate) mod renew;
#[cfg(test)]
mod respelled;
pub(crate) mod revisions;
pub(crate) mod revoke;
pub(crate) mod validate;

use crate::view::CertificateView;

/// Get a certificate
#[utoipa::path(get, path = "/certificates/{id}", operation_id = "getCertificate", tag = "certificates",
    params(
        ("id" = Uuid, Path, description = "The certificate"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until the certificate settles (ready or failed), at most that many seconds, at most 300"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds"),
    ),
    responses((status = 200, body = CertificateView, description = "The certificate", headers(("ETag" = String), ("Preference-Applied" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    wait: Wait,
    known: Precondition,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let read = || read(&app, &who.scope, id);
    let certificate = wait.until(&app, &who, id, read, Certificate::is_settled).await?;
    let view = CertificateView::of(&certificate, app.now());
    Ok(wait.applied(known.show(&view)?))
}

/// Reads a certificate.
async fn read(app: &AppState, scope: &Scope, id: Uuid) -> Result<Certificate, ApiError> {
    find(&mut app.db.read().await?, id, scope).await.map(|(certificate, _)| certificate)
}

/// The certificate, if the caller may know of it.
async fn find(tx: &mut Read, id: Uuid, scope: &Scope) -> Result<(Certificate, Lease), ApiError> {
    let found = certificates::find(tx, CertificateId(id), scope).await?;
    found.ok_or_else(|| ApiError::not_found("certificate", id))
}

/// Refuses to change a certificate that waits to be deleted.
pub(crate) fn must_stay(certificate: &Certificate) -> Result<(), ApiError> {
    if certificate.deleting_since.is_none() {
        return Ok(());
    }
    let detail = format!(
        "The certificate {} is being revoked and is deleted then. A DELETE without `revoke` deletes it at once.",
        certificate.id
    );
    Err(ApiError::Because(Code::BeingDeleted, detail))
}
