//! Changing, renewing and deleting certificates.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::check::{Checked, check};
use super::spec::CertificateSpec;
use super::{find, revoke};
use crate::api::auth::{Authorized, CertificatesWrite};
use crate::api::extract::{Body, MergePatch, Path, Query as Strict, from_value};
use crate::api::idempotency::accepted;
use crate::api::precondition::{Precondition, answer, json};
use crate::api::problem::{ApiError, Code, Errors, Faults, FieldCode};
use crate::api::{AppState, retrying};
use crate::domain::certificate::{Certificate, Trigger};
use crate::storage::lease::Lease;
use crate::storage::requests::{self, RequestState};
use crate::storage::{Tx, certificates, events, orders};
use crate::view::CertificateView;

/// Change a certificate's specification
///
/// A JSON merge patch (RFC 7396): what is given replaces, `null` removes. Where another certificate
/// is wanted then, it is issued at once, whatever the backoff.
#[utoipa::path(patch, path = "/certificates/{id}", operation_id = "changeCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body(content(("application/merge-patch+json"), ("application/json")), description = "The fields to change"),
    responses((status = 200, body = CertificateView, description = "Changed", headers(("ETag" = String))), Errors))]
pub(crate) async fn change(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    known: Precondition,
    MergePatch(patch): MergePatch,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let now = app.now();
        let mut tx = app.db.begin();
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        must_stay(&present)?;
        known.must_match(&CertificateView::of(&present, now))?;
        let wanted = patched(&present, &patch)?;
        let checked = check(&wanted)?;
        let next = respecify(&app, &mut tx, &present, &lease, wanted, checked, now).await?;
        if next != present {
            tx.commit().await?;
        }
        Ok(answer(StatusCode::OK, json(&CertificateView::of(&next, now))?))
    })
    .await
}

/// Has a certificate be what is wanted now; orders for what was wanted before are cancelled.
/// Nothing is written where that changes nothing.
pub(crate) async fn respecify(
    app: &AppState,
    tx: &mut Tx,
    present: &Certificate,
    lease: &Lease,
    wanted: CertificateSpec,
    checked: Checked,
    now: OffsetDateTime,
) -> Result<Certificate, ApiError> {
    let issuer = checked.check_issuer(tx, &wanted).await?;
    checked.check_key(app, tx, &issuer).await?;
    checked.check_webhooks(tx, &present.spec.webhooks).await?;
    let anew = !present.spec.wants_the_same_as(&checked.spec);
    let next = present.clone().respecified(checked.spec, wanted.labels, now);
    if next.certificate != *present {
        if anew {
            cancel_orders(tx, present, "its certificate was changed", now).await?;
        }
        certificates::respecify(tx, &next, lease).await?;
    }
    Ok(next.certificate)
}

/// Issue a certificate anew, now
///
/// Whatever the backoff; joins an issuance that is under way already.
#[utoipa::path(post, path = "/certificates/{id}/renew", operation_id = "renewCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate")),
    responses((status = 202, body = CertificateView, description = "Accepted; it is being issued", headers(("Location" = String), ("ETag" = String))), Errors))]
pub(crate) async fn renew(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let now = app.now();
        let mut tx = app.db.begin();
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        must_stay(&present)?;
        let next = present.clone().trigger(Trigger::ManuallyTriggered, now);
        if next.certificate != present {
            certificates::save(&mut tx, &next, &lease, None).await?;
            tx.commit().await?;
        }
        let body = json(&CertificateView::of(&next.certificate, now))?;
        Ok(accepted(format!("/certificates/{id}"), body))
    })
    .await
}

/// Replace the client's certificate signing request
///
/// For certificates whose key a client holds. A certificate for the new one is issued at once,
/// whatever the backoff; the former stays served until then.
#[utoipa::path(put, path = "/certificates/{id}/csr", operation_id = "replaceCsr", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = CsrSpec,
    responses((status = 200, body = CertificateView, description = "Replaced", headers(("ETag" = String))), Errors))]
