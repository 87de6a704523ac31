//! Deliveries of messages to a webhook, and their redelivery.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::find as find_webhook;
use crate::api::auth::{Authorized, Principal, WebhooksRead, WebhooksWrite};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Body, Path, Query};
use crate::api::idempotency::{Attempt, IdempotencyKey, accepted};
use crate::api::page::{self, Asked, Listing, Sort};
use crate::api::precondition::{Precondition, json, untagged};
use crate::api::problem::{ApiError, Code, Errors};
use crate::api::wait::{Held, Wait};
use crate::api::{AppState, field};
use crate::domain::delivery::{Delivery, State as DeliveryState};
use crate::domain::event_type::EventType;
use crate::domain::id::DeliveryId;
use crate::domain::webhook::Webhook;
use crate::storage::deliveries::{self, Wanted};
use crate::storage::{Read, Scope, Tx, audit, outbox};

/// Deliveries that are queued again in one transaction.
const BATCH: u32 = 1000;

/// Filters for deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListDeliveries {
    /// In this state.
    state: Option<DeliveryState>,
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<EventType>,
    /// About this certificate.
    certificate: Option<Uuid>,
    /// Told at this moment or later (RFC 3339).
    since: Option<String>,
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

/// A message on its way to a webhook, or there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    /// Its identifier.
    id: Uuid,
    /// To whom.
    webhook: String,
    /// The `webhook-id` that the receiver sees; the same for every try.
    #[schema(example = "msg_019ab000000070008000000000000000")]
    message_id: String,
    /// The event type.
    #[serde(rename = "type")]
    kind: EventType,
    /// The resource that it is about.
    #[schema(example = "/certificates/019ab000-0000-7000-8000-000000000000")]
    resource: String,
    /// Its state.
    state: DeliveryState,
    /// Tries so far.
    attempts: u32,
    /// Time of the last try.
    #[serde(with = "time::serde::rfc3339::option")]
    last_attempt_at: Option<OffsetDateTime>,
    /// Duration of the last try.
    #[schema(example = 87)]
    last_duration_ms: Option<u64>,
    /// The HTTP status of its answer.
    #[schema(example = 503)]
    response_status: Option<u16>,
    /// How its answer began, at most 1 KiB; a stranger's text, and `null` for a key that is bound to
    /// namespaces.
    response_body: Option<String>,
    /// Why there was no answer.
    error: Option<String>,
    /// Time of the next try.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// Time of the event.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time of its end.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
}

/// The deliveries to send again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedeliverSince {
    /// Messages from this time on (RFC 3339) that are not queued already.
    #[schema(example = "2026-11-25T12:00:00Z")]
    since: String,
}

/// The result of a redelivery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redelivered {
    /// Number of deliveries that were queued again.
    redelivered: usize,
}

/// List a webhook's deliveries
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", operation_id = "listDeliveries", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), ListDeliveries),
    responses((status = 200, body = Listing<DeliveryView>, description = "A page of deliveries", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<WebhooksRead>,
    Path(id): Path<Uuid>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListDeliveries>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<DeliveryView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let since = query.since.as_deref();
    let wanted = Wanted {
        state: query.state,
        event_type: query.kind,
        subject: query.certificate,
        since: since.map(|text| field::moment(text, "since")).transpose()?,
    };
    let mut tx = app.db.read().await?;
    let (webhook, _) = find_webhook(&mut tx, id, &who.scope).await?;
    let rows = deliveries::list(&mut tx, webhook.id, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Delivery| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |row| DeliveryView::of(&row, &who)))
}

/// Get a delivery
#[utoipa::path(get, path = "/webhooks/{id}/deliveries/{delivery}", operation_id = "getDelivery", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), ("delivery" = Uuid, Path, description = "The delivery"), ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until it has come to its end, at most that many seconds, at most 300"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = DeliveryView, description = "The delivery", headers(("ETag" = String), ("Preference-Applied" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<WebhooksRead>,
    Path((id, delivery)): Path<(Uuid, Uuid)>,
    wait: Wait,
    known: Precondition,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let found = settled(&app, &who, id, delivery, &wait).await?;
    Ok(wait.applied(known.show(&DeliveryView::of(&found, &who))?))
}

