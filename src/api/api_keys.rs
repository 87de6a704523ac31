//! API keys. A key is shown once, when it is created; only its hash is stored.

use axum::extract::{OriginalUri, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{ApiKeysRead, ApiKeysWrite, Authorized, KNOWN, Principal};
use super::extract::{Body, Path, Query};
use super::page::{self, Listing, Sort};
use super::precondition::json;
use super::problem::{ApiError, Code, Errors, Faults, FieldCode};
use super::{AppState, field};
use crate::domain::api_key;
use crate::domain::id::ApiKeyId;
use crate::storage::Scope;
use crate::storage::api_keys::{self, ApiKey};

/// An API key to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ApiKeySpec, example = json!({
    "name": "payments-deploy", "permissions": ["certificates:read", "certificates:readKey"], "namespaces": ["payments"]
}))]
pub(crate) struct KeySpec {
    /// For people; need not be unique.
    name: String,
    /// The permissions of its bearer; `*` is all. They cannot exceed the caller's.
    permissions: Vec<String>,
    /// The namespaces of its bearer; all when absent. They cannot exceed the caller's.
    #[serde(default)]
    namespaces: Option<Vec<String>>,
}

/// An API key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub(crate) struct KeyView {
    /// Its identifier.
    id: Uuid,
    /// Its name.
    #[schema(example = "payments-deploy")]
    name: String,
    /// The permissions of its bearer.
    #[schema(example = json!(["certificates:read"]))]
    permissions: Vec<String>,
    /// The namespaces; `null` is all of them.
    namespaces: Option<Vec<String>>,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The key itself, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    key: Option<String>,
}

/// Filters for API keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListKeys {
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
    responses((status = 202, body = KeyView, description = "Made; the key is shown this once", headers(("Location" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<ApiKeysWrite>,
    body: Body<KeySpec>,
) -> Result<Response, ApiError> {
    check(&body.value, &who, &app.cluster_namespace)?;
    let now = app.now();
    let text = api_key::generate_key()?;
    let KeySpec { name, permissions, namespaces } = body.value;
    let scope = namespaces.map_or(Scope::Everything, Scope::Namespaces);
    let key = ApiKey { id: ApiKeyId::generate(now), name, permissions, scope };
    let mut tx = app.db.begin();
    api_keys::insert(&mut tx, &key, &api_key::hash_key(text.expose()), now).await?;
    tx.commit().await?;
    tracing::info!(made = %key.id, by = %who.subject.id(), "an API key was made");
    let location = format!("/api-keys/{}", key.id);
    let mut view = view(key, now);
    view.key = Some(text.expose().clone());
    let headers = [
        (header::LOCATION, location),
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::ACCEPTED, headers, json(&view)?).into_response())
}

/// List API keys
///
/// A key that is bound to namespaces sees those that are bound to no others.
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
    let rows = api_keys::list(&mut tx, &who.scope, page).await?;
    let key = |row: &(ApiKey, OffsetDateTime)| row.0.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, page.limit, rows, key, |(key, at)| view(key, at)))
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
    let mut tx = app.db.begin();
    let found = api_keys::find(&mut tx, ApiKeyId(id)).await?;
    let found = found.filter(|key| is_within(&key.scope, &who.scope));
    let found = found.ok_or_else(|| ApiError::not_found("API key", id))?;
    if let Some(beyond) = found.permissions.iter().find(|permission| !who.may(permission)) {
        let detail =
            format!("It has the permission `{beyond}`, which the API key of the request lacks.");
        return Err(ApiError::Because(Code::PermissionDenied, detail));
    }
    api_keys::delete(&mut tx, ApiKeyId(id)).await?;
    tx.commit().await?;
    tracing::info!(deleted = %id, by = %who.subject.id(), "an API key was deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Permissions are searched with every request of the key, so their number is bounded.
const MOST_NAMESPACES: usize = 100;

fn check(spec: &KeySpec, who: &Principal, cluster_namespace: &str) -> Result<(), ApiError> {
    let mut faults = Faults::default();
    if spec.name.trim().is_empty() || spec.name.len() > 100 {
        faults.invalid("/name", "has 1 to 100 characters");
    }
    if spec.permissions.is_empty() {
        faults.add("/permissions", FieldCode::Required, "a key that may do nothing is of no use");
    }
    for (place, permission) in spec.permissions.iter().enumerate() {
        let pointer = format!("/permissions/{place}");
        if permission != "*" && !KNOWN.contains(&permission.as_str()) {
            faults.invalid(pointer, format!("is `*` or one of {}", KNOWN.join(", ")));
        } else if !who.may(permission) {
            faults.invalid(pointer, "the API key of the request may not do this itself");
        }
    }
    let scope = spec.namespaces.clone().map_or(Scope::Everything, Scope::Namespaces);
    if let Scope::Namespaces(names) = &scope {
        if names.is_empty() {
            faults.invalid("/namespaces", "names at least one; leave it out for all");
        }
        if names.len() > MOST_NAMESPACES {
            faults.invalid("/namespaces", format!("there are at most {MOST_NAMESPACES}"));
        }
        for name in names {
            field::namespace(name, &mut faults);
            if name == cluster_namespace {
                let detail = format!(
                    "`{name}` holds the Secrets of ClusterIssuers (`cluster_resource_namespace`): no API key can be bound to it"
                );
                faults.invalid("/namespaces", detail);
            }
        }
    }
    if !is_within(&scope, &who.scope) {
        let detail = "the API key of the request is bound to namespaces, and may give no more";
        faults.invalid("/namespaces", detail);
    }
    Ok(faults.refuse()?)
}

/// True if one scope lies entirely in the other.
fn is_within(inner: &Scope, outer: &Scope) -> bool {
    match (inner, outer) {
        (_, Scope::Everything) => true,
        (Scope::Everything, Scope::Namespaces(_)) => false,
        (Scope::Namespaces(inner), Scope::Namespaces(outer)) => {
            inner.iter().all(|name| outer.contains(name))
        }
    }
}

fn view(key: ApiKey, created_at: OffsetDateTime) -> KeyView {
    let namespaces = match key.scope {
        Scope::Everything => None,
        Scope::Namespaces(names) => Some(names),
    };
    let ApiKey { id, name, permissions, .. } = key;
    KeyView { id: id.0, name, permissions, namespaces, created_at, key: None }
}
