//! What happened.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{Authorized, EventsRead};
use super::extract::Query;
use super::page::{self, Listing, Sort};
use super::problem::{ApiError, Errors};
use super::{AppState, field};
use crate::storage::events::{self, Recorded, Wanted};

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListEvents {
    /// Of this namespace.
    namespace: Option<String>,
    /// About this resource, by path or identifier; for a certificate, about its requests, orders and challenges too.
    #[param(example = "certificates/019ab000-0000-7000-8000-000000000000")]
    resource: Option<String>,
    /// From this moment on (RFC 3339).
    since: Option<String>,
    /// How many on a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: a `nextCursor`.
    cursor: Option<String>,
    /// What to order by.
    sort: Option<Sort>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// Sorts by time.
    id: Uuid,
    /// The resource's namespace; absent for a `ClusterIssuer`.
    namespace: Option<String>,
    /// What it happened to.
    #[schema(example = "/certificates/019ab000-0000-7000-8000-000000000000")]
    resource: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    #[schema(example = "Normal")]
    kind: String,
    /// cert-manager's word for it.
    #[schema(example = "Issuing")]
    reason: String,
    /// One sentence for a person.
    message: String,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// List events
#[utoipa::path(get, path = "/events", operation_id = "listEvents", tag = "events",
    params(ListEvents),
    responses((status = 200, body = Listing<EventView>, description = "A page of events", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<EventsRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListEvents>,
) -> Result<Response, ApiError> {
    let page = page::page(query.limit, query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted {
        namespace: query.namespace,
        resource: query.resource.as_deref().map(resource).transpose()?,
        since: query.since.as_deref().map(|text| field::moment(text, "since")).transpose()?,
    };
    let mut tx = app.db.read().await?;
    let rows = events::list(&mut tx, &who.scope, &wanted, page).await?;
    let key = |row: &Recorded| row.id.as_bytes().to_vec();
    Ok(page::answer(&uri, page.limit, rows, key, EventView::from))
}

/// `certificates/<id>`, `/certificates/<id>` or the identifier alone.
fn resource(text: &str) -> Result<Uuid, ApiError> {
    const COLLECTIONS: [&str; 6] =
        ["certificates", "requests", "orders", "challenges", "issuers", "webhooks"];
    let (collection, id) = match text.trim_start_matches('/').split_once('/') {
        Some((collection, id)) => (Some(collection), id),
        None => (None, text),
    };
    id.parse()
        .ok()
        .filter(|_| collection.is_none_or(|word| COLLECTIONS.contains(&word)))
        .ok_or_else(|| {
            ApiError::malformed("`resource` is written `certificates/<id>`, or as the identifier.")
        })
}

impl From<Recorded> for EventView {
    fn from(event: Recorded) -> Self {
        Self {
            id: event.id,
            created_at: event.at(),
            namespace: Some(event.namespace).filter(|namespace| !namespace.is_empty()),
            resource: format!("/{}/{}", event.collection, event.resource_id),
            kind: event.severity,
            reason: event.reason,
            message: event.message,
        }
    }
}
