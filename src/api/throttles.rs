//! Throttles: who is asked to wait by whom, until when; and lifting it.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AppState;
use super::auth::{Authorized, Principal, ThrottlesRead, ThrottlesWrite};
use super::dry_run::DryRun;
use super::extract::{Path, Query};
use super::page::{self, Asked, Listing, Sort};
use super::problem::{ApiError, Code, Errors};
use crate::domain::failure::Failure;
use crate::domain::id::ThrottleId;
use crate::domain::issuer::Issuer;
use crate::domain::throttle::{Asker, Scope as Limit, Throttle};
use crate::storage::{Page, Scope, issuers, orders, throttles};

/// Somebody who counts and has enough for now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Throttle)]
pub(crate) struct ThrottleView {
    id: Uuid,
    /// The CA (`host:port`) that counts, or the URL of the account that it counts for.
    #[schema(example = "acme-v02.api.letsencrypt.org:443")]
    counted_by: String,
    /// The limit: whoever shares it waits.
    limit: Option<Limit>,
    /// Until then no order that shares the limit is sent.
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
    /// What the CA said, to the order that asked first.
    last_error: Failure,
}

/// Which throttles.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListThrottles {
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

/// List throttles
///
/// Those that hold somebody now. They are about the names of all namespaces, so that only API keys that are bound to none see them.
#[utoipa::path(get, path = "/throttles", operation_id = "listThrottles", tag = "service",
    params(ListThrottles),
    responses((status = 200, body = Listing<ThrottleView>, description = "A page of throttles", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<ThrottlesRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListThrottles>,
) -> Result<Response, ApiError> {
    is_bound_to_nothing(&who)?;
    let asked = Asked::first::<ThrottleView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let mut read = app.db.read().await?;
    let found = throttles::list(&mut read, asked.page, app.now()).await?;
    let key = |throttle: &Throttle| throttle.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, found, key, view))
}

/// Lift a throttle
///
/// Orders that wait for it are sent at once. The CA may refuse them again, and then they wait as it says.
#[utoipa::path(delete, path = "/throttles/{id}", operation_id = "liftThrottle", tag = "service",
    params(("id" = Uuid, Path, description = "The throttle's identifier"), DryRun),
    responses((status = 204, description = "Lifted", headers(("Dry-Run" = String))), Errors))]
pub(crate) async fn lift(
    State(app): State<AppState>,
    who: Authorized<ThrottlesWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
) -> Result<Response, ApiError> {
    is_bound_to_nothing(&who)?;
    let now = app.now();
    let mut tx = app.begin(&who);
    let throttle = throttles::find(&mut tx, ThrottleId(id), now).await?;
    let throttle = throttle.ok_or_else(|| ApiError::not_found("throttle", id))?;
    throttles::lift(&mut tx, throttle.id).await?;
    dry.end(tx).await?;
    let lifted = dry.told(StatusCode::NO_CONTENT.into_response());
    if dry.is_wanted() {
        return Ok(lifted);
    }
    let by = who.subject.id();
    tracing::info!(%by, counted_by = throttle.counted_by(), until = %throttle.until, "a throttle was lifted");
    wake_orders(&app, &throttle, now).await?;
    Ok(lifted)
}

/// Wakes the orders of the issuers that it concerns, an issuer at a time. What is missed in a crash looks by itself
/// when the throttle would have ended.
async fn wake_orders(
    app: &AppState,
    throttle: &Throttle,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let mut page = Page::first(100);
    loop {
        let mut read = app.db.read().await?;
        let found = issuers::list(&mut read, &Scope::Everything, &issuers::Wanted::default(), page)
            .await?
            .rows;
        drop(read);
        page.after = found.last().map(|issuer| issuer.id.0);
        let is_last = found.len() <= page.limit as usize;
        for issuer in found.iter().filter(|issuer| throttle.concerns(asker(issuer))) {
            let mut tx = app.db.begin();
            orders::wake_new(&mut tx, issuer.id, now).await?;
            tx.commit().await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

fn asker(issuer: &Issuer) -> Asker<'_> {
    let account = issuer.account.as_ref().map_or("", |account| account.url.as_str());
    Asker { server: &issuer.acme.server, account, names: &[] }
}

fn is_bound_to_nothing(who: &Principal) -> Result<(), ApiError> {
    match who.scope {
        Scope::Everything => Ok(()),
        Scope::Namespaces(_) => {
            let detail = "Throttles are about the names of all namespaces: use an API key that is bound to none.";
            Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()))
        }
    }
}

fn view(throttle: Throttle) -> ThrottleView {
    ThrottleView {
        id: throttle.id.0,
        counted_by: throttle.counted_by().to_owned(),
        limit: throttle.why.scope.clone(),
        until: throttle.until,
        last_error: throttle.why,
    }
}
