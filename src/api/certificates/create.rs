//! Creating a certificate.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::admit::Against;
use super::quota::Growth;
use super::read;
use super::validate::validate;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesWrite, Principal};
use crate::api::dry_run::DryRun;
use crate::api::extract::{Body, Query};
use crate::api::idempotency::{Attempt, IdempotencyKey, accepted};
use crate::api::precondition::json;
use crate::api::problem::{ApiError, Code, Errors};
use crate::api::wait::{Held, Wait};
use crate::domain::certificate::{Certificate, IssuerRef, Transition};
use crate::domain::id::CertificateId;
use crate::storage::lease::Lease;
use crate::storage::notify::Waiter;
use crate::storage::{Scope, StorageError, Tx, certificates, events, issuers, policies};
use crate::view::CertificateView;
use crate::view::spec::CertificateSpec;

/// Create a certificate
///
/// It is issued in the background and renewed from then on. What is known to fail is refused at
/// once. With `Prefer: wait=30` the answer is held until it is there or has failed, or the time is up.
#[utoipa::path(post, path = "/certificates", operation_id = "createCertificate", tag = "certificates",
    params(
        DryRun,
        ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until the certificate settles (ready or failed), at most that many seconds, at most 300"),
    ),
    request_body = CertificateSpec,
    responses((status = 202, body = CertificateView, description = "Accepted; it is being issued", headers(("Location" = String), ("ETag" = String), ("Retry-After" = u32), ("Preference-Applied" = String), ("Idempotency-Replayed" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    wait: Wait,
    body: Body<CertificateSpec>,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let attempt = key.attempt(&who, &body.content, dry);
    create_one(&app, &attempt, &body.value, &wait, dry).await
}

/// Creates a certificate, unless the request was answered before.
pub(super) async fn create_one(
    app: &AppState,
    attempt: &Attempt,
    wanted: &CertificateSpec,
    wait: &Held,
    dry: DryRun,
) -> Result<Response, ApiError> {
    let who = attempt.who();
    attempt
        .once(app, wait, || async {
            let begun = checked(app, who, wanted).await?;
            let certificate = &begun.certificate;
            let is_awaited = wait.is_wanted() && !dry.is_wanted();
            let waiter = is_awaited.then(|| app.db.signals().wait_for(certificate.id.0));
            let response = insert(app, attempt, &begun, dry).await?;
            let Some(waiter) = waiter else { return Ok(response) };
            newest(app, who, certificate, wait, waiter, response).await
        })
        .await
}

/// The certificate that is wanted, if it may be there. Checked before the transaction begins, so that the transaction itself
/// asks nothing. A change in between, such as a deleted issuer, could as well come right after the transaction; the
/// policies judge again before anything is ordered, and an issuer that gets ready wakes those that wait for it twice.
async fn checked(
    app: &AppState,
    who: &Principal,
    wanted: &CertificateSpec,
) -> Result<Transition, ApiError> {
    let checked = validate(wanted)?;
    who.must_own(&checked.namespace)?;
    let (namespace, IssuerRef { kind, name }) = (&checked.namespace, &checked.spec.issuer_ref);
    let issuer = issuers::cached_by_name(&app.db, *kind, namespace, name).await?;
    let policies = policies::cached(&app.db, namespace).await?;
    let issuer = issuer.as_ref();
    let against = Against { issuer, policies: &policies, present: None, imported: None };
    let right = checked.admit(app, &mut app.db.read().await?, who, against).await?;
    let (id, now) = (CertificateId::generate(app.now()), app.now());
    let certificate = checked.certificate(id, right, now).requested_by(who.reference());
    Ok(certificate.begin(issuer, now))
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    begun: &Transition,
    dry: DryRun,
) -> Result<Response, ApiError> {
    let certificate = &begun.certificate;
    let location = format!("/certificates/{}", certificate.id);
    let answer = json(&CertificateView::of(certificate, certificate.created_at))?;
    let mut tx = attempt.begin(app);
    attempt.remember(app, &mut tx, (StatusCode::ACCEPTED, &location), &answer).await?;
    let stored = async {
        store(&mut tx, begun).await?;
        Growth::by(None, certificate).must_fit(app, &mut tx).await?;
        Ok::<_, ApiError>(dry.end(tx).await?)
    };
    if let Err(error) = stored.await {
        // Nearly all names are new, so the name is looked up only now.
        if error.is_taken() {
            return Err(already_exists(app, certificate).await?);
        }
        // Perhaps the commit succeeded and only its answer was lost.
        if !matches!(find(app, certificate.id).await, Ok(Some(_))) {
            return Err(error);
        }
    }
    failpoint!("after_create");
    Ok(dry.told(accepted(&location, answer)))
}

/// Adds a certificate that was admitted, with what has happened to it.
pub(crate) async fn store(tx: &mut Tx, begun: &Transition) -> Result<(), StorageError> {
    let Transition { certificate, events, at, .. } = begun;
    certificates::insert(tx, certificate).await?;
    events::record(tx, &certificate.namespace, Some(certificate.id), events, *at);
    Ok(())
}

/// The refusal of a name that another certificate has.
async fn already_exists(app: &AppState, certificate: &Certificate) -> Result<ApiError, ApiError> {
    let Certificate { name, namespace, .. } = certificate;
    let mut tx = app.db.read().await?;
    let detail = match certificates::find_by_name(&mut tx, namespace, name).await? {
        Some((known, _)) => format!(
            "There is a certificate `{name}` in the namespace `{namespace}` already: /certificates/{}. Change it with PATCH, or choose another name.",
            known.id
        ),
        None => format!(
            "A certificate `{name}` is being created in the namespace `{namespace}` at this moment."
        ),
    };
    Ok(ApiError::Because(Code::AlreadyExists, detail))
}

async fn find(
    app: &AppState,
    id: CertificateId,
) -> Result<Option<(Certificate, Lease)>, StorageError> {
    certificates::find(&mut app.db.read().await?, id, &Scope::Everything).await
}

/// The answer with the certificate as it is after the client has waited.
async fn newest(
    app: &AppState,
    who: &Principal,
    certificate: &Certificate,
    wait: &Held,
    waiter: Waiter,
    first: Response,
) -> Result<Response, ApiError> {
    let read = || read(app, &who.scope, certificate.id.0);
    let response = match wait.on(app, who, waiter, read, Certificate::is_settled).await {
        Ok(certificate) => {
            let location = format!("/certificates/{}", certificate.id);
            accepted(&location, json(&CertificateView::of(&certificate, app.now()))?)
        }
        Err(error) if error.is_about_the_caller() => return Err(error),
        // The certificate was created; that it could not be read again must not hide that.
        Err(_) => first,
    };
    Ok(wait.applied(response))
}
