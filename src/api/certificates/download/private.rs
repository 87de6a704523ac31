//! Files that hold the private key: what a request says about them, and how they are made.

use axum::http::{HeaderMap, Uri};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::format::Private;
use super::{HandedOut, WhichRevision, chain_of};
use crate::api::extract::query;
use crate::api::headers::KEYSTORE_PASSWORD;
use crate::api::problem::ApiError;
use crate::pki::{self, KeystoreError, Pkcs12Profile};
use crate::secret::Secret;

/// Java's keytool insists on as many characters.
const SHORTEST: usize = 6;
const LONGEST: usize = 256;

/// The PKCS #12 file to download.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichPkcs12 {
    /// The one that is served, when absent.
    #[param(minimum = 1)]
    revision: Option<i64>,
    /// The protection of the keystore.
    #[serde(default)]
    #[param(inline)]
    profile: Profile,
}

/// The algorithms that protect a PKCS #12 file.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Profile {
    /// AES-256 and SHA-256.
    #[default]
    Modern,
    /// Triple DES and SHA-1, for old Java and Windows.
    Legacy,
}

/// A file with a private key as it was requested.
pub(super) enum Requested {
    Key,
    KeyAndChain,
    Pkcs12(Secret<String>, Pkcs12Profile),
    Jks(Secret<String>),
}

impl Requested {
    /// Reads the query and headers as far as the format has any; returns the revision, too.
    pub(super) fn read(
        private: Private,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(Self, WhichRevision), ApiError> {
        Ok(match private {
            Private::Key => (Self::Key, query(uri)?),
            Private::KeyAndChain => (Self::KeyAndChain, query(uri)?),
            Private::Pkcs12 => {
                let WhichPkcs12 { revision, profile } = query(uri)?;
                let profile = match profile {
                    Profile::Modern => Pkcs12Profile::Modern,
                    Profile::Legacy => Pkcs12Profile::Legacy,
                };
                (Self::Pkcs12(password(headers)?, profile), WhichRevision { revision })
            }
            Private::Jks => {
                let which = query(uri)?;
                (Self::Jks(password(headers)?), which)
            }
        })
    }

    /// The file's name in the event.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Key => "private key",
            Self::KeyAndChain => "private key and chain",
            Self::Pkcs12(_, Pkcs12Profile::Modern) => "PKCS #12 keystore",
            Self::Pkcs12(_, Pkcs12Profile::Legacy) => "legacy PKCS #12 keystore",
            Self::Jks(_) => "Java keystore",
        }
    }

    /// True if making it takes thousands of rounds of hashing, which must not run on the threads that answer requests.
    pub(super) fn is_heavy(&self) -> bool {
        matches!(self, Self::Pkcs12(..) | Self::Jks(_))
    }

    pub(super) fn make(&self, out: &HandedOut) -> Result<Vec<u8>, ApiError> {
        let chain = chain_of(&out.revision)?;
        let name = &out.certificate.name;
        let key_pem = || pki::to_pem("PRIVATE KEY", out.key.expose());
        Ok(match self {
            Self::Key => key_pem().into_bytes(),
            Self::KeyAndChain => [key_pem(), pki::chain_pem(&chain)].concat().into_bytes(),
            Self::Pkcs12(password, profile) => {
                let made = pki::pkcs12(name, password, &out.key, &chain, *profile);
                made.map_err(inside)?.expose().clone()
            }
            Self::Jks(password) => {
                let made = pki::jks(name, password, &out.key, &chain, out.revision.issued_at);
                made.map_err(inside)?.expose().clone()
            }
        })
    }
}

fn password(headers: &HeaderMap) -> Result<Secret<String>, ApiError> {
    let given = headers.get(KEYSTORE_PASSWORD).and_then(|value| value.to_str().ok());
    given
        .filter(|text| (SHORTEST..=LONGEST).contains(&text.len()))
        .map(|text| Secret::new(text.to_owned()))
        .ok_or_else(|| {
            ApiError::malformed(format!(
                "Send the keystore's password in the header `X-Keystore-Password`: {SHORTEST} to {LONGEST} printable ASCII characters."
            ))
        })
}

fn inside(error: KeystoreError) -> ApiError {
    ApiError::Inside(Box::new(error))
}
