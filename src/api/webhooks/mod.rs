//! Webhooks: listing, creating, updating, testing and deleting them.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Authorized, Principal, WebhooksRead, WebhooksWrite};
use super::dry_run::DryRun;
use super::extract::{Body, Path, Query};
use super::idempotency::{Attempt, IdempotencyKey, located};
use super::merge_patch::MergePatch;
use super::page::{self, Asked, Listing, Sort};
use super::precondition::{Precondition, answer, json};
use super::problem::{ApiError, Code, Errors};
use super::rotation::{Rotation, content, overlap, shown_once};
use super::wait::Held;
use super::{AppState, retrying};
use crate::domain::event::Event;
use crate::domain::id::WebhookId;
use crate::domain::signature;
use crate::domain::webhook::{Disabled, Health, Webhook};
use crate::secret::{Sealed, Secret};
use crate::storage::webhooks::{self, Wanted, former_secret_place, secret_place};
use crate::storage::{Read, Scope, events, lease::Lease};

mod check;
pub(crate) mod deliveries;
mod view;

use check::{Checked, WebhookPatch, WebhookSpec};
use view::WebhookView;

/// Filters for webhooks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListWebhooks {
    /// Of this namespace.
    namespace: Option<String>,
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

/// Create a webhook
///
/// The answer shows the signing secret, once; a replay under the same `Idempotency-Key` does not.
#[utoipa::path(post, path = "/webhooks", operation_id = "createWebhook", tag = "webhooks",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = WebhookSpec,
    responses((status = 201, body = WebhookView, description = "Created; `secret` is shown this once", headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<WebhookSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    attempt
        .once(&app, &Held::default(), || async {
            let checked = body.value.clone().check(&app, &who)?;
            if !dry.is_wanted() {
                checked.check_reachable(&app).await?;
            }
            let webhook = new(&app, checked);
            let secret = signature::generate_secret()?;
            let sealed = app.sealer.seal(&secret_place(&webhook), secret.expose().as_bytes())?;
            insert(&app, &attempt, &webhook, (&secret, &sealed), dry).await
        })
        .await
}

/// List webhooks
#[utoipa::path(get, path = "/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    params(ListWebhooks),
    responses((status = 200, body = Listing<WebhookView>, description = "A page of webhooks", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<WebhooksRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListWebhooks>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<WebhookView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let now = app.now();
    let wanted = Wanted { namespace: query.namespace, name: query.name };
    let mut tx = app.db.read().await?;
    let rows = webhooks::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Webhook| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |row| WebhookView::of(&row, now)))
}

/// Get a webhook
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "getWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = WebhookView, description = "The webhook, without its secret", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<WebhooksRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let (webhook, _) = find(&mut app.db.read().await?, id, &who.scope).await?;
    known.show(&WebhookView::of(&webhook, app.now()))
}

/// What `GET` shows of it.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    id: Uuid,
) -> Result<Vec<u8>, ApiError> {
    let (webhook, _) = find(&mut app.db.read().await?, id, &who.scope).await?;
    json(&WebhookView::of(&webhook, app.now()))
}

/// Update a webhook
///
/// A JSON merge patch (RFC 7396). What is on its way already goes to where it leads then.
#[utoipa::path(patch, path = "/webhooks/{id}", operation_id = "changeWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body(content((WebhookPatch = "application/merge-patch+json"), (WebhookPatch = "application/json")), description = "The fields to change"),
    responses((status = 200, body = WebhookView, description = "Changed", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn change(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    let wanted = |present: &Webhook| {
        let fixed = [("namespace", &*present.namespace), ("name", &*present.name)];
        patch.apply(&WebhookSpec::from(present), &fixed)?.check(&app, &who)
    };
    let mut tx = app.db.read().await?;
    let (before, _) = find(&mut tx, id, &who.scope).await?;
    drop(tx);
    let checked = wanted(&before)?;
    if checked.spec.url != before.spec.url && !dry.is_wanted() {
        checked.check_reachable(&app).await?;
    }
    retrying(|| async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        known.must_match(&WebhookView::of(&present, now))?;
        let Checked { spec, disabled, .. } = wanted(&present)?;
        let next = present.clone().respecified(spec, disabled, now);
        if next.webhook != present {
            webhooks::respecify(&mut tx, &next, &lease).await?;
            dry.end(tx).await?;
        }
        Ok(dry.told(answer(StatusCode::OK, json(&WebhookView::of(&next.webhook, now))?)))
    })
    .await
}

/// Delete a webhook
///
/// With its deliveries, also those that are on their way.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "deleteWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Deleted", headers(("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let now = app.now();
        let mut tx = app.begin(&who);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        known.must_match(&WebhookView::of(&present, now))?;
        // Fenced like any change, so that nothing that was saved meanwhile is lost unseen.
        webhooks::save(&mut tx, &present.deleted(now), &lease, None).await?;
        webhooks::delete(&mut tx, WebhookId(id)).await?;
        dry.end(tx).await?;
        Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}

