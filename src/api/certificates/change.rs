//! Changing and deleting certificates.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use super::admit::Against;
use super::cancel::cancel_orders;
use super::quota::Growth;
use super::validate::{Checked, validate};
use super::{find, must_stay, revoke};
use crate::api::auth::{Authorized, CertificatesWrite, Principal};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Body, Path, Query as Strict};
use crate::api::idempotency::accepted;
use crate::api::merge_patch::MergePatch;
use crate::api::precondition::{Precondition, answer, json};
use crate::api::problem::{ApiError, Errors, FieldCode};
use crate::api::{AppState, patch_schema, retrying};
use crate::domain::certificate::Certificate;
use crate::domain::policy::AdmittedBy;
use crate::storage::lease::Lease;
use crate::storage::{Tx, certificates, policies};
use crate::view::CertificateView;
use crate::view::spec::CertificateSpec;

/// Update a certificate
///
/// A JSON merge patch (RFC 7396): what is given replaces, `null` removes. Where another certificate
/// is wanted then, it is issued at once, whatever the backoff.
#[utoipa::path(patch, path = "/certificates/{id}", operation_id = "changeCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body(content((CertificatePatch = "application/merge-patch+json"), (CertificatePatch = "application/json")), description = "The fields to change"),
    responses((status = 200, body = CertificateView, description = "Changed", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn change(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    Strict(dry): Strict<DryRun>,
    known: Precondition,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        must_stay(&present)?;
        known.must_match(&CertificateView::of(&present, now))?;
        let fixed = [("namespace", &*present.namespace), ("name", &*present.name)];
        let checked = validate(&patch.apply(&CertificateSpec::from(&present), &fixed)?)?;
        let issuer = checked.find_issuer(&mut tx).await?;
        let policies = policies::cached(&app.db, &present.namespace).await?;
        let (issuer, policies) = (issuer.as_ref(), &*policies);
        let against = Against { issuer, policies, present: Some(&present), imported: None };
        let right = checked.admit(&app, &mut tx, &who, against).await?;
        let next = respecify(&mut tx, (&present, &lease), checked, (&who, right), now).await?;
        if next != present {
            Growth::by(Some(&present), &next).must_fit(&app, &mut tx).await?;
            dry.end(tx).await?;
        }
        Ok(dry.told(answer(StatusCode::OK, json(&CertificateView::of(&next, now))?)))
    })
    .await
}

/// Gives a certificate the specification that was admitted for somebody by this right, and cancels orders for the former
/// one. Writes nothing if nothing changes.
pub(crate) async fn respecify(
    tx: &mut Tx,
    (present, lease): (&Certificate, &Lease),
    checked: Checked,
    (who, right): (&Principal, AdmittedBy),
    now: OffsetDateTime,
) -> Result<Certificate, ApiError> {
    let anew = !present.spec.wants_the_same_as(&checked.spec);
    let wanted = present.clone();
    let wanted = if anew { wanted.requested_by(who.reference()) } else { wanted };
    let mut next = wanted.respecified(checked.spec, checked.labels, right, now);
    if !anew && next.certificate.comes_sooner_than(present) {
        next.certificate = next.certificate.triggered_by(who.reference());
    }
    if next.certificate != *present {
        if anew {
            cancel_orders(tx, present, "its certificate was changed", now).await?;
        }
        certificates::respecify(tx, &next, lease).await?;
    }
    Ok(next.certificate)
}

/// Replace a certificate's CSR
///
/// For certificates whose key a client holds. A certificate for the new one is issued at once,
/// whatever the backoff; the former stays served until then.
#[utoipa::path(put, path = "/certificates/{id}/csr", operation_id = "replaceCsr", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = CsrSpec,
    responses((status = 200, body = CertificateView, description = "Replaced", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn replace_csr(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    dry: Strict<DryRun>,
    known: Precondition,
    body: Body<CsrSpec>,
) -> Result<Response, ApiError> {
    let (present, _) = find(&mut app.db.read().await?, id, &who.scope).await?;
    if present.spec.csr.is_none() {
        let detail = "the key of this certificate is made here; a PATCH of `csr` changes that";
        return Err(ApiError::field("/csr", FieldCode::Conflicting, detail));
    }
    let patch = Map::from_iter([("csr".to_owned(), Value::String(body.value.csr))]);
    change(State(app), who, Path(id), dry, known, MergePatch(patch)).await
}

/// A CSR instead of the present one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CsrSpec {
    /// In PEM; the names are those of its `subjectAltName`.
    csr: String,
}

/// A merge patch of a certificate; it only describes.
pub(crate) enum CertificatePatch {}

impl PartialSchema for CertificatePatch {
    fn schema() -> RefOr<Schema> {
        patch_schema::of::<CertificateSpec>()
    }
}

impl ToSchema for CertificatePatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CertificateSpec::schemas(schemas);
    }
}

/// Options of a deletion. Extracted as `Strict`, so that an unknown query parameter is refused, not ignored.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// Have the CA revoke first what was issued and is still valid.
    #[serde(default)]
    #[param(default = false)]
    revoke: bool,
    /// Only say what would happen: the answer is the same, with the header `Dry-Run: true`, and nothing is stored.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// Delete a certificate
///
/// Ends its management and forgets its keys. What was issued stays valid, unless it is revoked first:
/// then the certificate is shown, with `deletionTimestamp`, until the CA has done that, for up to three
/// days. An order that is under way is given up, and what it has shown is still cleaned up.
#[utoipa::path(delete, path = "/certificates/{id}", operation_id = "deleteCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), Deletion, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Deleted", headers(("Dry-Run" = String))), (status = 202, body = CertificateView, description = "Accepted; it is deleted once it is revoked", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    Strict(how): Strict<Deletion>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let dry = DryRun::new(how.dry_run);
    retrying(|| async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        known.must_match(&CertificateView::of(&present, now))?;
        // Orders first, as workers do: the other way round, the two could wait for each other.
        cancel_orders(&mut tx, &present, "its certificate was deleted", now).await?;
        if how.revoke && revoke::everything(&mut tx, &present, now).await? {
            let next = revoke::then_delete(&mut tx, present, &lease, now).await?;
            dry.end(tx).await?;
            let body = json(&CertificateView::of(&next, now))?;
            return Ok(dry.told(accepted(&format!("/certificates/{id}"), body)));
        }
        // Fenced like any change, so that nothing that was saved meanwhile is lost unseen.
        let deleted = present.deleted(now);
        certificates::save(&mut tx, &deleted, &lease, None).await?;
        certificates::delete(&mut tx, deleted.certificate.id).await?;
        dry.end(tx).await?;
        Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}
