//! Wanting a certificate.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::check::{Checked, check};
use super::read;
use super::spec::CertificateSpec;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesWrite, Principal};
use crate::api::extract::Body;
use crate::api::idempotency::{Attempt, IdempotencyKey, accepted};
use crate::api::precondition::json;
use crate::api::problem::{ApiError, Code, Errors};
use crate::api::wait::Wait;
use crate::domain::certificate::{self, Certificate};
use crate::domain::event::{Event, Resource};
use crate::domain::id::CertificateId;
use crate::domain::issuer::Issuer;
use crate::storage::lease::Lease;
use crate::storage::notify::Waiter;
use crate::storage::{Scope, StorageError, Tx, certificates, events, issuers};
use crate::view::CertificateView;

/// Want a certificate
///
/// It is issued in the background and renewed from then on. What is known to fail is refused at
/// once. With `Prefer: wait=30` the answer is held until it is there or has failed, or the time is up.
#[utoipa::path(post, path = "/certificates", operation_id = "createCertificate", tag = "certificates",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until the certificate settles (ready or failed), at most that many seconds, at most 300"),
    ),
    request_body = CertificateSpec,
    responses((status = 202, body = CertificateView, description = "Accepted; it is being issued", headers(("Location" = String), ("ETag" = String), ("Preference-Applied" = String), ("Idempotency-Replayed" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    key: IdempotencyKey,
    wait: Wait,
    body: Body<CertificateSpec>,
) -> Result<Response, ApiError> {
    let attempt = key.attempt(&who, &body.identity);
    attempt
        .once(&app, || async {
            let checked = check(&body.value)?;
            who.must_own(&checked.namespace)?;
            let certificate = new(&app, &body.value, &checked);
            let waiter = wait.is_wanted().then(|| app.db.signals().wait_for(certificate.id.0));
            let response = insert(&app, &attempt, &body.value, &checked, &certificate).await?;
            let Some(waiter) = waiter else { return Ok(response) };
            newest(&app, &who, &certificate, wait, waiter, response).await
        })
        .await
}

/// The certificate that is wanted; nothing of it is there yet.
pub(crate) fn new(app: &AppState, given: &CertificateSpec, checked: &Checked) -> Certificate {
    let now = app.now();
    let (namespace, name, spec) = (&checked.namespace, &checked.name, checked.spec.clone());
    Certificate {
        labels: given.labels.clone(),
        ..Certificate::wanted(CertificateId::generate(now), namespace, name, spec, now)
    }
}

async fn insert(
    app: &AppState,
    attempt: &Attempt,
    given: &CertificateSpec,
    checked: &Checked,
    certificate: &Certificate,
) -> Result<Response, ApiError> {
    let location = format!("/certificates/{}", certificate.id);
    let answer = json(&CertificateView::of(certificate, certificate.created_at))?;
    // Looked at before the transaction, which asks nothing any more: what comes in between, such as an
    // issuer that is deleted, could as well come right after it.
    let wanted = &checked.spec.issuer_ref;
    let (kind, namespace) = (wanted.kind, &checked.namespace);
    let issuer = issuers::recall_by_name(&app.db, kind, namespace, &wanted.name).await?;
    let issuer = checked.fits(given, issuer)?;
    admit(app, &mut app.db.read().await?, checked, &issuer).await?;
    let mut tx = app.db.begin();
    attempt.remember(app, &mut tx, &location, &answer).await?;
    let added = match certificates::insert(&mut tx, certificate).await {
        Ok(()) => {
            record(&mut tx, certificate)?;
            tx.commit().await
        }
        refused => refused,
    };
    match added {
        Ok(()) => {}
        // Nearly all names are new: this is not asked before.
        Err(StorageError::Conflict) => {
            be_new(&mut app.db.read().await?, certificate).await?;
            return Err(being_created(certificate));
        }
        Err(error) => {
            // The answer to the commit was lost, and perhaps only that.
            return match find(app, certificate.id).await {
                Ok(Some(_)) => Ok(accepted(location, answer)),
                Ok(None) | Err(_) => Err(error.into()),
            };
        }
    }
    failpoint!("after_create");
    Ok(accepted(location, answer))
}

/// Adds a certificate that may be wanted; the event says so where something is to be issued.
pub(crate) async fn store(
    app: &AppState,
    tx: &mut Tx,
    given: &CertificateSpec,
    checked: &Checked,
    certificate: &Certificate,
) -> Result<(), ApiError> {
    let issuer = checked.check_issuer(tx, given).await?;
    admit(app, tx, checked, &issuer).await?;
    be_new(tx, certificate).await?;
    match certificates::insert(tx, certificate).await {
        Err(StorageError::Conflict) => return Err(being_created(certificate)),
        done => done?,
    }
    record(tx, certificate)
}

/// Whether it may be wanted of this issuer.
async fn admit(
    app: &AppState,
    tx: &mut Tx,
    checked: &Checked,
    issuer: &Issuer,
) -> Result<(), ApiError> {
    checked.check_key(app, tx, issuer).await?;
    checked.check_webhooks(tx, &[]).await
}

/// Whether nothing has its name yet.
async fn be_new(tx: &mut Tx, certificate: &Certificate) -> Result<(), ApiError> {
    let (namespace, name) = (&certificate.namespace, &certificate.name);
    if let Some((known, _)) = certificates::find_by_name(tx, namespace, name).await? {
        let detail = format!(
            "There is a certificate `{name}` in the namespace `{namespace}` already: /certificates/{}. Change it with PATCH, or choose another name.",
            known.id
        );
        return Err(ApiError::Because(Code::AlreadyExists, detail));
    }
    Ok(())
}

fn record(tx: &mut Tx, certificate: &Certificate) -> Result<(), ApiError> {
    if let certificate::State::Triggered(_) = certificate.state {
        let event = Event::normal(
            Resource::Certificate(certificate.id),
            "Issuing",
            "Issuing certificate as none has been issued yet",
        );
        let (namespace, now) = (&certificate.namespace, certificate.created_at);
        events::record(tx, namespace, Some(certificate.id), &[event], now)?;
    }
    Ok(())
}

fn being_created(certificate: &Certificate) -> ApiError {
    let Certificate { name, namespace, .. } = certificate;
    let detail = format!(
        "A certificate `{name}` is being created in the namespace `{namespace}` at this moment."
    );
    ApiError::Because(Code::AlreadyExists, detail)
}

async fn find(
    app: &AppState,
    id: CertificateId,
) -> Result<Option<(Certificate, Lease)>, StorageError> {
    let mut tx = app.db.read().await?;
    certificates::find(&mut tx, id, &Scope::Everything).await
}

/// The answer again, with what has become of the certificate while the client waited.
async fn newest(
    app: &AppState,
    who: &Principal,
    certificate: &Certificate,
    wait: Wait,
    waiter: Waiter,
    first: Response,
) -> Result<Response, ApiError> {
    let read = || read(app, &who.scope, certificate.id.0);
    let response = match wait.on(app, who, waiter, read, Certificate::is_settled).await {
        Ok(certificate) => {
            let location = first.headers().get(header::LOCATION).map(HeaderValue::to_str);
            let location = location.and_then(Result::ok).unwrap_or_default().to_owned();
            accepted(location, json(&CertificateView::of(&certificate, app.now()))?)
        }
        Err(error) if error.is_about_the_caller() => return Err(error),
        // It was made; that looking at it again did not work must not hide that.
        Err(_) => first,
    };
    Ok(wait.applied(response))
}
