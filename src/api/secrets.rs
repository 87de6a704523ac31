//! Secrets: credentials of solvers and account keys. Their values are write-only.

use std::collections::BTreeMap;

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::auth::{Authorized, Principal, SecretsRead, SecretsWrite};
use super::dry_run::DryRun;
use super::extract::{Body, Path, Query};
use super::idempotency::{Attempt, IdempotencyKey, located};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::{Precondition, answer, json};
use super::problem::{ApiError, Code, Errors, Faults, FieldCode};
use super::wait::Held;
use super::{AppState, field, retrying};
use crate::domain::id::SecretId;
use crate::domain::issuer::State as IssuerState;
use crate::secret::Sealed;
use crate::storage::secrets::{self, SecretEntry, Wanted, data_place};
use crate::storage::{Read, Scope, Tx, audit, certificates, issuers, orders};
use crate::validation::escaped;
use crate::view::spec::SecretSpec;

/// A secret without its values.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Secret)]
pub(crate) struct SecretView {
    /// Its identifier.
    id: Uuid,
    /// Its namespace.
    namespace: String,
    /// The name by which issuers refer to it.
    name: String,
    /// The names of its values.
    #[schema(example = json!(["api-token"]))]
    keys: Vec<String>,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time of the last change of its values.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// Filters for secrets.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListSecrets {
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

/// Create a secret
///
/// Issuers that refer to it, and certificates that wait for it, are tried at once.
#[utoipa::path(post, path = "/secrets", operation_id = "createSecret", tag = "secrets",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours")),
    request_body = SecretSpec,
    responses((status = 201, body = SecretView, description = "Stored", headers(("Location" = String), ("ETag" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<SecretsWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    body: Body<SecretSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.content, dry);
    attempt
        .once(&app, &Held::default(), || async {
            let (entry, values) = new(&app, &body.value)?;
            who.must_own(&entry.namespace)?;
            let sealed = app.sealer.seal(&data_place(&entry.namespace, entry.id), &values)?;
            retrying(|| insert(&app, &attempt, (&entry, &sealed), dry)).await
        })
        .await
}

/// List secrets
#[utoipa::path(get, path = "/secrets", operation_id = "listSecrets", tag = "secrets",
    params(ListSecrets),
    responses((status = 200, body = Listing<SecretView>, description = "A page of secrets, without their values", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<SecretsRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListSecrets>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<SecretView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted { namespace: query.namespace, name: query.name };
    let mut tx = app.db.read().await?;
    let rows = secrets::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &SecretEntry| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |row| SecretView::from(&row)))
}

/// Get a secret
#[utoipa::path(get, path = "/secrets/{id}", operation_id = "getSecret", tag = "secrets",
    params(("id" = Uuid, Path, description = "The secret"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = SecretView, description = "The secret, without its values", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<SecretsRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let entry = secrets::find(&mut app.db.read().await?, SecretId(id), &who.scope).await?;
    known.show(&SecretView::from(&entry.ok_or_else(|| ApiError::not_found("secret", id))?))
}

/// What `GET` shows of it.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    id: Uuid,
) -> Result<Vec<u8>, ApiError> {
    let entry = secrets::find(&mut app.db.read().await?, SecretId(id), &who.scope).await?;
    json(&SecretView::from(&entry.ok_or_else(|| ApiError::not_found("secret", id))?))
}

/// Replace a secret
///
/// Issuers that refer to it, and certificates that wait for it, are tried at once.
#[utoipa::path(put, path = "/secrets/{id}", operation_id = "replaceSecret", tag = "secrets",
    params(("id" = Uuid, Path, description = "The secret"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    request_body = SecretSpec,
    responses((status = 200, body = SecretView, description = "Replaced", headers(("ETag" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn replace(
    State(app): State<AppState>,
    who: Authorized<SecretsWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
    body: Body<SecretSpec>,
) -> Result<Response, ApiError> {
    retrying(|| async {
        let mut tx = app.begin(&who);
        let present = find_to_change(&mut tx, &who.scope, id, &known).await?;
        let (keys, values) = replacement(&present, &body.value)?;
        let next = revalue(&app, &mut tx, present, keys, &values).await?;
        dry.end(tx).await?;
        Ok(dry.told(answer(StatusCode::OK, json(&SecretView::from(&next))?)))
    })
    .await
}

/// Delete a secret
#[utoipa::path(delete, path = "/secrets/{id}", operation_id = "deleteSecret", tag = "secrets",
    params(("id" = Uuid, Path, description = "The secret"), DryRun, ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 204, description = "Forgotten", headers(("Dry-Run" = String))), Errors))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    who: Authorized<SecretsWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.begin(&who);
    let present = find_to_change(&mut tx, &who.scope, id, &known).await?;
    audit::changes(&mut tx, "secrets", present.id.0, &present.namespace);
    secrets::delete(&mut tx, present.id).await?;
    dry.end(tx).await?;
    Ok(dry.told(StatusCode::NO_CONTENT.into_response()))
}

/// The secret, if the caller may see it and knows its present state.
async fn find_to_change(
    tx: &mut Read,
    scope: &Scope,
    id: Uuid,
    known: &Precondition,
) -> Result<SecretEntry, ApiError> {
    let found = secrets::find(tx, SecretId(id), scope).await?;
    let present = found.ok_or_else(|| ApiError::not_found("secret", id))?;
    known.must_match(&SecretView::from(&present))?;
    Ok(present)
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    (entry, sealed): (&SecretEntry, &Sealed),
    dry: DryRun,
) -> Result<Response, ApiError> {
    let location = format!("/secrets/{}", entry.id);
    let answer = json(&SecretView::from(entry))?;
    let mut tx = attempt.begin(app);
    attempt.remember(app, &mut tx, (StatusCode::CREATED, &location), &answer).await?;
    let stored = async {
        store(app, &mut tx, entry, sealed).await?;
        Ok::<_, ApiError>(dry.end(tx).await?)
    };
    stored.await.map_err(|error| error.or_if_taken(|| already_exists(entry)))?;
    Ok(dry.told(located(StatusCode::CREATED, &location, answer)))
}

/// Adds a secret, and wakes everything that may have waited for it.
pub(crate) async fn store(
    app: &AppState,
    tx: &mut Tx,
    entry: &SecretEntry,
    sealed: &Sealed,
) -> Result<(), ApiError> {
    secrets::insert(tx, entry, sealed).await?;
    reconsider(app, tx, &entry.namespace).await
}

fn already_exists(entry: &SecretEntry) -> ApiError {
    let detail = format!(
        "There is a secret `{}` in the namespace `{}` already. Replace its values with PUT.",
        entry.name, entry.namespace
    );
    ApiError::Because(Code::AlreadyExists, detail)
}

/// Gives a secret other values, and wakes everything that may have waited for them.
pub(crate) async fn revalue(
    app: &AppState,
    tx: &mut Tx,
    present: SecretEntry,
    keys: Vec<String>,
    values: &[u8],
) -> Result<SecretEntry, ApiError> {
    let next = SecretEntry { keys, updated_at: app.now(), ..present };
    let sealed = app.sealer.seal(&data_place(&next.namespace, next.id), values)?;
    secrets::update(tx, &next, &sealed).await?;
    reconsider(app, tx, &next.namespace).await?;
    Ok(next)
}

/// Wakes everything that may have failed for want of this namespace's secrets.
async fn reconsider(app: &AppState, tx: &mut Tx, namespace: &str) -> Result<(), ApiError> {
    let now = app.now();
    for (issuer, lease) in issuers::of_namespace(tx, namespace).await? {
        if issuer.secret_namespace(&app.cluster_namespace) != namespace {
            continue;
        }
        let (kind, namespace, name) = (issuer.kind, issuer.namespace.clone(), issuer.name.clone());
        orders::retake_steps(tx, issuer.id, now).await?;
        if issuer.state == IssuerState::Failed {
            issuers::save(tx, &issuer.reconsidered(now), &lease).await?;
        }
        certificates::wake_waiting(tx, kind, &namespace, &name, now).await?;
    }
    Ok(())
}

/// The secret to be stored, and its values as the JSON object that is sealed.
pub(crate) fn new(
    app: &AppState,
    spec: &SecretSpec,
) -> Result<(SecretEntry, Zeroizing<Vec<u8>>), ApiError> {
    let mut faults = Faults::default();
    let namespace = spec.namespace.clone().unwrap_or_else(|| field::DEFAULT_NAMESPACE.to_owned());
    field::namespace(&namespace, &mut faults);
    match &spec.name {
        Some(name) => field::name(name, "/name", &mut faults),
        None => faults.add("/name", FieldCode::Required, "it has to be given"),
    }
    let (keys, values) = values(spec, faults)?;
    let now = app.now();
    let entry = SecretEntry {
        id: SecretId::generate(now),
        namespace,
        name: spec.name.clone().unwrap_or_default(),
        keys,
        created_at: now,
        updated_at: now,
    };
    Ok((entry, values))
}

fn replacement(
    present: &SecretEntry,
    spec: &SecretSpec,
) -> Result<(Vec<String>, Zeroizing<Vec<u8>>), ApiError> {
    let mut faults = Faults::default();
    for (pointer, given, present) in
        [("/namespace", &spec.namespace, &present.namespace), ("/name", &spec.name, &present.name)]
    {
        if given.as_ref().is_some_and(|given| given != present) {
            faults.add(pointer, FieldCode::Immutable, format!("stays `{present}`"));
        }
    }
    values(spec, faults)
}

/// The names of the values, and all of them as the JSON object that is sealed.
fn values(
    spec: &SecretSpec,
    mut faults: Faults,
) -> Result<(Vec<String>, Zeroizing<Vec<u8>>), ApiError> {
    let mut decoded: BTreeMap<&str, Zeroizing<String>> = BTreeMap::new();
    for (key, text) in &spec.data {
        // Lines that are wrapped are one value.
        let mut base64 = Zeroizing::new(text.expose().to_owned());
        base64.retain(|character| !character.is_ascii_whitespace());
        let plain = STANDARD.decode(&*base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match plain {
            Some(text) => _ = decoded.insert(key, Zeroizing::new(text)),
            None => faults.invalid(format!("/data/{}", escaped(key)), "is base64 of a text"),
        }
    }
    let given = |key: &str| spec.string_data.contains_key(key);
    let mut all: BTreeMap<&str, &str> = BTreeMap::new();
    all.extend(decoded.iter().filter(|(key, _)| !given(key)).map(|(key, text)| (*key, &***text)));
    all.extend(spec.string_data.iter().map(|(key, text)| (&**key, text.expose())));
    if spec.data.is_empty() && spec.string_data.is_empty() {
        faults.add("/stringData", FieldCode::Required, "a secret has at least one value");
    }
    for (map, keys) in [("data", spec.data.keys()), ("stringData", spec.string_data.keys())] {
        for key in keys {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if !(1..=253).contains(&key.len()) || !key.bytes().all(allowed) {
                let detail = "a key has at most 253 letters, digits, `-`, `_` and `.`";
                faults.invalid(format!("/{map}/{}", escaped(key)), detail);
            }
        }
    }
    faults.refuse()?;
    let sealed = Zeroizing::new(json(&all)?);
    Ok((all.into_keys().map(str::to_owned).collect(), sealed))
}

impl From<&SecretEntry> for SecretView {
    fn from(entry: &SecretEntry) -> Self {
        Self {
            id: entry.id.0,
            namespace: entry.namespace.clone(),
            name: entry.name.clone(),
            keys: entry.keys.clone(),
            created_at: entry.created_at,
            updated_at: entry.updated_at,
        }
    }
}
