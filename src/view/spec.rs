//! What clients write of certificates, issuers and secrets, in requests and in manifests.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::backoff::Retry;
use crate::domain::certificate::{Certificate, IssuerRef, PrivateKey};
use crate::domain::issuer::{Acme, Kind};
use crate::domain::{absent, duration};
use crate::secret::Secret;

/// The namespace of a resource that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A certificate to be created; cert-manager's `spec`.
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
    /// Its namespace; `default` when absent. Immutable.
    #[serde(default, deserialize_with = "absent::text")]
    pub(crate) namespace: Option<String>,
    /// Unique in the namespace; derived from the first DNS name when absent. Immutable.
    pub(crate) name: Option<String>,
    /// Labels for selectors and filters.
    #[serde(default, deserialize_with = "absent::null")]
    #[schema(nullable)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The issuer.
    pub(crate) issuer_ref: IssuerRef,
    /// DNS names, as people write them; a wildcard is written `*.example.com`.
    #[serde(default, deserialize_with = "absent::null")]
    #[schema(max_items = 100, nullable)]
    pub(crate) dns_names: Vec<String>,
    /// IP addresses; they are proved by HTTP-01 alone, and not every CA or profile takes them.
    #[serde(default, deserialize_with = "absent::null")]
    #[schema(nullable)]
    pub(crate) ip_addresses: Vec<String>,
    /// The subject's common name; becomes one of the DNS names.
    #[serde(default, deserialize_with = "absent::text")]
    pub(crate) common_name: Option<String>,
    /// The kind of key, and when a new one is made.
    pub(crate) private_key: Option<PrivateKey>,
    /// A certificate signing request in PEM: the key stays with the client, and the names are those of
    /// the CSR's `subjectAltName`. Renewals use it again.
    pub(crate) csr: Option<String>,
    /// Certificate profile, instead of the issuer's.
    #[serde(default, deserialize_with = "absent::text")]
    pub(crate) profile: Option<String>,
    /// Its lifetime, such as `2160h`: 1h at least. Only where the issuer has
    /// `enableDurationFeature`; elsewhere the CA decides.
    #[serde(default, deserialize_with = "duration::read")]
    pub(crate) duration: Option<String>,
    /// Time before its end at which it is renewed, such as `720h`.
    #[serde(default, deserialize_with = "duration::read")]
    pub(crate) renew_before: Option<String>,
    /// Percentage of the lifetime that is left when it is renewed.
    #[schema(minimum = 1, maximum = 99)]
    pub(crate) renew_before_percentage: Option<u8>,
    /// Pauses after failed attempts, instead of the issuer's.
    pub(crate) retry: Option<Retry>,
    /// Number of revisions that are kept; 3 when absent.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub(crate) revision_history_limit: Option<u32>,
    /// Identifiers of webhooks that are sent its events; those with `"selector": "named"` are sent no others.
    #[serde(default, deserialize_with = "absent::null")]
    #[schema(max_items = 16, nullable)]
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

/// An issuer to be created.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "kind": "ClusterIssuer", "name": "letsencrypt-staging",
    "acme": {
        "server": "https://acme-staging-v02.api.letsencrypt.org/directory",
        "email": "user@example.com",
        "solvers": [
            {"selector": {"dnsZones": ["example.com"]},
             "dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "cloudflare-api-token-secret", "key": "api-token"}}}},
            {"http01": {}}
        ]
    }
}))]
pub(crate) struct IssuerSpec {
    /// The namespaces that it serves: its own, or all.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Its namespace; `default` when absent. A `ClusterIssuer` has none.
    pub(crate) namespace: Option<String>,
    /// The name by which certificates refer to it.
    pub(crate) name: String,
    /// `spec.acme` of cert-manager's manifests.
    pub(crate) acme: Acme,
}

impl IssuerSpec {
    /// Its namespace; empty for a `ClusterIssuer`.
    pub(crate) fn namespace(&self) -> String {
        match (self.kind, &self.namespace) {
            (Kind::ClusterIssuer, _) => String::new(),
            (Kind::Issuer, Some(namespace)) => namespace.clone(),
            (Kind::Issuer, None) => DEFAULT_NAMESPACE.to_owned(),
        }
    }
}

/// A secret to be stored, as in Kubernetes' manifests.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SecretSpec, example = json!({
    "namespace": "default", "name": "cloudflare-api-token-secret",
    "stringData": {"api-token": "<your API token>"}
}))]
pub(crate) struct SecretSpec {
    /// Its namespace; `default` when absent.
    pub(crate) namespace: Option<String>,
    /// The name by which issuers refer to it; unique in the namespace.
    pub(crate) name: Option<String>,
    /// The values, as they are.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, write_only)]
    pub(crate) string_data: BTreeMap<String, SecretText>,
    /// The values, in base64.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, write_only)]
    pub(crate) data: BTreeMap<String, SecretText>,
}

/// A value of a secret, which is never printed.
#[derive(Debug)]
pub(crate) struct SecretText(Secret<String>);

impl SecretText {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}
