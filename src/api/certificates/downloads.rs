//! What servers need: chains and keys.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::find;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesRead, CertificatesReadKey, Principal};
use crate::api::extract::{Path, Query};
use crate::api::precondition::{Precondition, tag};
use crate::api::problem::{ApiError, Code, Errors};
use crate::domain::certificate::Certificate;
use crate::domain::event::{Event, Resource};
use crate::domain::id::CertificateId;
use crate::pki;
use crate::secret::Secret;
use crate::storage::requests::private_key_place;
use crate::storage::revisions::{self, Revision};
use crate::storage::{Read, events};

/// Which revision to download.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichRevision {
    /// The one that is served, when absent.
    #[param(minimum = 1)]
    pub(super) revision: Option<i64>,
}

/// Certificates are public, but not every cache's business.
const SHARED: &str = "private, no-cache";
/// Keys are nobody's to keep.
pub(super) const SECRET: &str = "no-store";

const CHAIN: &str = "application/pem-certificate-chain";

/// Download the certificate and its chain
#[utoipa::path(get, path = "/certificates/{id}/fullchain.pem", operation_id = "downloadFullchain", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = String, content_type = "application/pem-certificate-chain", description = "PEM, leaf first", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn fullchain(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let revision = read(&app, &who, id, &which).await?;
    Ok(serve(&known, pki::chain_pem(&ders(&revision)?)))
}

/// Download the certificate alone
#[utoipa::path(get, path = "/certificates/{id}/cert.pem", operation_id = "downloadCertificate", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = String, content_type = "application/pem-certificate-chain", description = "PEM, the leaf", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn leaf(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let revision = read(&app, &who, id, &which).await?;
    Ok(serve(&known, pki::chain_pem(&ders(&revision)?[..1])))
}

/// Download the chain above the certificate
#[utoipa::path(get, path = "/certificates/{id}/chain.pem", operation_id = "downloadChain", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = String, content_type = "application/pem-certificate-chain", description = "PEM, without the leaf", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn chain(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let revision = read(&app, &who, id, &which).await?;
    Ok(serve(&known, pki::chain_pem(&ders(&revision)?[1..])))
}

/// Download the certificate alone, in DER
#[utoipa::path(get, path = "/certificates/{id}/cert.der", operation_id = "downloadCertificateDer", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = Vec<u8>, content_type = "application/pkix-cert", description = "DER, the leaf", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn leaf_der(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let revision = read(&app, &who, id, &which).await?;
    let der = ders(&revision)?.swap_remove(0);
    let tag = tag(&der);
    if known.knows(&tag) {
        return Ok(not_modified(&tag, SHARED));
    }
    Ok(file("application/pkix-cert", &tag, SHARED, der))
}

/// Download the private key
///
/// Needs the permission `certificates:readKey`, and is recorded as an event. The key of a client's own
/// CSR is not held here: 404 `key_not_held`.
#[utoipa::path(get, path = "/certificates/{id}/privkey.pem", operation_id = "downloadPrivateKey", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = String, content_type = "application/x-pem-file", description = "PEM, PKCS #8", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn private_key(
    State(app): State<AppState>,
    who: Authorized<CertificatesReadKey>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    match hand_out(&app, &who, id, &which, &known, "private key").await? {
        Handed::Known(tag) => Ok(not_modified(&tag, SECRET)),
        Handed::Out(out) => Ok(file("application/x-pem-file", &out.tag, SECRET, key_pem(&out.key))),
    }
}

/// Download private key and chain in one file
///
/// The key first, then the certificate and its chain: as `HAProxy` and others read it. Needs the
/// permission `certificates:readKey`, and is recorded as an event.
#[utoipa::path(get, path = "/certificates/{id}/combined.pem", operation_id = "downloadCombined", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = String, content_type = "application/x-pem-file", description = "PEM: key, leaf, chain", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn combined(
    State(app): State<AppState>,
    who: Authorized<CertificatesReadKey>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    known: Precondition,
) -> Result<Response, ApiError> {
    match hand_out(&app, &who, id, &which, &known, "private key and chain").await? {
        Handed::Known(tag) => Ok(not_modified(&tag, SECRET)),
        Handed::Out(out) => {
            let chain = pki::chain_pem(&ders(&out.revision)?);
            let text = [key_pem(&out.key), chain.into_bytes()].concat();
            Ok(file("application/x-pem-file", &out.tag, SECRET, text))
        }
    }
}

/// What a client gets that asks for a private key in some form.
pub(super) enum Handed {
    /// It has that already; this is its tag.
    Known(String),
    /// The key, recorded as handed out.
    Out(Box<HandedOut>),
}

/// A private key on its way out.
pub(super) struct HandedOut {
    pub(super) key: Secret<Vec<u8>>,
    pub(super) revision: Revision,
    pub(super) certificate: Certificate,
    pub(super) tag: String,
}

/// The key of a revision for somebody who may have it; recorded as handed out in the form `what`.
pub(super) async fn hand_out(
    app: &AppState,
    who: &Principal,
    id: Uuid,
    which: &WhichRevision,
    known: &Precondition,
    what: &str,
) -> Result<Handed, ApiError> {
    let mut tx = app.db.begin();
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
    // From the key's identity, not from the key.
    let tag = tag(format!("{what} of request {request}").as_bytes());
    if known.knows(&tag) {
        return Ok(Handed::Known(tag));
    }
    let key = app.sealer.open(&private_key_place(request), &sealed)?;
    let message = format!(
        "The {what} of revision {number} was handed to the API key `{}` ({})",
        who.name, who.key
    );
    let event = Event::normal(Resource::Certificate(certificate.id), "PrivateKeyExported", message);
    let namespace = &certificate.namespace;
    events::record(&mut tx, namespace, Some(certificate.id), &[event], app.now());
    tx.commit().await?;
    tracing::info!(certificate = %certificate.id, revision = number, api_key = %who.key, what, "a private key was handed out");
    Ok(Handed::Out(Box::new(HandedOut { key, revision, certificate, tag })))
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
    // Why there is none, the certificate tells.
    let (_, number) = wanted(&mut tx, who, id, which).await?;
    Err(not_issued(id, number))
}

pub(super) fn not_issued(id: Uuid, number: i64) -> ApiError {
    let detail =
        format!("The certificate {id} has no revision {number}, or it is not kept any more.");
    ApiError::Because(Code::NotIssued, detail)
}

fn serve(known: &Precondition, text: String) -> Response {
    let tag = tag(text.as_bytes());
    if known.knows(&tag) {
        return not_modified(&tag, SHARED);
    }
    file(CHAIN, &tag, SHARED, text.into_bytes())
}

pub(super) fn not_modified(tag: &str, caching: &'static str) -> Response {
    let headers = [(header::ETAG, tag.to_owned()), (header::CACHE_CONTROL, caching.to_owned())];
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

/// A download.
pub(super) fn file(
    kind: &'static str,
    tag: &str,
    caching: &'static str,
    body: Vec<u8>,
) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    (headers, body).into_response()
}

fn key_pem(key: &Secret<Vec<u8>>) -> Vec<u8> {
    pki::to_pem("PRIVATE KEY", key.expose()).into_bytes()
}

/// The certificates of a revision, DER, leaf first: every form that is served is made of these.
pub(super) fn ders(revision: &Revision) -> Result<Vec<Vec<u8>>, ApiError> {
    pki::certificates(&revision.chain).map_err(|error| ApiError::Inside(Box::new(error)))
}