/// Rotate a webhook's signing secret
///
/// The answer shows the new one, once. The former signs as well for a while, so that receivers can
/// change over. A replay under the same `Idempotency-Key` does not show it.
#[utoipa::path(post, path = "/webhooks/{id}/rotate", operation_id = "rotateWebhookSecret", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body(content = Option<Rotation>, description = "May be left out"),
    responses((status = 200, body = WebhookView, description = "Changed; `secret` is shown this once", headers(("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn rotate(
    State(app): State<AppState>,
    who: Authorized<WebhooksWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
    body: Option<Body<Rotation>>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, content(body.as_ref()), dry);
    let overlap = overlap(body)?;
    let secret = signature::generate_secret()?;
    let once = || async {
        let now = app.now();
        let mut tx = attempt.begin(&app);
        let (present, lease) = find(&mut tx, id, &who.scope).await?;
        known.must_match(&WebhookView::of(&present, now))?;
        let place = secret_place(&present);
        let sealed = app.sealer.seal(&place, secret.expose().as_bytes())?;
        let former = match webhooks::secrets(&mut tx, present.id).await? {
            Some(known) if overlap.is_positive() => {
                let opened = app.sealer.open(&place, &known.current)?;
                let place = former_secret_place(&present);
                Some(app.sealer.seal(&place, opened.expose())?)
            }
            _ => None,
        };
        let next = present.rotated(former.as_ref().map(|_| now + overlap), now);
        let plain = WebhookView::of(&next.webhook, now);
        let location = format!("/webhooks/{id}");
        attempt.remember(&app, &mut tx, (StatusCode::OK, &location), &json(&plain)?).await?;
        webhooks::rotate(&mut tx, &next, &lease, &sealed, former.as_ref()).await?;
        dry.end(tx).await?;
        if dry.is_wanted() {
            return Ok(dry.told(answer(StatusCode::OK, json(&plain)?)));
        }
        shown_once((StatusCode::OK, &location), &plain.clone().with_secret(secret.expose()), &plain)
    };
    attempt.once(&app, &Held::default(), || retrying(once)).await
}

/// The webhook, if the caller may know of it.
async fn find(tx: &mut Read, id: Uuid, scope: &Scope) -> Result<(Webhook, Lease), ApiError> {
    let found = webhooks::find(tx, WebhookId(id), scope).await?;
    found.ok_or_else(|| ApiError::not_found("webhook", id))
}

fn new(app: &AppState, checked: Checked) -> Webhook {
    let now = app.now();
    let id = WebhookId::generate(now);
    Webhook {
        id,
        namespace: checked.namespace,
        name: checked.name.unwrap_or_else(|| Webhook::default_name(id)),
        spec: checked.spec,
        disabled: checked.disabled.then_some(Disabled::Client),
        health: Health::default(),
        former_until: None,
        created_at: now,
        updated_at: now,
    }
}

fn already_exists(webhook: &Webhook) -> ApiError {
    let detail = format!(
        "There is a webhook `{}` in the namespace `{}` already. Change it with PATCH.",
        webhook.name, webhook.namespace
    );
    ApiError::Because(Code::AlreadyExists, detail)
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    webhook: &Webhook,
    (secret, sealed): (&Secret<String>, &Sealed),
    dry: DryRun,
) -> Result<Response, ApiError> {
    let location = format!("/webhooks/{}", webhook.id);
    let now = webhook.created_at;
    // The answer for a replay is stored in plain text, so the secret is left out of it.
    let plain = WebhookView::of(webhook, now);
    let mut tx = attempt.begin(app);
    attempt.remember(app, &mut tx, (StatusCode::CREATED, &location), &json(&plain)?).await?;
    let stored = async {
        webhooks::insert(&mut tx, webhook, sealed).await?;
        let event = Event::normal(webhook.id, "Created", "The webhook was created");
        events::record(&mut tx, &webhook.namespace, None, &[event], now);
        Ok::<_, ApiError>(dry.end(tx).await?)
    };
    stored.await.map_err(|error| error.or_if_taken(|| already_exists(webhook)))?;
    if dry.is_wanted() {
        return Ok(dry.told(located(StatusCode::CREATED, &location, json(&plain)?)));
    }
    let whole = plain.clone().with_secret(secret.expose());
    shown_once((StatusCode::CREATED, &location), &whole, &plain)
}
