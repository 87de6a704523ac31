//! Throttles: who is asked to wait by whom, until when; and lifting it.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AppState;
use super::auth::{Authorized, Permission as _, Principal, ThrottlesRead, ThrottlesWrite};
use super::dry_run::DryRun;
use super::extract::{Path, Query};
use super::page::{self, Asked, Listing, Sort};
use super::problem::{ApiError, Code, Errors};
use crate::domain::failure::Class;
use crate::domain::id::ThrottleId;
use crate::domain::issuer::{self, Issuer};
use crate::domain::throttle::{Scope as Limit, Throttle};
use crate::storage::{Page, Read, Scope, StorageError, issuers, orders, throttles};
use crate::view::ThrottleView;

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
    Ok(page::answer(&uri, &asked, found, key, ThrottleView::from))
}

/// Lift a throttle
///
/// Orders that wait for it are sent at once, and so are registrations of issuers. The CA may refuse them again, and then they wait as it says.
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
    wake(&app, &throttle, now).await?;
    Ok(lifted)
}

/// How many an issuer shows.
const SHOWN: u32 = 20;

/// What an issuer's orders may have to wait for. Who may not see the list sees nothing of it that is about names, and not
/// the CA's words.
pub(super) async fn of_issuer(
    read: &mut Read,
    issuer: &Issuer,
    who: &Principal,
    now: OffsetDateTime,
) -> Result<Vec<ThrottleView>, StorageError> {
    let asker = issuer.asker();
    if !who.is_bound() && who.may(ThrottlesRead::NAME) {
        let found = throttles::of(read, &asker.pools(), SHOWN, now).await?;
        return Ok(found.into_iter().map(ThrottleView::from).collect());
    }
    let nameless = [Limit::Endpoint, Limit::Account].map(|limit| asker.pool(&limit));
    let found = throttles::of(read, &nameless, SHOWN, now).await?;
    Ok(found.into_iter().map(Throttle::told_to_others).map(ThrottleView::from).collect())
}

/// Wakes the issuers that it concerns, an issuer at a time: their orders, and those that wait with their registration.
/// What is missed in a crash looks by itself when the throttle would have ended.
async fn wake(app: &AppState, throttle: &Throttle, now: OffsetDateTime) -> Result<(), ApiError> {
    let mut page = Page::first(100);
    loop {
        let mut read = app.db.read().await?;
        let found = issuers::list(&mut read, &Scope::Everything, &issuers::Wanted::default(), page)
            .await?
            .rows;
        drop(read);
        page.after = found.last().map(|issuer| issuer.id.0);
        let is_last = found.len() <= page.limit as usize;
        for issuer in found.iter().filter(|issuer| throttle.concerns(issuer.asker())) {
            let mut tx = app.db.begin();
            orders::wake_new(&mut tx, issuer.id, now).await?;
            if waits(issuer) {
                issuers::wake(&mut tx, issuer.id, now).await?;
            }
            tx.commit().await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Whether it waits with its registration as it was told.
fn waits(issuer: &Issuer) -> bool {
    let is_told = issuer.last_error.as_ref().is_some_and(|why| why.class == Class::Throttle);
    is_told && issuer.state == issuer::State::Failed
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
