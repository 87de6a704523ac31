//! How an issuer has names proved, and which solver is for which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Kind;
use super::acme::SecretKeySelector;
use crate::domain::name::{comparable, is_in_zone};

/// One way to prove control, and for which names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Solver {
    /// Which names it is for; absent means every name that no other solver claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Prove by a file below `/.well-known/acme-challenge/` (RFC 8555, section 8.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http01: Option<Http01>,
    /// Prove by a TXT record (RFC 8555, section 8.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns01: Option<Dns01>,
}

/// Which certificates and names a solver is for; every kind that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SolverSelector)]
pub struct Selector {
    /// Namespaces whose certificates it is for; without any, all of them. Labels are chosen by whoever
    /// writes a certificate, so that they alone reserve nothing. Only in a `ClusterIssuer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels that the certificate must carry, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Exact names; a wildcard is written `*.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Zones; a name matches a zone that it ends in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_zones: Vec<String>,
}

/// HTTP-01 by this service's own responder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http01 {
    /// Accepted for compatibility, whatever it holds: the service answers by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub ingress: Option<serde_json::Value>,
}

/// DNS-01 by a provider's API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns01 {
    /// Whether a CNAME at `_acme-challenge.NAME` is followed to where the record is written.
    #[serde(default)]
    pub cname_strategy: CnameStrategy,
    /// Zones in which a chain of CNAMEs that is followed may end. Elsewhere nothing is written. Without
    /// any, those of an Issuer end wherever its credential can write, and those of a `ClusterIssuer`
    /// nowhere: its names are other people's. Goes with `cnameStrategy: Follow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cname_zones: Vec<String>,
    /// Records through Cloudflare's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<Cloudflare>,
    /// Resolvers (`IP:PORT`) instead of the service's. Those of an Issuer have public addresses, or
    /// such as the setting `outbound.allow` permits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// How to find out that the record can be seen.
    #[serde(default)]
    pub propagation: Propagation,
}

/// The DNS provider that a solver writes through: one of those that [`Dns01`] has a field for.
#[derive(Debug, Clone, Copy)]
pub enum DnsProvider<'a> {
    /// Cloudflare's v4 API.
    Cloudflare(&'a Cloudflare),
}

impl Dns01 {
    /// Whether an issuer of this kind may write a record at `target`, to which the chain of CNAMEs from
    /// `name` leads.
    ///
    /// The name itself is always right. The rest of its zone is not: other tenants' names may be there.
    pub fn may_delegate(&self, kind: Kind, name: &str, target: &str) -> bool {
        self.cname_zones.is_empty() && kind == Kind::Issuer
            || comparable(name) == comparable(target)
            || is_plain(target) && self.cname_zones.iter().any(|zone| is_in_zone(target, zone))
    }

    /// The provider that is configured, if one is.
    pub fn provider(&self) -> Option<DnsProvider<'_>> {
        self.cloudflare.as_ref().map(DnsProvider::Cloudflare)
    }
}

impl<'a> DnsProvider<'a> {
    /// Its field of [`Dns01`], and the field of the credential within that.
    pub fn fields(self) -> (&'static str, &'static str) {
        match self {
            Self::Cloudflare(_) => ("cloudflare", "apiTokenSecretRef"),
        }
    }

    /// The base of its API, where the issuer sets it. The credential is sent there.
    pub fn base_url(self) -> Option<&'a str> {
        match self {
            Self::Cloudflare(cloudflare) => cloudflare.base_url.as_deref(),
        }
    }

    /// Where the credential is, and its usual key within the Secret.
    pub fn secret_ref(self) -> (&'a SecretKeySelector, &'static str) {
        match self {
            Self::Cloudflare(cloudflare) => (&cloudflare.api_token_secret_ref, "api-token"),
        }
    }

    /// Names the API that the credential is used at.
    pub fn endpoint(self) -> &'a str {
        self.base_url().unwrap_or(self.fields().0)
    }
}

/// Whether a target is what it looks like: a dot within a label is written `\.`, and `*` answers for
/// other names.
fn is_plain(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What to do about a CNAME at the challenge's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CnameStrategy {
    /// Write at the name itself.
    #[default]
    None,
    /// Write where the CNAME chain ends.
    Follow,
}

/// Cloudflare's v4 API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cloudflare {
    /// API token with Zone:Read and DNS:Edit.
    pub api_token_secret_ref: SecretKeySelector,
    /// Base of the API, for proxies and tests. Only keys bound to no namespace may set it; an Issuer's
    /// has to be on a host that the setting `outbound.allow` lists.
    #[serde(default, rename = "baseURL", skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Zone to write to; spares the look-up, and the token the permission for it.
    #[serde(default, rename = "zoneID", skip_serializing_if = "Option::is_none")]
    pub zone_id: Option<String>,
    /// Accepted for compatibility; a token needs no e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// When a TXT record counts as visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Propagation {
    /// Who is asked.
    pub mode: PropagationMode,
    /// After this long the challenge has failed. A Go duration, such as `5m`.
    pub timeout: String,
    /// Extra wait after the record was seen. A Go duration, such as `0s`.
    pub delay: String,
}

impl Default for Propagation {
    fn default() -> Self {
        Self { mode: PropagationMode::default(), timeout: "5m".into(), delay: "0s".into() }
    }
}

/// Who is asked whether a TXT record is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PropagationMode {
    /// Every authoritative name server of the zone.
    #[default]
    Authoritative,
    /// Every configured resolver.
    Recursive,
    /// Nobody: the provider's word is enough.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_acme-challenge.app.example.org";

    fn may(zones: &[&str], target: &str) -> bool {
        let cname_zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let solver = Dns01 { cname_zones, ..Dns01::default() };
        let [own, shared] =
            [Kind::Issuer, Kind::ClusterIssuer].map(|kind| solver.may_delegate(kind, NAME, target));
        assert!(zones.is_empty() || own == shared, "zones bind both: {target}");
        shared
    }

    #[test]
    fn a_cname_may_end_in_the_zones_for_delegation_and_at_the_name_itself() {
        for target in [
            "a.acme.test",
            "A.ACME.test",
            "a.acme.test.",
            "acme.test",
            "_x.b.a.acme.test",
            NAME,
            "_ACME-challenge.app.example.org.",
        ] {
            for zone in ["acme.test", "ACME.Test."] {
                assert!(may(&[zone], target), "{zone} {target}");
            }
        }
        assert!(may(&["other.test", "acme.test"], "a.acme.test"));
        assert!(may(&["bücher.test"], "a.xn--bcher-kva.test"));
    }

    #[test]
    fn a_cname_may_end_nowhere_else_whatever_it_looks_like() {
        for target in [
            "a.badacme.test",
            "acme.test.evil.test",
            "a.acme-test",
            r"a\.acme.test",
            r"evil\046acme.test",
            "*.acme.test",
            "a.acme.test\\0",
            "test",
            "app.example.org",
            "x._acme-challenge.app.example.org",
            "",
            ".",
        ] {
            assert!(!may(&["acme.test"], target), "{target}");
            assert!(!may(&[], target), "nothing is said of delegation: {target}");
            let tenants_own = Dns01::default();
            assert!(tenants_own.may_delegate(Kind::Issuer, NAME, target), "{target}");
        }
        for zone in ["", ".", "*", "*.acme.test"] {
            assert!(!may(&[zone], "a.acme.test"), "{zone:?} is no zone");
        }
    }
}
