//! Approving and denying requests. Whoever wanted what a request is for, or has it issued anew, does not decide about it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::RequestView;
use crate::api::auth::{Authorized, Principal, RequestsApprove};
use crate::api::certificates::quota::Growth;
use crate::api::dry_run::DryRun;
use crate::api::extract::{Body, Path, Query};
use crate::api::idempotency::{Attempt, IdempotencyKey};
use crate::api::precondition::{Precondition, answer, json};
use crate::api::problem::{ApiError, Code, Errors, FieldCode};
use crate::api::wait::Held;
use crate::api::{AppState, retrying};
use crate::domain::approval::{Decision, Verdict};
use crate::domain::certificate::{self, Certificate};
use crate::domain::id::RequestId;
use crate::storage::requests::{self, Request};
use crate::storage::{Scope, certificates};

/// Characters of a reason at most.
const LONGEST_REASON: usize = 1_000;

/// A decision about a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Decision)]
pub(crate) struct DecisionSpec {
    /// Why, in a sentence for people; up to 1000 characters.
    #[schema(example = "agreed in CHG-4711")]
    reason: String,
}

/// Approve a certificate request
///
/// For a request that waits for approval, by somebody else than whoever asked for the certificate or had it issued anew. An order is placed
/// then, for the CSR that the request shows. A decision is final.
#[utoipa::path(post, path = "/requests/{id}/approve", operation_id = "approveRequest", tag = "requests",
    params(("id" = Uuid, Path, description = "The request"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = DecisionSpec,
    responses((status = 200, body = RequestView, description = "Approved", headers(("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn approve(
    State(app): State<AppState>,
    who: Authorized<RequestsApprove>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
    body: Body<DecisionSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    decide(&app, RequestId(id), (Verdict::Approved, &*body.value.reason), (&attempt, &known, dry))
        .await
}

/// Deny a certificate request
///
/// For a request that waits for approval, by somebody else than whoever asked for the certificate or had it issued anew. No other request is
/// made until the certificate is changed, or renewed by hand. A decision is final.
#[utoipa::path(post, path = "/requests/{id}/deny", operation_id = "denyRequest", tag = "requests",
    params(("id" = Uuid, Path, description = "The request"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = DecisionSpec,
    responses((status = 200, body = RequestView, description = "Denied", headers(("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn deny(
    State(app): State<AppState>,
    who: Authorized<RequestsApprove>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
    body: Body<DecisionSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    decide(&app, RequestId(id), (Verdict::Denied, &*body.value.reason), (&attempt, &known, dry))
        .await
}

async fn decide(
    app: &AppState,
    id: RequestId,
    (verdict, reason): (Verdict, &str),
    (attempt, known, dry): (&Attempt, &Precondition, DryRun),
) -> Result<Response, ApiError> {
    let reason = checked(reason)?;
    let who = attempt.who();
    let once = || async {
        let now = app.now();
        let mut tx = attempt.begin(app);
        let request = requests::find(&mut tx, id, &who.scope).await?;
        let request = request.ok_or_else(|| ApiError::not_found("request", id.0))?;
        let found = certificates::find(&mut tx, request.certificate, &Scope::Everything).await?;
        let (certificate, lease) = found.ok_or_else(|| ApiError::not_found("request", id.0))?;
        known.must_match(&RequestView::from(request.clone()))?;
        let Some(approval) = request.approval.clone().filter(|_| waits(&certificate, &request))
        else {
            return Err(not_pending(&request));
        };
        must_be_another(who, &certificate, &request)?;
        let (by, reason) = (Some(who.reference()), reason.to_owned());
        let decision = Decision { verdict, by, at: now, reason };
        let approval = approval.decided(decision.clone());
        requests::decide(&mut tx, id, &approval, now).await?;
        let next = certificate.clone().decided(&decision, now);
        let growth = Growth::by(Some(&certificate), &next.certificate);
        certificates::save(&mut tx, &next, &lease, None).await?;
        growth.must_fit(app, &mut tx).await?;
        let decided = requests::find(&mut tx, id, &who.scope).await?;
        let decided = decided.ok_or_else(|| ApiError::not_found("request", id.0))?;
        let body = json(&RequestView::from(decided))?;
        let location = format!("/requests/{}", id.0);
        attempt.remember(app, &mut tx, (StatusCode::OK, &location), &body).await?;
        dry.end(tx).await?;
        Ok(dry.told(answer(StatusCode::OK, body)))
    };
    attempt.once(app, &Held::default(), || retrying(once)).await
}

/// Whether somebody may decide: the certificate waits for this very request.
fn waits(certificate: &Certificate, request: &Request) -> bool {
    matches!(certificate.state, certificate::State::AwaitingApproval(_))
        && certificate.request == Some(request.id)
        && request.waits()
}

fn not_pending(request: &Request) -> ApiError {
    let decision = request.approval.as_ref().and_then(|approval| approval.decision.as_ref());
    let why = match decision {
        Some(decision) => format!("It was decided already: {}", decision.message()),
        None if request.approval.is_none() => "No policy wants it to be approved.".to_owned(),
        None => {
            "Its certificate has gone on without it; decide about its newest request.".to_owned()
        }
    };
    let detail = format!("The request `{}` waits for no approval. {why}", request.name);
    ApiError::Because(Code::NotPending, detail)
}

fn must_be_another(
    who: &Principal,
    certificate: &Certificate,
    request: &Request,
) -> Result<(), ApiError> {
    let mut askers = request.requested_by.iter().chain(certificate.askers());
    if !askers.any(|asked| asked.is(&who.reference())) {
        return Ok(());
    }
    who.caller.asks_in(&request.namespace);
    let detail = format!(
        "The {who} asked for what the request `{}` is for, or had it issued anew, and cannot decide about it. Let somebody else who has the permission `requests:approve` decide.",
        request.name
    );
    Err(ApiError::Because(Code::PermissionDenied, detail))
}

/// A reason that says something.
fn checked(reason: &str) -> Result<&str, ApiError> {
    let reason = reason.trim();
    if reason.is_empty() {
        let detail = "say why, in a sentence for whoever reads it later";
        return Err(ApiError::field("/reason", FieldCode::Required, detail));
    }
    if reason.chars().count() > LONGEST_REASON {
        let detail = format!("has more than {LONGEST_REASON} characters; make it shorter");
        return Err(ApiError::field("/reason", FieldCode::Invalid, detail));
    }
    Ok(reason)
}
