//! Tickets for streams of events.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::api::AppState;
use crate::api::auth::{Authorized, EventsRead, ticket};
use crate::api::dry_run::DryRun;
use crate::api::extract::Query;
use crate::api::idempotency::IdempotencyKey;
use crate::api::precondition::{json, untagged};
use crate::api::problem::{ApiError, Errors};
use crate::api::wait::Held;
use crate::domain::api_key::hash_key;
use crate::domain::event_ticket::{EventTicket, VALID_FOR};
use crate::domain::id::EventTicketId;
use crate::storage::event_tickets;

/// A ticket for one stream of events.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventTicket)]
pub(crate) struct TicketView {
    /// Opens `GET /events?ticket=…`, once. Shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    /// The time from which on it opens nothing.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

/// Create a ticket for a stream of events
///
/// For browsers, whose `EventSource` sends no headers: `GET /events?ticket=…` streams within 60 seconds, once, what the
/// caller may see by then, and ends when the caller's API key or token does. A replay under the same `Idempotency-Key`
/// does not show the ticket.
#[utoipa::path(post, path = "/events/ticket", operation_id = "createEventTicket", tag = "events",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    responses((status = 201, body = TicketView, description = "Made; `ticket` is shown this once", headers(("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<EventsRead>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, b"", dry);
    let made = || async {
        let now = app.now();
        let ticket = EventTicket {
            id: EventTicketId::generate(now),
            holder: who.holder(),
            expires_at: now + VALID_FOR,
        };
        let text = ticket::generate()?;
        let plain = TicketView { ticket: None, expires_at: ticket.expires_at };
        let mut tx = attempt.begin(&app);
        attempt.remember(&app, &mut tx, (StatusCode::CREATED, ""), &json(&plain)?).await?;
        event_tickets::insert(&mut tx, &ticket, &hash_key(text.expose())).await?;
        dry.end(tx).await?;
        if dry.is_wanted() {
            return Ok(dry.told(untagged(StatusCode::CREATED, json(&plain)?)));
        }
        let whole = TicketView { ticket: Some(text.expose().clone()), ..plain };
        Ok(untagged(StatusCode::CREATED, json(&whole)?))
    };
    attempt.once(&app, &Held::default(), made).await
}
