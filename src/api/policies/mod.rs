//! Policies: listing, creating, replacing and withdrawing them. They say what namespaces may have, so that only
//! principals that are bound to none read or write them.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Authorized, PoliciesRead, PoliciesWrite};
use super::dry_run::DryRun;
use super::extract::{Body, Path, Query};
use super::idempotency::{Attempt, IdempotencyKey, located};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::{Precondition, answer, json};
use super::problem::{ApiError, Code, Errors, FieldCode};
use super::wait::Held;
use super::{AppState, retrying};
use crate::domain::id::PolicyId;
use crate::domain::policy::{Policy, Spec};
use crate::storage::policies::{self, Wanted};
use crate::storage::{Read, Tx};
use crate::view::PolicyView;
use crate::view::policy::PolicySpec;

pub(crate) mod check;
pub(crate) mod evaluate;

use check::check;

/// Filters for policies.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListPolicies {
    /// Of this name.
    name: Option<String>,
    /// For this namespace, perhaps among others.
    namespace: Option<String>,
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// The sort order.
    sort: Option<Sort>,
    /// Only these fields of each item, joined by commas, such as `id,createdAt`; `status.phase` is one within another.
    fields: Option<String>,
    /// Whether `count` tells how many there are on all pages.
    #[serde(default)]
    #[param(default = false)]
    count: bool,
}

/// Create a policy
///
/// Certificates that waited for it are issued in the background.
#[utoipa::path(post, path = "/policies", operation_id = "createPolicy", tag = "policies",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = PolicySpec,
    responses((status = 201, body = PolicyView, description = "It holds; certificates are being judged by it", headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<PoliciesWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<PolicySpec>,
) -> Result<Response, ApiError> {
    who.must_be_unbound()?;
    let attempt = key.attempt(&who, &body.content, dry);
    attempt
        .once(&app, &Held::default(), || async {
            let policy = new(&app, body.value.name.clone(), check(&body.value)?);
            insert(&app, &attempt, &policy, dry).await
        })
        .await
}

/// What `GET` shows of it.
pub(crate) async fn present(app: &AppState, id: Uuid) -> Result<Vec<u8>, ApiError> {
    json(&PolicyView::from(&find(&mut app.db.read().await?, id).await?))
}

/// List policies
#[utoipa::path(get, path = "/policies", operation_id = "listPolicies", tag = "policies",
    params(ListPolicies),
    responses((status = 200, body = Listing<PolicyView>, description = "A page of policies", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<PoliciesRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListPolicies>,
) -> Result<Response, ApiError> {
    who.must_be_unbound()?;
    let asked = Asked::first::<PolicyView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted { name: query.name, namespace: query.namespace };
    let mut tx = app.db.read().await?;
    let rows = policies::list(&mut tx, &wanted, asked.page).await?;
    let key = |row: &Policy| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |row| PolicyView::from(&row)))
}

/// Get a policy
#[utoipa::path(get, path = "/policies/{id}", operation_id = "getPolicy", tag = "policies",
    params(("id" = Uuid, Path, description = "The policy"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = PolicyView, description = "The policy", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<PoliciesRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    who.must_be_unbound()?;
    let mut tx = app.db.read().await?;
    known.show(&PolicyView::from(&find(&mut tx, id).await?))
}

/// Replace a policy
///
/// It holds from the next judgement on, on every replica: what it does not allow any more is blocked, what it allows
/// again goes on. The name stays.
#[utoipa::path(put, path = "/policies/{id}", operation_id = "replacePolicy", tag = "policies",
    params(("id" = Uuid, Path, description = "The policy"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = PolicySpec,
    responses((status = 200, body = PolicyView, description = "Replaced", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn replace(
    State(app): State<AppState>,
    who: Authorized<PoliciesWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
    body: Body<PolicySpec>,
) -> Result<Response, ApiError> {
    who.must_be_unbound()?;
    let spec = check(&body.value)?;
    retrying(|| async {
        let mut tx = app.begin(&who);
        let present = find(&mut tx, id).await?;
        known.must_match(&PolicyView::from(&present))?;
        if body.value.name != present.name {
            let detail = format!("stays `{}`", present.name);
            return Err(ApiError::field("/name", FieldCode::Immutable, detail));
        }
        let next = respecify(&app, &mut tx, &present, spec.clone()).await?;
        if next != present {
            dry.end(tx).await?;
        }
        Ok(dry.told(answer(StatusCode::OK, json(&PolicyView::from(&next))?)))
    })
    .await
}

/// Withdraw a policy
///
/// From the next judgement on, on every replica. Certificates that no other policy allows are blocked: what was issued
/// stays valid and is served, but is not renewed.
#[utoipa::path(delete, path = "/policies/{id}", operation_id = "deletePolicy", tag = "policies",
    params(("id" = Uuid, Path, description = "The policy"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Withdrawn", headers(("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<PoliciesWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
) -> Result<Response, ApiError> {
    who.must_be_unbound()?;
    retrying(|| async {
        let mut tx = app.begin(&who);
        let present = find(&mut tx, id).await?;
        known.must_match(&PolicyView::from(&present))?;
        policies::delete(&mut tx, &present, app.now()).await?;
        dry.end(tx).await?;
        if !dry.is_wanted() {
            tracing::info!(policy = present.name, by = %who.subject.id(), "a policy was withdrawn");
        }
        Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}

async fn find(tx: &mut Read, id: Uuid) -> Result<Policy, ApiError> {
    let found = policies::find(tx, PolicyId(id)).await?;
    found.ok_or_else(|| ApiError::not_found("policy", id))
}

/// The policy as it is stored first.
pub(crate) fn new(app: &AppState, name: String, spec: Spec) -> Policy {
    let now = app.now();
    let id = PolicyId::generate(now);
    Policy { id, name, spec, generation: 1, created_at: now, updated_at: now }
}

/// Gives a policy another specification. Writes nothing if nothing changes.
pub(crate) async fn respecify(
    app: &AppState,
    tx: &mut Tx,
    present: &Policy,
    spec: Spec,
) -> Result<Policy, ApiError> {
    if present.spec == spec {
        return Ok(present.clone());
    }
    let generation = present.generation + 1;
    let next = Policy { spec, generation, updated_at: app.now(), ..present.clone() };
    policies::respecify(tx, present, &next).await?;
    Ok(next)
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    policy: &Policy,
    dry: DryRun,
) -> Result<Response, ApiError> {
    let location = format!("/policies/{}", policy.id);
    let answer = json(&PolicyView::from(policy))?;
    let mut tx = attempt.begin(app);
    attempt.remember(app, &mut tx, (StatusCode::CREATED, &location), &answer).await?;
    let stored = async {
        policies::insert(&mut tx, policy).await?;
        dry.end(tx).await
    };
    stored.await.map_err(|error| ApiError::from(error).or_if_taken(|| already_exists(policy)))?;
    Ok(dry.told(located(StatusCode::CREATED, &location, answer)))
}

fn already_exists(policy: &Policy) -> ApiError {
    let detail =
        format!("There is a policy `{}` already. Replace its specification with PUT.", policy.name);
    ApiError::Because(Code::AlreadyExists, detail)
}
