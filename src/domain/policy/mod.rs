//! Name policies: which names a namespace may have certificates for, from whom and with which keys.
//!
//! What no policy allows is refused. One policy has to allow a certificate as a whole: its names, its issuer, its
//! key and the number of names. Names and patterns are compared label by label from the right, both in canonical
//! form ([`crate::domain::name`]), never as strings that end alike.

mod admission;
mod judge;
mod pattern;
#[cfg(test)]
mod random;
#[cfg(any(test, feature = "failpoints"))]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
mod tree;

pub use admission::{AdmittedBy, BEFORE_POLICIES, Judgement, Principal, admit, withheld};
pub use judge::{NameVerdict, Policies, Verdict, Wish};
pub use pattern::{InvalidPattern, Pattern};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::certificate::{IssuerRef, KeyAlgorithm, PrivateKey, Spec as CertificateSpec};
use crate::domain::id::PolicyId;

/// Names of a certificate at most, also where a policy says nothing of it.
pub const MOST_NAMES: u32 = 100;

/// In `namespaces`: every one; as an issuer's name: every one of that kind.
pub const EVERY: &str = "*";

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub id: PolicyId,
    /// Unique.
    pub name: String,
    pub spec: Spec,
    /// Counts changes of the specification, from 1.
    pub generation: i64,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// What a policy allows, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub namespaces: Vec<String>,
    pub names: Vec<NameRule>,
    pub issuers: Vec<IssuerRef>,
    pub keys: Keys,
    pub max_names: u32,
    pub approval: Approval,
}

/// Names that a policy allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameRule {
    /// A name, `*.zone` (exactly one label below the zone), `**.zone` (any number of labels below it, but not the
    /// zone itself), or an IP address or network.
    #[schema(example = "**.payments.example.com")]
    pub pattern: String,
    /// Whether wildcard names are allowed, too, where the pattern covers every name that they stand for.
    #[serde(default)]
    pub wildcards: bool,
}

/// Keys that a policy allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PolicyKeys)]
pub struct Keys {
    /// Algorithms; `ECDSA` and `RSA` when absent.
    #[serde(default = "every_algorithm")]
    pub algorithms: Vec<KeyAlgorithm>,
    /// Bits of an RSA key at least.
    #[serde(default = "least_rsa_size")]
    pub min_rsa_size: u32,
    /// Who may hold the private key.
    #[serde(default)]
    pub held_by: HeldBy,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            algorithms: every_algorithm(),
            min_rsa_size: least_rsa_size(),
            held_by: HeldBy::default(),
        }
    }
}

fn every_algorithm() -> Vec<KeyAlgorithm> {
    vec![KeyAlgorithm::Ecdsa, KeyAlgorithm::Rsa]
}

fn least_rsa_size() -> u32 {
    2048
}

/// Who may hold the private key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum HeldBy {
    /// The service or the client.
    #[default]
    Anyone,
    /// The client only: a certificate needs a `csr`.
    Client,
}

/// Whether a person has to approve what a policy allows. The mildest comes first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum Approval {
    /// Nobody has to.
    #[default]
    Auto,
    /// Somebody has to, once for what is wanted: renewals of the same need no further approval.
    Manual,
    /// Somebody has to, for each renewal too.
    Always,
}

/// The key that a certificate is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedKey {
    /// `None` for a kind that no policy can name, such as Ed25519 in a client's CSR.
    pub algorithm: Option<KeyAlgorithm>,
    pub bits: u32,
    pub held_by_client: bool,
}

impl From<&PrivateKey> for WantedKey {
    /// A key that is made here.
    fn from(key: &PrivateKey) -> Self {
        let usual = match key.algorithm {
            KeyAlgorithm::Ecdsa => 256,
            KeyAlgorithm::Rsa => 2048,
        };
        let bits = key.size.unwrap_or(usual);
        Self { algorithm: Some(key.algorithm), bits, held_by_client: false }
    }
}

impl Spec {
    /// Whether it is for this namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|known| known == EVERY || known == namespace)
    }
}

/// Whether a policy that allows one of the two certificates allows the other: names, issuer and key are the same.
pub fn are_judged_alike(one: &CertificateSpec, other: &CertificateSpec) -> bool {
    one.issuer_ref == other.issuer_ref
        && one.dns_names == other.dns_names
        && one.ip_addresses == other.ip_addresses
        && one.csr == other.csr
        && one.private_key.kind() == other.private_key.kind()
}
