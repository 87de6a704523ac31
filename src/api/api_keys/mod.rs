//! API keys. A key is shown once, when it is made or rotated; only its hash is stored.

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AppState;
use super::auth::{ApiKeysRead, ApiKeysWrite, Authorized, Principal};
use super::extract::{Body, Path, Query};
use super::page::{self, Listing, Sort};
use super::precondition::Precondition;
use super::problem::{ApiError, Code, Errors};
use super::rotation::{Rotation, overlap, shown_once};
use crate::domain::api_key::{self, ApiKey};
use crate::domain::id::ApiKeyId;
use crate::storage::{Page, Read, api_keys};

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
}

/// Create an API key
///
/// The key is in the answer and nowhere else. It may do nothing that the caller may not.
#[utoipa::path(post, path = "/api-keys", operation_id = "createApiKey", tag = "service",
    request_body = KeySpec,
    responses((status = 202, body = KeyView, description = "Made; the key is shown this once", headers(("Location" = String), ("ETag" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    body: Body<KeySpec>,
) -> Result<Response, ApiError> {
    let key = body.value.check(&who, &app)?;
    let value = api_key::generate_key()?;
    let mut tx = app.begin(&who);
    api_keys::insert(&mut tx, &key, &api_key::hash_key(value.expose())).await?;
    tx.commit().await?;
    tracing::info!(made = %key.id, by = %who.subject.id(), "an API key was made");
    let location = format!("/api-keys/{}", key.id);
    let plain = KeyView::of(key);
    let mut response =
        shown_once(StatusCode::ACCEPTED, &plain.clone().with_value(value.expose()), &plain)?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
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
    let page = page::page(query.limit, query.cursor.as_deref(), query.sort)?;
    let mut tx = app.db.read().await?;
    let rows = api_keys::list(&mut tx, &who.scope, query.name.as_deref(), page).await?;
    let key = |row: &ApiKey| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, page.limit, rows, key, KeyView::of))
}

/// Get an API key
///
/// Without the key itself.
#[utoipa::path(get, path = "/api-keys/{id}", operation_id = "getApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier"), ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known already")),
    responses((status = 200, body = KeyView, description = "The API key", headers(("ETag" = String))), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<ApiKeysRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    known.show(&KeyView::of(find(&mut tx, id, &who).await?))
}

/// Get an API key by its name
///
/// Names need not be unique: 409 if several keys have it.
#[utoipa::path(get, path = "/api-keys/by-name/{name}", operation_id = "getApiKeyByName", tag = "service",
    params(("name" = String, Path, description = "The key's name"), ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known already")),
    responses((status = 200, body = KeyView, description = "The API key", headers(("ETag" = String))), Errors))]
pub(crate) async fn show_by_name(
    State(app): State<AppState>,
    who: Authorized<ApiKeysRead>,
    Path(name): Path<String>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    // A page has one row more than asked for, if there is one.
    let mut found = api_keys::list(&mut tx, &who.scope, Some(&name), Page::first(1)).await?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => known.show(&KeyView::of(only)),
        (None, _) => {
            Err(ApiError::Because(Code::NotFound, format!("There is no API key `{name}`.")))
        }
        (Some(_), false) => {
            let detail =
                format!("Several API keys are called `{name}`: name one by its identifier.");
            Err(ApiError::Because(Code::AmbiguousName, detail))
        }
    }
}

/// Rotate an API key
///
/// It gets a new value, which the answer shows, once. The former one counts for a while, so that whoever has it can
/// change over; one that was former already ends at once. A key may rotate itself, and none that may do more.
#[utoipa::path(post, path = "/api-keys/{id}/rotate", operation_id = "rotateApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    request_body(content = Option<Rotation>, description = "May be left out"),
    responses((status = 200, body = KeyView, description = "Changed; the key is shown this once", headers(("ETag" = String))), Errors))]
pub(crate) async fn rotate(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    Path(id): Path<Uuid>,
    body: Option<Body<Rotation>>,
) -> Result<Response, ApiError> {
    let overlap = overlap(body)?;
    let value = api_key::generate_key()?;
    let now = app.now();
    let former_until = overlap.is_positive().then(|| now + overlap);
    let rotation = api_key::Rotation { rotated_at: now, former_until };
    let mut tx = app.begin(&who);
    let key = find(&mut tx, id, &who).await?;
    must_reach(&who, &key)?;
    if api_keys::is_configured(&mut tx, key.id).await? {
        let detail = "It is the key of the setting `bootstrap.api_key`. Change that and start the service again: the former value ends then.";
        return Err(ApiError::Because(Code::ConfiguredElsewhere, detail.to_owned()));
    }
    api_keys::rotate(&mut tx, key.id, &api_key::hash_key(value.expose()), rotation).await?;
    tx.commit().await?;
    tracing::info!(rotated = %id, by = %who.subject.id(), "an API key was rotated");
    let plain = KeyView::of(ApiKey { rotation: Some(rotation), ..key });
    shown_once(StatusCode::OK, &plain.clone().with_value(value.expose()), &plain)
}

/// Delete an API key
///
/// It is refused from the next request on, by another replica within a second. A key cannot delete itself, so that one is always left, nor one that may do what it may not. Answers that it waits for, and streams that it follows, end.
#[utoipa::path(delete, path = "/api-keys/{id}", operation_id = "deleteApiKey", tag = "service",
    params(("id" = Uuid, Path, description = "The key's identifier")),
    responses((status = 204, description = "Deleted"), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    if who.subject.id().0 == id {
        let detail = "A key cannot delete itself: use another one for that.";
        return Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()));
    }
    let mut tx = app.begin(&who);
    let key = find(&mut tx, id, &who).await?;
    must_reach(&who, &key)?;
    api_keys::delete(&mut tx, key.id).await?;
    tx.commit().await?;
    tracing::info!(deleted = %id, by = %who.subject.id(), "an API key was deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// The key, if the caller may know of it.
async fn find(read: &mut Read, id: Uuid, who: &Principal) -> Result<ApiKey, ApiError> {
    let found = api_keys::find(read, ApiKeyId(id)).await?;
    let found = found.filter(|key| key.scope.is_within(&who.scope));
    found.ok_or_else(|| ApiError::not_found("API key", id))
}
