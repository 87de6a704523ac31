//! API keys. A key is shown once, when it is made or rotated; only its hash is stored.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use time::Duration;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AppState;
use super::auth::{ApiKeysRead, ApiKeysWrite, Authorized, Principal};
use super::dry_run::DryRun;
use super::extract::{Body, Path, Query};
use super::idempotency::{Attempt, IdempotencyKey, located};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::{Precondition, answer, json};
use super::problem::{ApiError, Code, Errors};
use super::rotation::{Rotation, content, overlap, shown_once};
use super::wait::Held;
use crate::domain::api_key::{self, ApiKey};
use crate::domain::id::ApiKeyId;
use crate::storage::{Read, api_keys};

mod check;
mod view;

use check::{KeySpec, must_reach};
use view::KeyView;

/// Filters for API keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListKeys {
    /// Of this name.
    name: Option<String>,
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

/// Create an API key
///
/// The key is in the answer and nowhere else; a replay under the same `Idempotency-Key` does not show it. It may do
/// nothing that the caller may not.
#[utoipa::path(post, path = "/api-keys", operation_id = "createApiKey", tag = "service",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = KeySpec,
    responses((status = 201, body = KeyView, description = "Made; the key is shown this once", headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<KeySpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    let made = || async {
        let key = body.value.check(&who, &app)?;
        let (id, location) = (key.id, format!("/api-keys/{}", key.id));
        let plain = KeyView::of(key.clone());
        let value = api_key::generate_key()?;
        let mut tx = attempt.begin(&app);
        attempt.remember(&app, &mut tx, (StatusCode::CREATED, &location), &json(&plain)?).await?;
        api_keys::insert(&mut tx, &key, &api_key::hash_key(value.expose())).await?;
        dry.end(tx).await?;
        if dry.is_wanted() {
            return Ok(dry.told(located(StatusCode::CREATED, &location, json(&plain)?)));
        }
        tracing::info!(made = %id, by = %who.subject.id(), "an API key was made");
        let whole = plain.clone().with_value(value.expose());
        shown_once((StatusCode::CREATED, &location), &whole, &plain)
    };
    attempt.once(&app, &Held::default(), made).await
}

/// What `GET` shows of it.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    id: Uuid,
) -> Result<Vec<u8>, ApiError> {
    json(&KeyView::of(find(&mut app.db.read().await?, id, who).await?))
}

/// List API keys
///
/// A principal that is bound to namespaces sees those that are bound to no others.
#[utoipa::path(get, path = "/api-keys", operation_id = "listApiKeys", tag = "service",
    params(ListKeys),
    responses((status = 200, body = Listing<KeyView>, description = "A page of API keys, without the keys themselves", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<ApiKeysRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListKeys>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<KeyView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let mut tx = app.db.read().await?;
    let rows = api_keys::list(&mut tx, &who.scope, query.name.as_deref(), asked.page).await?;
    let key = |row: &ApiKey| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, KeyView::of))
}

/// Get an API key
///
/// Without the key itself. By its name only if no other key has that: 409 otherwise.
#[utoipa::path(get, path = "/api-keys/{id}", operation_id = "getApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier"), ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known already")),
    responses((status = 200, body = KeyView, description = "The API key", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<ApiKeysRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    known.show(&KeyView::of(find(&mut tx, id, &who).await?))
}

/// Rotate an API key
///
/// It gets a new value, which the answer shows, once. The former one counts for a while, so that whoever has it can
/// change over; one that was former already ends at once. A key may rotate itself, and none that may do more or outlasts it.
#[utoipa::path(post, path = "/api-keys/{id}/rotate", operation_id = "rotateApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body(content = Option<Rotation>, description = "May be left out"),
    responses((status = 200, body = KeyView, description = "Changed; the key is shown this once", headers(("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn rotate(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
    body: Option<Body<Rotation>>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, content(body.as_ref()), dry);
    let overlap = overlap(body)?;
    attempt
        .once(&app, &Held::default(), || rotated(&app, &who, id, (&attempt, &known, dry), overlap))
        .await
}

async fn rotated(
    app: &AppState,
    who: &Principal,
    id: Uuid,
    (attempt, known, dry): (&Attempt, &Precondition, DryRun),
    overlap: Duration,
) -> Result<Response, ApiError> {
    let value = api_key::generate_key()?;
    let now = app.now();
    let former_until = overlap.is_positive().then(|| now + overlap);
    let rotation = api_key::Rotation { rotated_at: now, former_until };
    let mut tx = attempt.begin(app);
    let key = find(&mut tx, id, who).await?;
    must_reach(who, &key)?;
    known.must_match(&KeyView::of(key.clone()))?;
    if api_keys::is_configured(&mut tx, key.id).await? {
        let detail = "It is the key of the setting `bootstrap.api_key`. Change that and start the service again: the former value ends then.";
        return Err(ApiError::Because(Code::ConfiguredElsewhere, detail.to_owned()));
    }
    let plain = KeyView::of(ApiKey { rotation: Some(rotation), ..key });
    let location = format!("/api-keys/{id}");
    attempt.remember(app, &mut tx, (StatusCode::OK, &location), &json(&plain)?).await?;
    api_keys::rotate(&mut tx, ApiKeyId(id), &api_key::hash_key(value.expose()), rotation).await?;
    dry.end(tx).await?;
    if dry.is_wanted() {
        return Ok(dry.told(answer(StatusCode::OK, json(&plain)?)));
    }
    tracing::info!(rotated = %id, by = %who.subject.id(), "an API key was rotated");
    shown_once((StatusCode::OK, &location), &plain.clone().with_value(value.expose()), &plain)
}

/// Delete an API key
///
/// It is refused from the next request on, by another replica within a second. A key cannot delete itself, so that one is always left, nor one that may do what it may not or outlasts it. Answers that it waits for, and streams that it follows, end.
#[utoipa::path(delete, path = "/api-keys/{id}", operation_id = "deleteApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Deleted", headers(("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
) -> Result<Response, ApiError> {
    if who.subject.id().0 == id {
        let detail = "A key cannot delete itself: use another one for that.";
        return Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()));
    }
    let mut tx = app.begin(&who);
    let key = find(&mut tx, id, &who).await?;
    must_reach(&who, &key)?;
    known.must_match(&KeyView::of(key))?;
    api_keys::delete(&mut tx, ApiKeyId(id)).await?;
    dry.end(tx).await?;
    if !dry.is_wanted() {
        tracing::info!(deleted = %id, by = %who.subject.id(), "an API key was deleted");
    }
    Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
}

/// The key, if the caller may know of it.
async fn find(read: &mut Read, id: Uuid, who: &Principal) -> Result<ApiKey, ApiError> {
    let found = api_keys::find(read, ApiKeyId(id)).await?;
    let found = found.filter(|key| key.scope.is_within(&who.scope));
    found.ok_or_else(|| ApiError::not_found("API key", id))
}
