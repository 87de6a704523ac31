//! Events, as pages or as a stream.

mod stream;
pub(crate) mod ticket;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::accept::preferred;
use super::auth::{Authorized, EventsRead};
use super::extract::Query;
use super::headers::LAST_EVENT_ID;
use super::page::{self, Asked, Listing, Sort};
use super::problem::{ApiError, Errors};
use super::{AppState, field};
use crate::domain::event::Severity;
use crate::storage::event_stream::Position;
use crate::storage::events::{self, Recorded, Wanted};

/// Filters for events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListEvents {
    /// Of this namespace.
    namespace: Option<String>,
    /// About this resource, by path or identifier; for a certificate, about its requests, orders and challenges too.
    #[param(example = "certificates/019ab000-0000-7000-8000-000000000000")]
    resource: Option<String>,
    /// Good news or bad.
    #[serde(rename = "type")]
    kind: Option<Severity>,
    /// For this reason, such as `Failed`.
    reason: Option<String>,
    /// Last seen at this moment or later (RFC 3339). A stream begins there, instead of now.
    since: Option<String>,
    /// A ticket of `POST /events/ticket`, in place of a header that says who asks; for a stream only.
    ticket: Option<String>,
    /// Items per page. A stream has no pages: it takes neither this nor the parameters below.
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

/// Something that happened, perhaps several times in a row.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// Sorts by `firstSeen`.
    id: Uuid,
    /// The resource's namespace; absent for a `ClusterIssuer`.
    namespace: Option<String>,
    /// The resource that it is about.
    #[schema(example = "/certificates/019ab000-0000-7000-8000-000000000000")]
    resource: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    #[schema(example = "Normal")]
    kind: String,
    /// cert-manager's word for it.
    #[schema(example = "Issuing")]
    reason: String,
    /// One sentence for people.
    message: String,
    /// Times that it happened in a row, with nothing else about the same resource in between.
    #[schema(example = 1)]
    count: i64,
    /// The trace that it happened in, the last time (W3C Trace Context): of the request or issuance that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: Option<String>,
    /// Time of its first occurrence.
    #[serde(with = "time::serde::rfc3339")]
    first_seen: OffsetDateTime,
    /// Time of its last occurrence.
    #[serde(with = "time::serde::rfc3339")]
    last_seen: OffsetDateTime,
    /// The same as `firstSeen`, under the name that other resources have for it.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

const PAGES: &str = "application/json";
const STREAM: &str = "text/event-stream";

/// List or stream events
///
/// With `Accept: text/event-stream` the answer goes on for as long as the client listens: what
/// happens from now on (from `since` on, if that is given) comes as server-sent events whose data is
/// one event in JSON, and whose `event` is the collection of its resource: `certificates`, `requests`, `orders`,
/// `challenges`, `issuers` or `webhooks`. An event that repeats itself comes again, with a higher `count`. Each has an
/// opaque `id`; a client that sends the last one it saw as `Last-Event-ID` misses nothing and gets
/// nothing twice, whichever replica it asks. A heartbeat, without data but with an `id`, comes every
/// 15 seconds.
#[utoipa::path(get, path = "/events", operation_id = "listEvents", tag = "events",
    params(ListEvents, ("Last-Event-ID" = Option<String>, Header, description = "Where a stream goes on: the last `id` that it sent")),
    responses((status = 200, description = "A page of events, or a stream of them",
        content((Listing<EventView> = "application/json"), (EventView = "text/event-stream")),
        headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<EventsRead>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<ListEvents>,
) -> Result<Response, ApiError> {
    let paged = query.limit.is_some() || query.cursor.is_some() || query.sort.is_some();
    let paged = paged || query.fields.is_some() || query.count;
    let asked = Asked::first::<EventView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted {
        namespace: query.namespace,
        resource: query.resource.as_deref().map(resource).transpose()?,
        severity: query.kind,
        reason: query.reason,
        since: query.since.as_deref().map(|text| field::moment(text, "since")).transpose()?,
    };
    if preferred(&headers, &[PAGES, STREAM])? == STREAM {
        if paged {
            let detail =
                "A stream has no pages: leave out `limit`, `cursor`, `sort`, `fields` and `count`.";
            return Err(ApiError::malformed(detail));
        }
        return stream::follow(app, &who, wanted, last_seen(&headers)?).await;
    }
    if query.ticket.is_some() {
        let detail = "A ticket is for a stream: send `Accept: text/event-stream`.";
        return Err(ApiError::malformed(detail));
    }
    let mut tx = app.db.read().await?;
    let rows = events::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Recorded| row.id.as_bytes().to_vec();
    let mut response = page::answer(&uri, &asked, rows, key, EventView::from);
    response.headers_mut().append(header::VARY, HeaderValue::from_name(header::ACCEPT));
    Ok(response)
}

/// The last event that the client saw; browsers send an empty header if there was none.
fn last_seen(headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let Some(given) = headers.get(&LAST_EVENT_ID).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let position = given.to_str().ok().and_then(|text| text.parse().ok());
    position.map(Some).ok_or_else(|| {
        ApiError::malformed("`Last-Event-ID` is not an `id` that a stream of events gave.")
    })
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
            count: event.count,
            first_seen: event.first_seen(),
            last_seen: event.last_seen(),
            created_at: event.first_seen(),
            trace_id: event.trace_id,
            namespace: Some(event.namespace).filter(|namespace| !namespace.is_empty()),
            resource: format!("/{}/{}", event.collection, event.resource_id),
            kind: event.severity,
            reason: event.reason,
            message: event.message,
        }
    }
}
