//! Certificates: listing and showing them.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Authorized, CertificatesRead};
use super::extract::{Path, Query};
use super::page::{self, Listing, Sort};
use super::precondition::Precondition;
use super::problem::{ApiError, Code, Errors};
use super::wait::Wait;
use super::{AppState, field};
use crate::domain::certificate::Certificate;
use crate::domain::id::CertificateId;
use crate::domain::name::DnsName;
use crate::storage::certificates::{self, Wanted};
use crate::storage::{Read, Scope, lease::Lease};

mod admit;
pub(crate) mod cancel;
pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod download;
pub(crate) mod explain;
pub(crate) mod revisions;
#[cfg(test)]
mod respelled;
pub(crate) mod revoke;
pub(crate) mod validate;

use crate::view::CertificateView;

/// Filters for certificates.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListCertificates {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// Served and valid now, or not.
    ready: Option<bool>,
    /// Of the issuer of this name.
    issuer: Option<String>,
    /// For this DNS name or IP address.
    dns_name: Option<String>,
    /// Ending before this moment (RFC 3339).
    expires_before: Option<String>,
    /// Carrying this label, written `key=value`.
    label: Option<String>,
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// The sort order.
    sort: Option<Sort>,
}

/// List certificates
#[utoipa::path(get, path = "/certificates", operation_id = "listCertificates", tag = "certificates",
    params(ListCertificates),
    responses((status = 200, body = Listing<CertificateView>, description = "A page of certificates", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListCertificates>,
) -> Result<Response, ApiError> {
    let page = page::page(query.limit, query.cursor.as_deref(), query.sort)?;
    let now = app.now();
    let dns_name = query.dns_name.map(|name| match DnsName::parse(&name) {
        Ok(name) => name.as_str().to_owned(),
        Err(_) => name,
    });
    let expires_before = query.expires_before.as_deref();
    let wanted = Wanted {
        namespace: query.namespace,
        name: query.name,
        ready: query.ready.map(|ready| (ready, now)),
        issuer: query.issuer,
        dns_name,
        expires_before: expires_before
            .map(|text| field::moment(text, "expiresBefore"))
            .transpose()?,
        label: query.label,
    };
    let mut tx = app.db.read().await?;
    let rows = certificates::list(&mut tx, &who.scope, &wanted, page).await?;
    let key = |row: &Certificate| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, page.limit, rows, key, |row| CertificateView::of(&row, now)))
}

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
    let read = || read(&app, &who.scope, id);
    let certificate = wait.until(&app, &who, id, read, Certificate::is_settled).await?;
    let view = CertificateView::of(&certificate, app.now());
    Ok(wait.applied(known.show(&view)?))
}

/// Reads a certificate.
async fn read(app: &AppState, scope: &Scope, id: Uuid) -> Result<Certificate, ApiError> {
    let mut tx = app.db.read().await?;
    find(&mut tx, id, scope).await.map(|(certificate, _)| certificate)
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
