//! What a client writes to describe a certificate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::backoff::Retry;
use crate::domain::certificate::{Certificate, IssuerRef, PrivateKey};

/// A certificate that is wanted; cert-manager's `spec`.
///
/// Only `issuerRef.name` and one name are required.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "namespace": "default", "name": "web", "labels": {"team": "payments"},
    "issuerRef": {"name": "letsencrypt-staging", "kind": "ClusterIssuer"},
    "dnsNames": ["app.example.com", "*.app.example.com"]
}))]
pub(crate) struct CertificateSpec {
    /// Whose it is; `default` when absent. Cannot be changed.
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    /// Unique in the namespace; derived from the first DNS name when absent. Cannot be changed.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// For selectors and filters.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Who issues it.
    pub(crate) issuer_ref: IssuerRef,
    /// Names, as people write them; a wildcard is written `*.example.com`.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub(crate) dns_names: Vec<String>,
    /// IP addresses; they are proved by HTTP-01 alone, and not every CA or profile takes them.
    #[serde(default)]
    pub(crate) ip_addresses: Vec<String>,
    /// The subject's name; becomes one of the names.
    #[serde(default)]
    pub(crate) common_name: Option<String>,
    /// Which kind of key is made, and when a new one.
    #[serde(default)]
    pub(crate) private_key: Option<PrivateKey>,
    /// A certificate signing request in PEM: the key stays with the client, and the names are those of
    /// the CSR's `subjectAltName`. Renewals use it again.
    #[serde(default)]
    pub(crate) csr: Option<String>,
    /// Certificate profile, instead of the issuer's.
    #[serde(default)]
    pub(crate) profile: Option<String>,
    /// How long it is to live, such as `2160h`: 1h at least. Only where the issuer has
    /// `enableDurationFeature`; elsewhere the CA decides.
    #[serde(default)]
    pub(crate) duration: Option<String>,
    /// Renew this long before the end, such as `720h`.
    #[serde(default)]
    pub(crate) renew_before: Option<String>,
    /// Renew when this percentage of the lifetime is left.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 99)]
    pub(crate) renew_before_percentage: Option<u8>,
    /// How long to wait after a failed attempt, instead of what the issuer says.
    #[serde(default)]
    pub(crate) retry: Option<Retry>,
    /// How many issued revisions are kept; 3 when absent.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub(crate) revision_history_limit: Option<u32>,
    /// Webhooks that are told of it, by identifier; those with `"selector": "named"` hear of no others.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub(crate) webhooks: Vec<Uuid>,
}

impl From<&Certificate> for CertificateSpec {
    fn from(certificate: &Certificate) -> Self {
        let spec = certificate.spec.clone();
        // Names and key are the CSR's where there is one.
        let is_ours = spec.csr.is_none();
        Self {
            namespace: Some(certificate.namespace.clone()),
            name: Some(certificate.name.clone()),
            labels: certificate.labels.clone(),
            issuer_ref: spec.issuer_ref,
            dns_names: if is_ours { spec.dns_names } else { Vec::new() },
            ip_addresses: if is_ours { spec.ip_addresses } else { Vec::new() },
            common_name: spec.common_name.filter(|_| is_ours),
            private_key: is_ours.then_some(spec.private_key),
            csr: spec.csr,
            profile: spec.profile,
            duration: spec.duration,
            renew_before: spec.renew_before,
            renew_before_percentage: spec.renew_before_percentage,
            retry: spec.retry,
            revision_history_limit: Some(spec.revision_history_limit),
            webhooks: spec.webhooks,
        }
    }
}
