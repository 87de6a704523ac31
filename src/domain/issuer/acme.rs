//! An issuer's spec: the CA, the account, and what is asked of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::solver::Solver;
use crate::domain::backoff::Retry;
use crate::domain::limits::LimitsSpec;

/// `spec.acme` in cert-manager's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acme {
    /// URL of the ACME directory.
    pub server: String,
    /// Where the CA may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Certificate profile to ask for, one of those that the directory offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Issuer name of the chain to prefer where the CA offers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_chain: Option<String>,
    /// A Secret with the account's key, ECDSA P-256 in PEM, under `tls.key` unless said otherwise. Where
    /// it is there when the issuer is created, that key is used; else one is made and kept by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_secret_ref: Option<SecretKeySelector>,
    /// Binds the account to one that the CA has given out by other means (RFC 8555, section 7.3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account_binding: Option<ExternalAccountBinding>,
    /// Whether the CA is asked when it would like certificates to be renewed (RFC 9773).
    #[serde(default)]
    pub renewal_information_source: RenewalInformationSource,
    /// Whether a certificate's `duration` is asked of the CA, as the order's `notAfter`. Only for CAs that
    /// take it: Let's Encrypt refuses such an order.
    // Left out where it is off: replicas of the version before do not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_duration_feature: bool,
    /// Base64 of a PEM bundle; when given, only these roots are trusted for the CA's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Do not verify the CA's TLS certificate. For test servers only.
    #[serde(default, rename = "skipTLSVerify")]
    pub skip_tls_verify: bool,
    /// Origins, such as `https://certificates.ca.example`, that belong to the CA beside those of its
    /// directory: nothing is sent to others that it names. Only for a `ClusterIssuer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The CA's rate limits, which are kept to so that it need not refuse: `letsencrypt`, `none`, or
    /// each by itself. Let's Encrypt's are known by its host; other CAs are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// How long certificates wait after a failed attempt, unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How control over names is proved, with cert-manager's precedence.
    pub solvers: Vec<Solver>,
}

/// The CA's other account, and the key that it gave out for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAccountBinding {
    /// The CA's name for the key.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The key: base64url, as CAs give it out.
    pub key_secret_ref: SecretKeySelector,
    /// `HS256`, the only one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
}

/// Who says when a certificate should be renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RenewalInformationSource {
    /// The CA, where its directory offers `renewalInfo`.
    #[default]
    #[serde(rename = "ARI")]
    Ari,
    /// Nobody: the certificate's own schedule counts.
    None,
}

/// A key within a stored Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeySelector {
    /// Name of the Secret.
    pub name: String,
    /// Key within its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
