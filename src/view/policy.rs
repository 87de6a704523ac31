//! Policies: what clients write, and what they see.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::certificate::IssuerRef;
use crate::domain::policy::{Approval, Keys, MOST_NAMES, NameRule, Policy, Spec};

/// A policy to be created: which names namespaces may have certificates for, from whom, and with which keys.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "name": "payments", "namespaces": ["payments"],
    "names": [{"pattern": "**.payments.example.com", "wildcards": true}, {"pattern": "pay.example.com"}],
    "issuers": [{"kind": "ClusterIssuer", "name": "letsencrypt"}],
    "keys": {"algorithms": ["ECDSA", "RSA"], "minRsaSize": 3072, "heldBy": "Anyone"},
    "maxNames": 25, "approval": "Auto"
}))]
pub(crate) struct PolicySpec {
    /// Unique. Immutable.
    pub(crate) name: String,
    /// The namespaces that it is for; `*` is every one.
    #[schema(min_items = 1, max_items = 100)]
    pub(crate) namespaces: Vec<String>,
    /// Names that they may have.
    #[schema(min_items = 1, max_items = 500)]
    pub(crate) names: Vec<NameRule>,
    /// Issuers that may issue them; the name `*` is every one of its kind.
    #[schema(min_items = 1, max_items = 100)]
    pub(crate) issuers: Vec<IssuerRef>,
    /// Keys that certificates may have.
    #[serde(default)]
    pub(crate) keys: Keys,
    /// Names of one certificate at most.
    #[serde(default = "most_names")]
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub(crate) max_names: u32,
    /// Whether a person has to approve.
    #[serde(default)]
    pub(crate) approval: Approval,
}

fn most_names() -> u32 {
    MOST_NAMES
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Policy)]
pub(crate) struct PolicyView {
    /// Its identifier.
    id: Uuid,
    /// Its name.
    name: String,
    /// The namespaces that it is for; `*` is every one.
    namespaces: Vec<String>,
    /// Names that they may have, in canonical form.
    names: Vec<NameRule>,
    /// Issuers that may issue them.
    issuers: Vec<IssuerRef>,
    /// Keys that certificates may have.
    keys: Keys,
    /// Names of one certificate at most.
    max_names: u32,
    /// Whether a person has to approve.
    approval: Approval,
    /// Counts changes of the specification.
    generation: i64,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time of the last change.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<&Policy> for PolicyView {
    fn from(policy: &Policy) -> Self {
        let Spec { namespaces, names, issuers, keys, max_names, approval } = policy.spec.clone();
        Self {
            id: policy.id.0,
            name: policy.name.clone(),
            namespaces,
            names,
            issuers,
            keys,
            max_names,
            approval,
            generation: policy.generation,
            created_at: policy.created_at,
            updated_at: policy.updated_at,
        }
    }
}
