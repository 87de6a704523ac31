//! The spec of a certificate, in cert-manager's words.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::backoff::Retry;
use crate::domain::duration;
use crate::domain::words::words;

/// What a client wants; cert-manager's `spec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Who issues it.
    pub issuer_ref: IssuerRef,
    /// Names, in canonical form; a wildcard is written `*.example.com`.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// IP addresses, in canonical form.
    #[serde(default)]
    pub ip_addresses: Vec<String>,
    /// One of the names, for clients that look at the subject.
    pub common_name: Option<String>,
    /// Which kind of key is made.
    #[serde(default)]
    pub private_key: PrivateKey,
    /// A CSR in PEM: the client holds the key, and the names are those of the CSR.
    pub csr: Option<String>,
    /// Certificate profile, instead of the issuer's.
    pub profile: Option<String>,
    /// How long it is to live, where its issuer asks that of the CA. A Go duration, such as `2160h`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::read")]
    pub duration: Option<String>,
    /// Renew this long before the end. A Go duration, such as `720h`.
    #[serde(default, deserialize_with = "duration::read")]
    pub renew_before: Option<String>,
    /// Renew when this percentage of the lifetime is left.
    pub renew_before_percentage: Option<u8>,
    /// How long to wait after a failed attempt, instead of what the issuer says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many issued revisions are kept.
    #[serde(default = "three")]
    pub revision_history_limit: u32,
    /// Webhooks that are told of it, whatever labels they ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<uuid::Uuid>,
}

impl Spec {
    /// Everything that has to be proved: DNS names and IP addresses.
    pub fn names(&self) -> Vec<String> {
        self.dns_names.iter().chain(&self.ip_addresses).cloned().collect()
    }

    /// The `notAfter` of a certificate that is ordered now, if the spec has a duration; in whole seconds,
    /// as in certificates.
    pub fn not_after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let life = duration::parse(self.duration.as_deref()?).ok()?;
        now.checked_add(life).map(OffsetDateTime::truncate_to_second)
    }

    /// Whether both say the same, in whatever order and spelling.
    pub fn means(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }

    /// Whether a certificate for one fulfils the other; they may differ in when to renew.
    pub fn wants_the_same_as(&self, other: &Self) -> bool {
        let (one, other) = (self.canonical(), other.canonical());
        one.issuer_ref == other.issuer_ref
            && one.dns_names == other.dns_names
            && one.ip_addresses == other.ip_addresses
            && one.csr == other.csr
            && one.common_name == other.common_name
            && one.private_key.kind() == other.private_key.kind()
            && one.profile == other.profile
            && one.duration == other.duration
    }

    /// The one spelling of what it says. What is stored keeps the client's order, by which CSRs are made.
    fn canonical(&self) -> Self {
        let mut spec = self.clone();
        spec.dns_names.sort_unstable();
        spec.ip_addresses.sort_unstable();
        spec.webhooks.sort_unstable();
        spec.webhooks.dedup();
        spec.duration = spec.duration.map(duration::respelled);
        spec.renew_before = spec.renew_before.map(duration::respelled);
        spec.retry = spec.retry.and_then(Retry::canonical);
        spec.private_key.size = spec.private_key.kind().map(KeyKind::bits);
        spec
    }
}

fn three() -> u32 {
    3
}

/// Names an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    /// Its name.
    pub name: String,
    /// `Issuer` (of the certificate's namespace) or `ClusterIssuer`.
    #[serde(default)]
    pub kind: crate::domain::issuer::Kind,
}

/// Which kind of key is made, and when a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrivateKey {
    /// `ECDSA` or `RSA`.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
    /// Bits: 256 (default) or 384 for ECDSA, 2048 (default), 3072 or 4096 for RSA.
    pub size: Option<u32>,
    /// Whether a renewal makes a new key.
    #[serde(default)]
    pub rotation_policy: RotationPolicy,
}

impl Default for PrivateKey {
    fn default() -> Self {
        Self {
            algorithm: KeyAlgorithm::Ecdsa,
            size: Some(256),
            rotation_policy: RotationPolicy::Always,
        }
    }
}

words! {
    /// A key's algorithm.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub serde enum KeyAlgorithm {
        /// Elliptic curves of NIST.
        #[default]
        Ecdsa = "ECDSA",
        /// RSA.
        Rsa = "RSA",
    }
}

/// Whether a renewal makes a new key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RotationPolicy {
    /// Every revision has its own.
    #[default]
    Always,
    /// The present key is kept as long as it fits the spec.
    Never,
}

/// A key kind that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

impl KeyKind {
    fn bits(self) -> u32 {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }
}

impl PrivateKey {
    /// The kind of key, if there is one of this algorithm and size.
    pub fn kind(&self) -> Option<KeyKind> {
        match (self.algorithm, self.size) {
            (KeyAlgorithm::Ecdsa, None | Some(256)) => Some(KeyKind::P256),
            (KeyAlgorithm::Ecdsa, Some(384)) => Some(KeyKind::P384),
            (KeyAlgorithm::Rsa, None | Some(2048)) => Some(KeyKind::Rsa2048),
            (KeyAlgorithm::Rsa, Some(3072)) => Some(KeyKind::Rsa3072),
            (KeyAlgorithm::Rsa, Some(4096)) => Some(KeyKind::Rsa4096),
            _ => None,
        }
    }
}