/// Redeliver a message
///
/// Under the same `webhook-id` and with the same body, whatever its result was. Now, if it waits for its
/// next try.
#[utoipa::path(post, path = "/webhooks/{id}/deliveries/{delivery}/redeliver", operation_id = "redeliver", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), ("delivery" = Uuid, Path, description = "The delivery"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 202, body = DeliveryView, description = "On its way again", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn redeliver(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path((id, delivery)): Path<(Uuid, Uuid)>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &[], dry);
    let once = || async {
        let mut tx = attempt.begin(&app);
        let (webhook, _) = find_webhook(&mut tx, id, &who.scope).await?;
        audit::changes(&mut tx, "webhooks", id, &webhook.namespace);
        must_be_enabled(&webhook)?;
        let found = find(&mut tx, &webhook, delivery, &who.scope).await?;
        known.must_match(&DeliveryView::of(&found, &who))?;
        must_be_heard(&webhook, &found)?;
        deliveries::redeliver(&mut tx, &found, app.now()).await?;
        let again = deliveries::find(&mut tx, webhook.id, found.id).await?.unwrap_or(found);
        end(&app, tx, (&attempt, dry), &again).await
    };
    attempt.once(&app, &Held::default(), once).await
}

/// Commits, and answers with the delivery as it was sent.
async fn end(
    app: &AppState,
    mut tx: Tx,
    (attempt, dry): (&Attempt, DryRun),
    sent: &Delivery,
) -> Result<Response, ApiError> {
    let (location, body) = (location(sent), json(&DeliveryView::of(sent, attempt.who()))?);
    attempt.remember(app, &mut tx, (StatusCode::ACCEPTED, &location), &body).await?;
    dry.end(tx).await?;
    Ok(dry.told(accepted(&location, body)))
}

/// What `GET` shows of it once it has come to its end, or the client has waited long enough.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    webhook: Uuid,
    id: Uuid,
    wait: &Held,
) -> Result<Vec<u8>, ApiError> {
    json(&DeliveryView::of(&settled(app, who, webhook, id, wait).await?, who))
}

