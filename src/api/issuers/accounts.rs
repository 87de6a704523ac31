//! Changes of an issuer's account: key rollover, an imported key, deactivation.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;
use zeroize::Zeroize as _;

use super::find_to_change;
use crate::api::auth::{Authorized, IssuersWrite};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Path, Query};
use crate::api::idempotency::{Attempt, IdempotencyKey, accepted};
use crate::api::precondition::{Precondition, json};
use crate::api::problem::{ApiError, Code, Errors, FieldCode};
use crate::api::wait::Held;
use crate::api::{AppState, retrying};
use crate::domain::issuer::{AccountChange, FORMER_NAMESPACE, Issuer, Kind, Transition};
use crate::pki;
use crate::secret::Secret;
use crate::storage::issuers::{self, next_account_key_place};
use crate::storage::lease::Lease;
use crate::storage::{Read, Tx, secrets};
use crate::view::IssuerView;

/// The key under which cert-manager keeps an account's key.
const USUAL_KEY: &str = "tls.key";

/// Rotate an issuer's account key
///
/// A new key is made and stored, then the CA is told (RFC 8555, section 7.3.5), once the orders that are
/// under way have ended, within ten minutes. Account and issuer stay; new orders wait meanwhile.
#[utoipa::path(post, path = "/issuers/{id}/rotate-account-key", operation_id = "rotateAccountKey", tag = "issuers",
    params(("id" = Uuid, Path, description = "The issuer"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 202, body = IssuerView, description = "Accepted; the key is being replaced", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn rotate_key(
    State(app): State<AppState>,
    who: Authorized<IssuersWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &[], dry);
    let account_key = (app.account_key)().map_err(ApiError::Inside)?;
    let once = || async {
        let mut tx = attempt.begin(&app);
        let (present, lease) = find_to_change(&mut tx, &who, id, &known).await?;
        // Joins the rollover that is under way.
        let next = if let Some(AccountChange::RotatingKey { .. }) = present.account_change {
            present
        } else {
            must_have_account(&present)?;
            let sealed =
                app.sealer.seal(&next_account_key_place(&present), account_key.expose())?;
            issuers::set_next_account_key(&mut tx, present.id, Some(&sealed)).await?;
            save(&mut tx, present.rotate_key(app.now()), &lease).await?
        };
        end(&app, tx, &attempt, dry, &next).await
    };
    attempt.once(&app, &Held::default(), || retrying(once)).await
}

/// Deactivate an issuer's account
///
/// For good (RFC 8555, section 7.3.6): the account's key is of no use at that CA any more, and nothing
/// is issued or renewed by the issuer. What was issued stays valid.
#[utoipa::path(post, path = "/issuers/{id}/deactivate-account", operation_id = "deactivateAccount", tag = "issuers",
    params(("id" = Uuid, Path, description = "The issuer"), DryRun, ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"), ("If-Match" = Option<String>, Header, description = "Only if the `ETag` still holds")),
    responses((status = 202, body = IssuerView, description = "Accepted; the account is being deactivated", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn deactivate(
    State(app): State<AppState>,
    who: Authorized<IssuersWrite>,
    Path(id): Path<Uuid>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    known: Precondition,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &[], dry);
    let once = || async {
        let mut tx = attempt.begin(&app);
        let (present, lease) = find_to_change(&mut tx, &who, id, &known).await?;
        let next =
            if let Some(AccountChange::Deactivating { .. } | AccountChange::Deactivated { .. }) =
                present.account_change
            {
                present
            } else {
                must_have_account(&present)?;
                begin_deactivation(&app, &mut tx, present, false, &lease).await?
            };
        end(&app, tx, &attempt, dry, &next).await
    };
    attempt.once(&app, &Held::default(), || retrying(once)).await
}

/// Starts the deactivation of the account, after which the issuer is deleted if that is wanted.
pub(super) async fn begin_deactivation(
    app: &AppState,
    tx: &mut Tx,
    present: Issuer,
    then_delete: bool,
    lease: &Lease,
) -> Result<Issuer, ApiError> {
    save(tx, present.deactivate(then_delete, app.now()), lease).await
}

/// The account key in the issuer's `privateKeySecretRef`, if that Secret exists.
pub(crate) async fn imported(
    app: &AppState,
    tx: &mut Read,
    issuer: &Issuer,
) -> Result<Option<Secret<Vec<u8>>>, ApiError> {
    let Some(reference) = &issuer.acme.private_key_secret_ref else { return Ok(None) };
    let namespace = issuer.secret_namespace(&app.cluster_namespace);
    let found = secrets::data(tx, namespace, &reference.name).await?;
    let refuse =
        |what: String| Err(ApiError::field("/acme/privateKeySecretRef", FieldCode::Invalid, what));
    let Some((id, sealed)) = found else {
        // Otherwise a new account would be created unnoticed.
        let of_cluster = issuer.kind == Kind::ClusterIssuer;
        if of_cluster && secrets::data(tx, FORMER_NAMESPACE, &reference.name).await?.is_some() {
            let name = &reference.name;
            return refuse(format!(
                "the Secret `{name}` is in the namespace `{FORMER_NAMESPACE}`, and those of ClusterIssuers are now in `{namespace}`: store it there with `certwright secrets create {name} -n {namespace} --from-file {}=FILE`",
                reference.key.as_deref().unwrap_or(USUAL_KEY)
            ));
        }
        return Ok(None);
    };
    let opened = app.sealer.open(&secrets::data_place(namespace, id), &sealed)?;
    let mut values: BTreeMap<String, String> =
        serde_json::from_slice(opened.expose()).unwrap_or_default();
    let key = reference.key.as_deref().unwrap_or(USUAL_KEY);
    let value = values.remove(key).map(Secret::new);
    for left in values.values_mut() {
        left.zeroize();
    }
    let Some(pem) = value else {
        return refuse(format!(
            "the Secret `{}` in the namespace `{namespace}` has no key `{key}`",
            reference.name
        ));
    };
    match pki::import_account_key(pem.expose()) {
        Ok(key) => Ok(Some(key)),
        Err(why) => refuse(format!("`{key}` of the Secret `{}` {why}", reference.name)),
    }
}

fn must_have_account(present: &Issuer) -> Result<(), ApiError> {
    let why = match (&present.account, present.account_change) {
        (None, _) => "has no account yet; see its conditions",
        (_, Some(AccountChange::RotatingKey { .. })) => {
            "is getting a new account key; wait for that"
        }
        (_, Some(AccountChange::Deactivating { .. })) => "is having its account deactivated",
        (_, Some(AccountChange::Deactivated { .. })) => "had its account deactivated",
        (Some(_), None) => return Ok(()),
    };
    let detail = format!("The issuer `{}` {why}.", present.name);
    Err(ApiError::Because(Code::AccountNotReady, detail))
}

async fn save(tx: &mut Tx, next: Transition, lease: &Lease) -> Result<Issuer, ApiError> {
    issuers::save(tx, &next, lease).await?;
    Ok(next.issuer)
}

/// Commits the change, and answers with the issuer as it is by then.
async fn end(
    app: &AppState,
    mut tx: Tx,
    attempt: &Attempt,
    dry: DryRun,
    next: &Issuer,
) -> Result<Response, ApiError> {
    let (location, body) = (format!("/issuers/{}", next.id), json(&IssuerView::from(next))?);
    attempt.remember(app, &mut tx, (StatusCode::ACCEPTED, &location), &body).await?;
    dry.end(tx).await?;
    Ok(dry.told(accepted(&location, body)))
}
