//! `POST /apply` and `POST /import`: cert-manager's manifests, applied in one transaction.
//!
//! A manifest becomes the specification that `POST /secrets`, `/issuers` and `/certificates` take, and goes the same
//! way from there on. So does our own kind `Policy`. Everything is checked before anything is written: either all of a
//! stream is applied, or nothing. An import takes what can be taken, and names the rest.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{AnyWriter, Authorized, CertificatesImport, Principal};
use super::dry_run::DryRun;
use super::extract::{Manifests, Query};
use super::field;
use super::idempotency::{Attempt, IdempotencyKey};
use super::precondition::{json, untagged};
use super::problem::{ApiError, Errors, FieldError};
use super::wait::Held;
use super::{AppState, audit};

mod adopt;
mod apply;
#[cfg(feature = "failpoints")]
pub(crate) mod fuzzing;
mod outlook;
mod plan;
mod preflight;
#[cfg(test)]
mod round_trip;
mod unsolved;

use plan::Purpose;

/// Options for manifests.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct How {
    /// The namespace of objects whose `metadata` names none; `default` when absent.
    namespace: Option<String>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
    /// Refuse what is left out otherwise: objects of other kinds, and with `POST /import` what cannot be imported.
    #[serde(default)]
    strict: bool,
}

/// The results for a stream of manifests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Applied {
    /// True if nothing was written.
    dry_run: bool,
    /// One for each manifest, in the order in which they stand there.
    results: Vec<AppliedObject>,
    /// Manifests that were left out: those of other kinds, and with `POST /import` what cannot be imported.
    left_out: Vec<LeftOut>,
}

/// A manifest that was left out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct LeftOut {
    /// Its kind; empty where it has none.
    #[schema(example = "Ingress")]
    kind: String,
    /// Its namespace, if it has one.
    namespace: Option<String>,
    /// Its name; empty where it has none.
    name: String,
    /// Why.
    errors: Vec<FieldError>,
    /// Whether the caller lacks a right for it.
    #[serde(skip)]
    is_denied: bool,
}

/// The result for one manifest.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppliedObject {
    /// `Secret`, `Issuer`, `ClusterIssuer`, `Policy` or `Certificate`.
    #[schema(example = "Certificate")]
    kind: &'static str,
    /// Its namespace; absent for a `ClusterIssuer` and a `Policy`.
    namespace: Option<String>,
    /// Its name.
    name: String,
    /// The result.
    result: Done,
    /// Its identifier. With `dryRun`, what is only to be created has one that will not last.
    id: Uuid,
    /// Fields that have no meaning here, and what happens instead.
    warnings: Vec<String>,
    /// With `dryRun`: the resource as it would be, if the caller may read it. Times and new identifiers will not last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    resource: Option<Value>,
}

/// The result of applying a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Done {
    /// It was not there before.
    Created,
    /// It was there, and is otherwise now.
    Configured,
    /// It was just so already.
    Unchanged,
}

/// Apply cert-manager manifests
///
/// One or more documents in YAML or JSON: Secret, Issuer, `ClusterIssuer`, Certificate, our own Policy, and Lists
/// of them. All are checked before anything is written, and all are written in one transaction, secrets
/// first. Applying the same again changes nothing. Objects of other kinds are left out. Needs the permissions to write
/// what is in it.
#[utoipa::path(post, path = "/apply", operation_id = "applyManifests", tag = "manifests",
    params(How, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body(content((String = "application/yaml"), (Object = "application/json")), description = "The manifests; at most 1 MiB"),
    responses((status = 200, body = Applied, description = "What has become of each", headers(("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn apply(
    State(app): State<AppState>,
    AnyWriter(who): AnyWriter,
    Query(how): Query<How>,
    key: IdempotencyKey,
    Manifests(text): Manifests,
) -> Result<Response, ApiError> {
    let dry = DryRun::new(how.dry_run);
    let attempt = key.attempt(&who, text.as_bytes(), dry);
    made_so(&app, &attempt, how, text, Purpose::Apply).await
}

/// Import existing certificates
///
/// Like `POST /apply`, with more in it: a Secret of the type `kubernetes.io/tls` becomes the first
/// revision of the Certificate whose `secretName` it is, ready and renewed in its time, so that
/// nothing is issued anew; and a Secret that an Issuer's `privateKeySecretRef` names becomes the key
/// of its ACME account (ECDSA P-256). What cannot be imported is left out and named, with the reason; the rest is
/// imported. Needs the permission `certificates:import` as well.
#[utoipa::path(post, path = "/import", operation_id = "importCertificates", tag = "manifests",
    params(How, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body(content((String = "application/yaml"), (Object = "application/json")), description = "The manifests; at most 1 MiB"),
    responses((status = 200, body = Applied, description = "What has become of each", headers(("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn import(
    State(app): State<AppState>,
    who: Authorized<CertificatesImport>,
    Query(how): Query<How>,
    key: IdempotencyKey,
    Manifests(text): Manifests,
) -> Result<Response, ApiError> {
    let dry = DryRun::new(how.dry_run);
    let attempt = key.attempt(&who, text.as_bytes(), dry);
    made_so(&app, &attempt, how, text, Purpose::Import).await
}

/// Counts what is left out for want of a right: the answer names it among what cannot be taken.
async fn note_denied(app: &AppState, who: &Principal, left_out: &[LeftOut]) {
    for denied in left_out.iter().filter(|one| one.is_denied) {
        who.caller.asks_in(denied.namespace.as_deref().unwrap_or_default());
        let reasons = denied.errors.iter().map(|error| error.detail.as_str());
        let reason = reasons.collect::<Vec<_>>().join("; ");
        audit::note_refused(app, &who.caller, format!("It is left out: {reason}")).await;
    }
}

/// Reads the stream on the pool for heavy work, and applies it.
async fn made_so(
    app: &AppState,
    attempt: &Attempt,
    How { namespace, dry_run, strict }: How,
    text: String,
    purpose: Purpose,
) -> Result<Response, ApiError> {
    let once = || async {
        let who = attempt.who();
        let (reader, caller) = (app.clone(), who.clone());
        let default = namespace.unwrap_or_else(|| field::DEFAULT_NAMESPACE.to_owned());
        let read = move || plan::read(&reader, &caller, &text, &default, (purpose, strict));
        let plan = app.heavily(who, read).await?;
        note_denied(app, who, &plan.left_out).await;
        let (known, dry) = (plan.left_out.len(), DryRun::new(dry_run));
        let applied = apply::apply(app, attempt, plan, dry).await?;
        note_denied(app, who, applied.left_out.get(known..).unwrap_or_default()).await;
        Ok(dry.told(untagged(StatusCode::OK, json(&applied)?)))
    };
    Box::pin(attempt.once(app, &Held::default(), once)).await
}
