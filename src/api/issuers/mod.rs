//! Issuers: listing, creating, replacing and deleting them.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::auth::{Authorized, IssuersRead, IssuersWrite, Principal};
use super::dry_run::DryRun;
use super::extract::{Body, Path, Query};
use super::idempotency::{Attempt, IdempotencyKey, accepted};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::{Precondition, answer, json};
use super::problem::{ApiError, Code, Errors, Faults, FieldCode};
use super::wait::Held;
use super::{AppState, retrying, throttles};
use crate::domain::id::IssuerId;
use crate::domain::issuer::{AccountChange, Acme, Issuer, Kind, State as IssuerState};
use crate::secret::Sealed;
use crate::storage::issuers::{self, Wanted, account_key_place};
use crate::storage::lease::Lease;
use crate::storage::{Read, Tx, certificates, orders, policy_reviews, revocations};

pub(crate) mod accounts;
pub(crate) mod check;
mod limits;
mod outside;

use crate::view::IssuerView;
use crate::view::spec::IssuerSpec;
use check::check;

/// Filters for issuers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListIssuers {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// Of this kind.
    kind: Option<Kind>,
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

/// Create an issuer
///
/// Its account key is made and kept here, unless `privateKeySecretRef` names a Secret that is there;
/// the account is registered in the background.
#[utoipa::path(post, path = "/issuers", operation_id = "createIssuer", tag = "issuers",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = IssuerSpec,
    responses((status = 202, body = IssuerView, description = "Accepted; the account is being registered", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<IssuersWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<IssuerSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    attempt
        .once(&app, &Held::default(), || async {
            let namespace = body.value.namespace();
            who.must_own(&namespace)?;
            check(&body.value, &app, &who)?;
            let issuer = new(&app, body.value.clone(), namespace);
            let imported = accounts::imported(&app, &mut app.db.read().await?, &issuer).await?;
            let account_key = match imported {
                Some(key) => key,
                None => (app.account_key)().map_err(ApiError::Inside)?,
            };
            let sealed = app.sealer.seal(&account_key_place(&issuer), account_key.expose())?;
            insert(&app, &attempt, (&issuer, &sealed), dry).await
        })
        .await
}

/// List issuers
#[utoipa::path(get, path = "/issuers", operation_id = "listIssuers", tag = "issuers",
    params(ListIssuers),
    responses((status = 200, body = Listing<IssuerView>, description = "A page of issuers", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<IssuersRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListIssuers>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<IssuerView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted { namespace: query.namespace, name: query.name, kind: query.kind };
    let mut tx = app.db.read().await?;
    let rows = issuers::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Issuer| row.id.0.as_bytes().to_vec();
    let view = |row: Issuer| IssuerView::from(&row).with_clock(app.health.skew_with(&row));
    Ok(page::answer(&uri, &asked, rows, key, view))
}

/// Get an issuer
///
/// With what is used of its CA's limits (`status.acme.limits`), what the CA has asked to wait for (`status.throttles`) and
/// the condition `ClockSkewed`, which the `ETag` does not cover.
#[utoipa::path(get, path = "/issuers/{id}", operation_id = "getIssuer", tag = "issuers",
    params(("id" = Uuid, Path, description = "The issuer"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = IssuerView, description = "The issuer", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<IssuersRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    let found = issuers::find(&mut tx, IssuerId(id), &who.scope).await?;
    let (issuer, _) = found.ok_or_else(|| ApiError::not_found("issuer", id))?;
    let limits = limits::used(&mut tx, &issuer, app.now()).await?;
    let view = IssuerView::from(&issuer);
    let held = throttles::of_issuer(&mut tx, &issuer, &who, app.now()).await?;
    let more = IssuerView::from(&issuer).with(limits).with_throttles(held);
    known.show_with(&view, &more.with_clock(app.health.skew_with(&issuer)))
}

/// What `GET` shows of it, without what is used of its CA's limits.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    id: Uuid,
) -> Result<Vec<u8>, ApiError> {
    let found = issuers::find(&mut app.db.read().await?, IssuerId(id), &who.scope).await?;
    let (issuer, _) = found.ok_or_else(|| ApiError::not_found("issuer", id))?;
    json(&IssuerView::from(&issuer))
}

/// Replace an issuer
///
/// The account is checked again, and certificates that wait for the issuer are tried at once. Kind,
/// namespace and name stay.
#[utoipa::path(put, path = "/issuers/{id}", operation_id = "replaceIssuer", tag = "issuers",
    params(("id" = Uuid, Path, description = "The issuer"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = IssuerSpec,
    responses((status = 200, body = IssuerView, description = "Replaced", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn replace(
    State(app): State<AppState>,
    who: Authorized<IssuersWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
    body: Body<IssuerSpec>,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let mut tx = app.begin(&who);
        let (present, lease) = find_to_change(&mut tx, &who, id, &known).await?;
        must_stay(&present, &body.value)?;
        check(&body.value, &app, &who)?;
        let now = app.now();
        let next = respecify(&mut tx, &present, &lease, body.value.acme.clone(), now).await?;
        if next != present {
            dry.end(tx).await?;
        }
        Ok(dry.told(answer(StatusCode::OK, json(&IssuerView::from(&next))?)))
    })
    .await
}

/// The issuer, if the caller may change it and knows its present state.
async fn find_to_change(
    tx: &mut Read,
    who: &Principal,
    id: Uuid,
    known: &Precondition,
) -> Result<(Issuer, Lease), ApiError> {
    let found = issuers::find(tx, IssuerId(id), &who.scope).await?;
    let (present, lease) = found.ok_or_else(|| ApiError::not_found("issuer", id))?;
    who.must_own(&present.namespace)?;
    known.must_match(&IssuerView::from(&present))?;
    Ok((present, lease))
}

/// Gives an issuer another specification, and wakes everything that waits for the issuer. Writes nothing if nothing
/// changes.
pub(crate) async fn respecify(
    tx: &mut Tx,
    present: &Issuer,
    lease: &Lease,
    acme: Acme,
    now: OffsetDateTime,
) -> Result<Issuer, ApiError> {
    let next = present.clone().respecified(acme, now);
    if next.issuer != *present {
        let Issuer { id, kind, namespace, name, .. } = present;
        orders::retake_steps(tx, *id, now).await?;
        issuers::save(tx, &next, lease).await?;
        if next.issuer.acme.server != present.acme.server {
            // What was approved was approved for another CA.
            certificates::disapprove(tx, *kind, namespace, name, now).await?;
        }
        if next.issuer.acme != present.acme {
            policy_reviews::begin_for_issuer(tx, *kind, namespace, now).await?;
        }
        certificates::wake_waiting(tx, *kind, namespace, name, now).await?;
    }
    Ok(next.issuer)
}

/// Options of a deletion.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// Give the account up at the CA first.
    #[serde(default)]
    #[param(default = false)]
    deactivate: bool,
    /// Only say what would happen: the answer is the same, with the header `Dry-Run: true`, and nothing is stored.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// Delete an issuer
///
/// Its account key is forgotten. Refused while certificates refer to it, or orders or revocations still
/// need it. With `deactivate` the account is given up at the CA first; if that cannot be done within a
/// day, the issuer goes all the same.
#[utoipa::path(delete, path = "/issuers/{id}", operation_id = "deleteIssuer", tag = "issuers",
    params(("id" = Uuid, Path, description = "The issuer"), Deletion, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Deleted", headers(("Dry-Run" = String))), (status = 202, body = IssuerView, description = "Accepted; it is deleted once its account is deactivated", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<IssuersWrite>,
    Path(id): Path<Uuid>,
    Query(how): Query<Deletion>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let dry = DryRun::new(how.dry_run);
    retrying(|| async {
        let mut tx = app.begin(&who);
        let (present, lease) = find_to_change(&mut tx, &who, id, &known).await?;
        let Issuer { kind, namespace, name, .. } = &present;
        if let Some(user) = certificates::any_of_issuer(&mut tx, *kind, namespace, name).await? {
            return Err(in_use(format!("The certificate {user} refers to it. Delete that, or have it refer to another issuer.")));
        }
        if let Some(order) = orders::any_open_of_issuer(&mut tx, present.id).await? {
            return Err(in_use(format!("The order {order} still needs its account. Try again when that is cleaned up.")));
        }
        if let Some(revocation) = revocations::any_of_issuer(&mut tx, present.id).await? {
            return Err(in_use(format!("The revocation {revocation} still needs its account. Try again when that is over.")));
        }
        let is_live = !matches!(present.account_change, Some(AccountChange::Deactivated { .. }));
        if how.deactivate && present.account.is_some() && is_live {
            let next = accounts::begin_deactivation(&app, &mut tx, present, true, &lease).await?;
            dry.end(tx).await?;
            let body = json(&IssuerView::from(&next))?;
            return Ok(dry.told(accepted(&format!("/issuers/{id}"), body)));
        }
        // Fenced like any change, so that nothing that was saved meanwhile is lost unseen.
        let deleted = present.deleted(app.now());
        issuers::save(&mut tx, &deleted, &lease).await?;
        issuers::delete(&mut tx, deleted.issuer.id).await?;
        dry.end(tx).await?;
        Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
    })
    .await
}

fn in_use(detail: String) -> ApiError {
    ApiError::Because(Code::IssuerInUse, detail)
}

/// The issuer as it is stored first, without an account.
pub(crate) fn new(app: &AppState, spec: IssuerSpec, namespace: String) -> Issuer {
    let now = app.now();
    Issuer {
        id: IssuerId::generate(now),
        kind: spec.kind,
        namespace,
        name: spec.name,
        acme: spec.acme,
        generation: 1,
        state: IssuerState::Pending,
        state_since: now,
        account: None,
        account_change: None,
        tries: 0,
        last_error: None,
        created_at: now,
        next_action_at: Some(now),
    }
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    (issuer, account_key): (&Issuer, &Sealed),
    dry: DryRun,
) -> Result<Response, ApiError> {
    let location = format!("/issuers/{}", issuer.id);
    let answer = json(&IssuerView::from(issuer))?;
    let mut tx = attempt.begin(app);
    attempt.remember(app, &mut tx, (StatusCode::ACCEPTED, &location), &answer).await?;
    let stored = async {
        issuers::insert(&mut tx, issuer, account_key).await?;
        dry.end(tx).await
    };
    stored.await.map_err(|error| ApiError::from(error).or_if_taken(|| already_exists(issuer)))?;
    Ok(dry.told(accepted(&location, answer)))
}

fn already_exists(issuer: &Issuer) -> ApiError {
    let kind = match issuer.kind {
        Kind::Issuer => {
            format!("an Issuer `{}` in the namespace `{}`", issuer.name, issuer.namespace)
        }
        Kind::ClusterIssuer => format!("a ClusterIssuer `{}`", issuer.name),
    };
    let detail = format!("There is {kind} already. Replace its specification with PUT.");
    ApiError::Because(Code::AlreadyExists, detail)
}

fn must_stay(present: &Issuer, spec: &IssuerSpec) -> Result<(), ApiError> {
    let mut faults = Faults::default();
    for (pointer, given, present) in [
        ("/kind", spec.kind.as_str(), present.kind.as_str()),
        ("/namespace", &*spec.namespace(), &*present.namespace),
        ("/name", &*spec.name, &*present.name),
    ] {
        if given != present {
            faults.add(pointer, FieldCode::Immutable, format!("stays `{present}`"));
        }
    }
    Ok(faults.refuse()?)
}
