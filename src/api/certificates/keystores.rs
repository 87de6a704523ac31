//! Key and chain in one password-protected file.

use axum::extract::{FromRequestParts, State};
use axum::http::HeaderName;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::downloads::{Handed, SECRET, WhichRevision, ders, file, hand_out, not_modified};
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesReadKey};
use crate::api::extract::{Path, Query};
use crate::api::precondition::Precondition;
use crate::api::problem::{ApiError, Errors};
use crate::pki::{self, KeystoreError, Pkcs12Profile};
use crate::secret::Secret;

/// The header that carries a keystore's password. It is never logged.
pub(crate) const KEYSTORE_PASSWORD: HeaderName = HeaderName::from_static("x-keystore-password");

/// Java's keytool insists on as many.
const SHORTEST: usize = 6;
const LONGEST: usize = 256;

/// A password for a keystore.
pub(crate) struct KeystorePassword(Secret<String>);

impl<S: Send + Sync> FromRequestParts<S> for KeystorePassword {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let given = parts.headers.get(KEYSTORE_PASSWORD).and_then(|value| value.to_str().ok());
        given
            .filter(|text| (SHORTEST..=LONGEST).contains(&text.len()))
            .map(|text| Self(Secret::new(text.to_owned())))
            .ok_or_else(|| {
                ApiError::malformed(format!(
                    "Send the keystore's password in the header `X-Keystore-Password`: {SHORTEST} to {LONGEST} printable ASCII characters."
                ))
            })
    }
}

/// Which PKCS #12 file to download.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichPkcs12 {
    /// The one that is served, when absent.
    #[param(minimum = 1)]
    revision: Option<i64>,
    /// How it is protected.
    #[serde(default)]
    #[param(inline)]
    profile: Profile,
}

/// Which algorithms protect a PKCS #12 file.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Profile {
    /// AES-256 and SHA-256.
    #[default]
    Modern,
    /// Triple DES and SHA-1, for old Java and Windows.
    Legacy,
}

/// Download a PKCS #12 keystore
///
/// Key and chain, under the certificate's name. Needs the permission `certificates:readKey`, and is
/// recorded as an event.
#[utoipa::path(get, path = "/certificates/{id}/keystore.p12", operation_id = "downloadPkcs12", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichPkcs12, ("X-Keystore-Password" = String, Header, description = "Protects the keystore: 6 to 256 printable ASCII characters"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-pkcs12", description = "PKCS #12", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn pkcs12(
    State(app): State<AppState>,
    who: Authorized<CertificatesReadKey>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichPkcs12>,
    KeystorePassword(password): KeystorePassword,
    known: Precondition,
) -> Result<Response, ApiError> {
    let (profile, what) = match which.profile {
        Profile::Modern => (Pkcs12Profile::Modern, "PKCS #12 keystore"),
        Profile::Legacy => (Pkcs12Profile::Legacy, "legacy PKCS #12 keystore"),
    };
    let which = WhichRevision { revision: which.revision };
    let out = match hand_out(&app, &who, id, &which, &known, what).await? {
        Handed::Known(tag) => return Ok(not_modified(&tag, SECRET)),
        Handed::Out(out) => out,
    };
    let tag = out.tag.clone();
    // Thousands of rounds of hashing are nothing for the threads that answer requests.
    let made = app.heavily(&who, move || {
        let chain = ders(&out.revision)?;
        pki::pkcs12(&out.certificate.name, &password, &out.key, &chain, profile).map_err(inside)
    });
    let store = made.await?;
    Ok(file("application/x-pkcs12", &tag, SECRET, store.expose().clone()))
}

/// Download a Java keystore
///
/// Key and chain, under the certificate's name, in Java's old format (JKS), whose protection is weak:
/// Java since version 9 reads PKCS #12. Needs the permission `certificates:readKey`, and is recorded as
/// an event.
#[utoipa::path(get, path = "/certificates/{id}/keystore.jks", operation_id = "downloadJks", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), WhichRevision, ("X-Keystore-Password" = String, Header, description = "Protects the keystore: 6 to 256 printable ASCII characters"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-java-keystore", description = "JKS", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn jks(
    State(app): State<AppState>,
    who: Authorized<CertificatesReadKey>,
    Path(id): Path<Uuid>,
    Query(which): Query<WhichRevision>,
    KeystorePassword(password): KeystorePassword,
    known: Precondition,
) -> Result<Response, ApiError> {
    let out = match hand_out(&app, &who, id, &which, &known, "Java keystore").await? {
        Handed::Known(tag) => return Ok(not_modified(&tag, SECRET)),
        Handed::Out(out) => out,
    };
    let tag = out.tag.clone();
    let made = app.heavily(&who, move || {
        let chain = ders(&out.revision)?;
        let issued = out.revision.issued_at;
        pki::jks(&out.certificate.name, &password, &out.key, &chain, issued).map_err(inside)
    });
    let store = made.await?;
    Ok(file("application/x-java-keystore", &tag, SECRET, store.expose().clone()))
}

fn inside(error: KeystoreError) -> ApiError {
    ApiError::Inside(Box::new(error))
}