pub(crate) async fn replace_csr(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    known: Precondition,
    body: Body<CsrSpec>,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    let (present, _) = find(&mut tx, id, &who.scope).await?;
    drop(tx);
    if present.spec.csr.is_none() {
        let detail = "the key of this certificate is made here; a PATCH of `csr` changes that";
        return Err(ApiError::field("/csr", FieldCode::Conflicting, detail));
    }
    let patch = Map::from_iter([("csr".to_owned(), Value::String(body.value.csr))]);
    change(State(app), who, Path(id), known, MergePatch(patch)).await
}

/// A CSR instead of the present one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CsrSpec {
    /// In PEM; the names are those of its `subjectAltName`.
    csr: String,
}

/// How to delete. Extracted as `Strict`, so that a query that means something else is not passed over.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// Have the CA revoke first what was issued and is still valid.
    #[serde(default)]
    #[param(default = false)]
    revoke: bool,
}

/// Delete a certificate
///
/// Ends its management and forgets its keys. What was issued stays valid, unless it is revoked first:
/// then the certificate is shown, with `deletionTimestamp`, until the CA has done that, for up to three
/// days. An order that is under way is given up, and what it has shown is still cleaned up.
#[utoipa::path(delete, path = "/certificates/{id}", operation_id = "deleteCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), Deletion, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Deleted"), (status = 202, body = CertificateView, description = "Accepted; it is deleted once it is revoked", headers(("Location" = String), ("ETag" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Path(id): Path<Uuid>,
    Strict(how): Strict<Deletion>,
    known: Precondition,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let now = app.now();
        let mut tx = app.db.begin();
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        known.must_match(&CertificateView::of(&present, now))?;
        // Orders first, as workers do: the other way round, the two could wait for each other.
        cancel_orders(&mut tx, &present, "its certificate was deleted", now).await?;
        if how.revoke && revoke::everything(&mut tx, &present, now).await? {
            let next = revoke::then_delete(&mut tx, present, &lease, now).await?;
            tx.commit().await?;
            let body = json(&CertificateView::of(&next, now))?;
            return Ok(accepted(format!("/certificates/{id}"), body));
        }
        // Fenced like any change, so that nothing that was saved meanwhile is lost unseen.
        let deleted = present.deleted(now);
        certificates::save(&mut tx, &deleted, &lease, None).await?;
        certificates::delete(&mut tx, deleted.certificate.id).await?;
        tx.commit().await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Refuses to change what waits to be deleted.
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

/// Gives up every order that is under way for a certificate.
pub(crate) async fn cancel_orders(
    tx: &mut Tx,
    certificate: &Certificate,
    why: &str,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    for (order, lease) in orders::open_of_certificate(tx, certificate.id).await? {
        let before = order.challenges.clone();
        let next = order.cancel(why, now);
        orders::save(tx, &next.order, &before, &lease, None).await?;
        let namespace = &certificate.namespace;
        events::record(tx, namespace, Some(certificate.id), &next.events, now);
        let (request, id) = (next.order.request, next.order.id);
        requests::progress(tx, request, RequestState::Failed, why, id, now).await?;
    }
    Ok(())
}

/// The present specification with the patch applied. Identity cannot be patched.
fn patched(present: &Certificate, patch: &Map<String, Value>) -> Result<CertificateSpec, ApiError> {
    let mut faults = Faults::default();
    for (field, present) in [("namespace", &present.namespace), ("name", &present.name)] {
        if patch.get(field).is_some_and(|given| given != present) {
            faults.add(format!("/{field}"), FieldCode::Immutable, format!("stays `{present}`"));
        }
    }
    faults.refuse()?;
    let mut document = serde_json::to_value(CertificateSpec::from(present))
        .map_err(|error| ApiError::Inside(Box::new(error)))?;
    if let Value::Object(target) = &mut document {
        merge(target, patch);
    }
    from_value(document)
}

/// RFC 7396, section 2.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => _ = target.remove(key),
            Value::Object(inner) => {
                let place = target.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(target) = place {
                    merge(target, inner);
                }
            }
            other => _ = target.insert(key.clone(), other.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_replaces_removes_and_descends() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": ["c", "d"]}), json!({"a": ["c", "d"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": 1}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
        ] {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                panic!("objects only");
            };
            merge(&mut target, &patch);
            assert_eq!(Value::Object(target), merged);
        }
    }
}
