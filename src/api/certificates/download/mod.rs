//! Downloads: chains, keys and keystores.

use axum::Extension;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use self::format::{Encode, Format, Private};
use self::private::{Requested, WhichPkcs12};
use super::find;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesRead, CertificatesReadKey, Principal};
use crate::api::extract::{Path, Query};
use crate::api::precondition::{Precondition, tag};
use crate::api::problem::{ApiError, Code, Errors};
use crate::domain::certificate::Certificate;
use crate::domain::event::Event;
use crate::domain::id::CertificateId;
use crate::pki;
use crate::secret::Secret;
use crate::storage::requests::private_key_place;
use crate::storage::revisions::{self, Revision};
use crate::storage::{Read, audit, events};

pub(crate) mod format;
mod private;

/// The revision to download.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichRevision {
    /// The one that is served, when absent.
    #[param(minimum = 1)]
    revision: Option<i64>,
}

/// Download certificates
#[utoipa::path(get, path = "/certificates/{id}/{file}", operation_id = "downloadCertificates", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, description = "The file", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn certificates(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    Extension((format, encode)): Extension<(&'static Format, Encode)>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let revision = read(&app, &who, id, &which).await?;
    let body = encode(&chain_of(&revision)?);
    let tag = tag(&body);
    let is_known = known.knows(&tag);
    Ok(format.answer(tag, "private, no-cache", (!is_known).then_some(body)))
}

/// Download the private key in some form
#[utoipa::path(get, path = "/certificates/{id}/{file}", operation_id = "downloadWithPrivateKey", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichPkcs12, ("X-Keystore-Password" = String, Header, description = "Protects the keystore: 6 to 256 printable ASCII characters"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, description = "The file", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn with_private_key(
    State(app): State<AppState>,
    who: Authorized<CertificatesReadKey>,
    Path(id): Path<Uuid>,
    Extension((format, private)): Extension<(&'static Format, Private)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    known: Precondition,
) -> Result<Response, ApiError> {
    let (requested, which) = Requested::read(private, &uri, &headers)?;
    let (tag, out) = hand_out(&app, &who, id, &which, &known, requested.name()).await?;
    let Some(out) = out else { return Ok(format.answer(tag, "no-store", None)) };
    let body = if requested.is_heavy() {
        app.heavily(&who, move || requested.make(&out)).await?
    } else {
        requested.make(&out)?
    };
    Ok(format.answer(tag, "no-store", Some(body)))
}

/// A private key on its way out.
struct HandedOut {
    key: Secret<Vec<u8>>,
    revision: Revision,
    certificate: Certificate,
}

/// The tag of a file with the key of a revision, and the key itself unless the client knows that tag. Records that
/// the key was handed out in the form `what`.
async fn hand_out(
    app: &AppState,
    who: &Principal,
    id: Uuid,
    which: &WhichRevision,
    known: &Precondition,
    what: &str,
) -> Result<(String, Option<HandedOut>), ApiError> {
    let mut tx = app.begin(who);
    let (certificate, number) = wanted(&mut tx, who, id, which).await?;
    let revision = revisions::find(&mut tx, certificate.id, number).await?;
    let revision = revision.ok_or_else(|| not_issued(id, number))?;
    let found = revisions::private_key(&mut tx, certificate.id, number).await?;
    let (sealed, request) = found.ok_or_else(|| not_issued(id, number))?;
    let Some(sealed) = sealed else {
        let detail = format!(
            "Revision {number} of the certificate {id} was issued for a CSR of the client's, who alone has its key."
        );
        return Err(ApiError::Because(Code::KeyNotHeld, detail));
    };
    // The tag comes from the key's identity: a hash of the key itself would be public.
    let tag = tag(format!("{what} of request {request}").as_bytes());
    if known.knows(&tag) {
        return Ok((tag, None));
    }
    let place = private_key_place(&certificate.namespace, certificate.id, request);
    let key = app.sealer.open(&place, &sealed)?;
    let message =
        format!("The {what} of revision {number} was handed to the {who} ({})", who.subject.id());
    let event = Event::normal(certificate.id, "PrivateKeyExported", message);
    let namespace = &certificate.namespace;
    events::record(&mut tx, namespace, Some(certificate.id), &[event], app.now());
    let what_of = format!("{what} of revision {number}");
    audit::hands_out(&mut tx, ("certificates", certificate.id.0), namespace, "readKey", what_of);
    tx.commit().await?;
    tracing::info!(certificate = %certificate.id, revision = number, api_key = %who.subject.id(), what, "a private key was handed out");
    Ok((tag, Some(HandedOut { key, revision, certificate })))
}

/// The certificate, and the revision of it that is asked for.
async fn wanted(
    tx: &mut Read,
    who: &Principal,
    id: Uuid,
    which: &WhichRevision,
) -> Result<(Certificate, i64), ApiError> {
    let (certificate, _) = find(tx, id, &who.scope).await?;
    let current = certificate.current.as_ref().map(|issued| issued.revision);
    let Some(number) = which.revision.or(current) else {
        let detail = format!(
            "The certificate {id} was not issued yet. GET /certificates/{id} with `Prefer: wait=30` waits for it."
        );
        return Err(ApiError::Because(Code::NotIssued, detail));
    };
    Ok((certificate, number))
}

async fn read(
    app: &AppState,
    who: &Principal,
    id: Uuid,
    which: &WhichRevision,
) -> Result<Revision, ApiError> {
    let mut tx = app.db.read().await?;
    let (certificate, revision) = (CertificateId(id), which.revision);
    if let Some(found) = revisions::show(&mut tx, certificate, revision, &who.scope).await? {
        return Ok(found);
    }
    // The certificate says why there is none.
    let (_, number) = wanted(&mut tx, who, id, which).await?;
    Err(not_issued(id, number))
}

pub(super) fn not_issued(id: Uuid, number: i64) -> ApiError {
    let detail =
        format!("The certificate {id} has no revision {number}, or it is not kept any more.");
    ApiError::Because(Code::NotIssued, detail)
}

/// The certificates of a revision in DER, leaf first: every file is made of these.
fn chain_of(revision: &Revision) -> Result<Vec<Vec<u8>>, ApiError> {
    pki::certificates(&revision.chain).map_err(|error| ApiError::Inside(Box::new(error)))
}