/// Redeliver messages since a point in time
///
/// What was delivered, given up or held since then and is of a namespace that the webhook still asks for, under the same `webhook-id`s; in order for each
/// certificate.
#[utoipa::path(post, path = "/webhooks/{id}/redeliver", operation_id = "redeliverSince", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = RedeliverSince,
    responses((status = 202, body = Redelivered, description = "On their way again", headers(("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn redeliver_since(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<RedeliverSince>,
) -> Result<Response, ApiError> {
    let since = field::moment(&body.value.since, "since")?;
    let attempt = key.attempt(&who, &body.content, dry);
    attempt.once(&app, &Held::default(), || all_since(&app, id, since, (&attempt, dry))).await
}

/// Queues deliveries again, some in each transaction. A dry run counts those of the first.
async fn all_since(
    app: &AppState,
    id: Uuid,
    since: OffsetDateTime,
    (attempt, dry): (&Attempt, DryRun),
) -> Result<Response, ApiError> {
    let who = attempt.who();
    let (mut redelivered, mut after) = (0, None);
    loop {
        let mut tx = attempt.begin(app);
        let (webhook, _) = find_webhook(&mut tx, id, &who.scope).await?;
        audit::changes(&mut tx, "webhooks", id, &webhook.namespace);
        must_be_enabled(&webhook)?;
        let (count, last) =
            deliveries::redeliver_since(&mut tx, webhook.id, since, after, BATCH).await?;
        redelivered += count;
        let is_last = last.is_none() || dry.is_wanted();
        let body = json(&Redelivered { redelivered })?;
        if is_last {
            deliveries::go_on(&mut tx, webhook.id, app.now()).await?;
            attempt.remember(app, &mut tx, (StatusCode::ACCEPTED, ""), &body).await?;
        }
        dry.end(tx).await?;
        if is_last {
            return Ok(dry.told(untagged(StatusCode::ACCEPTED, body)));
        }
        after = last;
    }
}

/// Test a webhook
///
/// Sends `webhook.test`, once, before whatever else waits, also while it is disabled.
/// `Prefer: wait=20` tells what came of it.
#[utoipa::path(post, path = "/webhooks/{id}/test", operation_id = "testWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("Prefer" = Option<String>, Header, description = "`wait=20`: hold the answer until the endpoint has answered, at most that many seconds, at most 300")),
    responses((status = 202, body = DeliveryView, description = "On its way, or what came of it", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Preference-Applied" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn test(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    wait: Wait,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let attempt = key.attempt(&who, &[], dry);
    let once = || async {
        let mut tx = attempt.begin(&app);
        let (webhook, _) = find_webhook(&mut tx, id, &who.scope).await?;
        audit::changes(&mut tx, "webhooks", id, &webhook.namespace);
        let sent = outbox::try_out(&mut tx, &webhook, app.now()).await?;
        let answered = end(&app, tx, (&attempt, dry), &sent).await?;
        if dry.is_wanted() {
            return Ok(answered);
        }
        let found = match settled(&app, &who, id, sent.id.0, &wait).await {
            Err(error) if !error.is_about_the_caller() => sent,
            found => found?,
        };
        let body = json(&DeliveryView::of(&found, &who))?;
        Ok(wait.applied(accepted(&location(&found), body)))
    };
    attempt.once(&app, &wait, once).await
}

/// Reads a delivery once it has ended or the client has waited long enough.
async fn settled(
    app: &AppState,
    who: &Principal,
    webhook: Uuid,
    id: Uuid,
    wait: &Held,
) -> Result<Delivery, ApiError> {
    let read = || async {
        let mut tx = app.db.read().await?;
        let (webhook, _) = find_webhook(&mut tx, webhook, &who.scope).await?;
        find(&mut tx, &webhook, id, &who.scope).await
    };
    wait.until(app, who, id, read, |found| found.state.is_final()).await
}

/// The delivery, if the caller may know of it: who is bound to namespaces, of what the webhook still asks for.
async fn find(
    tx: &mut Read,
    webhook: &Webhook,
    id: Uuid,
    scope: &Scope,
) -> Result<Delivery, ApiError> {
    let may_know = |found: &Delivery| match scope {
        Scope::Everything => true,
        Scope::Namespaces(_) => {
            let namespace = found.namespace.as_deref();
            namespace.is_some_and(|namespace| scope.covers(namespace))
                && webhook.still_hears_of(found)
        }
    };
    let found = deliveries::find(tx, webhook.id, DeliveryId(id)).await?;
    found.filter(may_know).ok_or_else(|| ApiError::not_found("delivery", id))
}

fn must_be_heard(webhook: &Webhook, delivery: &Delivery) -> Result<(), ApiError> {
    if webhook.still_hears_of(delivery) {
        return Ok(());
    }
    let detail = match &delivery.namespace {
        Some(namespace) => format!(
            "It tells of the namespace `{namespace}`, which the webhook does not ask for any more. PATCH its `namespaces` first."
        ),
        None => "Nobody knows any more whose namespace it tells of: only a webhook of all (`[\"*\"]`) is sent it.".to_owned(),
    };
    Err(ApiError::Because(Code::ValidationFailed, detail))
}

fn must_be_enabled(webhook: &Webhook) -> Result<(), ApiError> {
    match webhook.disabled {
        None => Ok(()),
        Some(_) => Err(ApiError::Because(
            Code::WebhookDisabled,
            "It is sent nothing. Enable it first: PATCH with `disabled: false`.".to_owned(),
        )),
    }
}

fn location(delivery: &Delivery) -> String {
    format!("/webhooks/{}/deliveries/{}", delivery.webhook, delivery.id)
}

impl DeliveryView {
    /// The view for the caller. The receiver's answer is hidden from bound principals, who choose the receiver.
    fn of(delivery: &Delivery, who: &Principal) -> Self {
        let last = delivery.last.as_ref();
        let answer = last.and_then(|attempt| attempt.answer.clone());
        Self {
            id: delivery.id.0,
            webhook: format!("/webhooks/{}", delivery.webhook),
            message_id: delivery.message_id(),
            kind: delivery.event_type,
            resource: format!("/{}/{}", delivery.subject.collection(), delivery.subject.id()),
            state: delivery.state,
            attempts: delivery.attempts,
            last_attempt_at: last.map(|attempt| attempt.at),
            last_duration_ms: last
                .and_then(|attempt| u64::try_from(attempt.took.whole_milliseconds()).ok()),
            response_status: last.and_then(|attempt| attempt.status),
            response_body: answer.filter(|_| !who.is_bound()),
            error: last.and_then(|attempt| attempt.error.clone()),
            next_attempt_at: delivery.next_action_at.map(|at| at.max(delivery.created_at)),
            created_at: delivery.created_at,
            finished_at: delivery.finished_at,
        }
    }
}
