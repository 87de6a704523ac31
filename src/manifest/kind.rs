//! The kinds of resources, under all the names that kubectl knows them by.

use thiserror::Error;

/// A kind of resource. Those that there are manifests of stand in the order in which they are applied: issuers need
/// Secrets, certificates need issuers, and are judged by policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Secret,
    ClusterIssuer,
    Issuer,
    Policy,
    Certificate,
    Request,
    Order,
    Challenge,
    Webhook,
    Event,
}

struct Names {
    kind: Kind,
    /// The `kind` of a manifest.
    title: &'static str,
    word: &'static str,
    plural: &'static str,
    /// kubectl's name of the resource, with its group.
    full: &'static str,
    short: &'static [&'static str],
    /// The collection in the API.
    path: &'static str,
}

#[rustfmt::skip]
const NAMES: [Names; 10] = [
    Names { kind: Kind::Certificate, title: "Certificate", word: "certificate", plural: "certificates",
        full: "certificate.cert-manager.io", short: &["cert", "certs"], path: "/certificates" },
    Names { kind: Kind::Request, title: "CertificateRequest", word: "request", plural: "requests",
        full: "certificaterequest.cert-manager.io",
        short: &["certificaterequest", "certificaterequests", "cr", "crs"], path: "/requests" },
    Names { kind: Kind::Order, title: "Order", word: "order", plural: "orders",
        full: "order.acme.cert-manager.io", short: &[], path: "/orders" },
    Names { kind: Kind::Challenge, title: "Challenge", word: "challenge", plural: "challenges",
        full: "challenge.acme.cert-manager.io", short: &[], path: "/challenges" },
    Names { kind: Kind::Issuer, title: "Issuer", word: "issuer", plural: "issuers",
        full: "issuer.cert-manager.io", short: &["iss"], path: "/issuers" },
    Names { kind: Kind::ClusterIssuer, title: "ClusterIssuer", word: "clusterissuer", plural: "clusterissuers",
        full: "clusterissuer.cert-manager.io", short: &["ciss"], path: "/issuers" },
    Names { kind: Kind::Policy, title: "Policy", word: "policy", plural: "policies",
        full: "policy.certwright.dev", short: &["pol"], path: "/policies" },
    Names { kind: Kind::Secret, title: "Secret", word: "secret", plural: "secrets",
        full: "secret", short: &[], path: "/secrets" },
    Names { kind: Kind::Webhook, title: "Webhook", word: "webhook", plural: "webhooks",
        full: "webhook", short: &["hook", "hooks"], path: "/webhooks" },
    Names { kind: Kind::Event, title: "Event", word: "event", plural: "events",
        full: "event", short: &["ev"], path: "/events" },
];

/// A word that names no kind.
#[derive(Debug, Error)]
#[error("there is no kind `{0}`; {hint}", hint = hint(.0))]
pub(crate) struct UnknownKind(String);

/// The kind that was probably meant, else all of them.
fn hint(word: &str) -> String {
    let known = NAMES.iter().flat_map(|names| {
        let full = names.title.to_ascii_lowercase();
        [names.word.to_owned(), names.plural.to_owned(), full]
    });
    let word = word.to_ascii_lowercase();
    let near = known.map(|known| (strsim::jaro_winkler(&known, &word), known));
    match near.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((likeness, known)) if likeness > 0.85 => format!("did you mean `{known}`?"),
        _ => format!("there are {}", NAMES.map(|names| names.plural).join(", ")),
    }
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Certificate,
        Self::Request,
        Self::Order,
        Self::Challenge,
        Self::Issuer,
        Self::ClusterIssuer,
        Self::Policy,
        Self::Secret,
        Self::Webhook,
        Self::Event,
    ];

    /// Kinds of which there are manifests.
    pub(crate) const IN_MANIFESTS: [Self; 5] =
        [Self::Secret, Self::ClusterIssuer, Self::Issuer, Self::Policy, Self::Certificate];

    /// Reads what people type, in any case: `certs`, `cr`, `order.acme.cert-manager.io`.
    pub(crate) fn parse(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        let word = lower.split('.').next().unwrap_or_default();
        NAMES
            .iter()
            .find(|names| word == names.word || word == names.plural || names.short.contains(&word))
            .map(|names| names.kind)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }

    /// Several kinds, joined by commas.
    pub(crate) fn parse_several(text: &str) -> Result<Vec<Self>, UnknownKind> {
        text.split(',').map(Self::parse).collect()
    }

    fn name(self, of: fn(&Names) -> &'static str) -> &'static str {
        NAMES.iter().find(|names| names.kind == self).map_or("", of)
    }

    /// `certificate`.
    pub(crate) fn word(self) -> &'static str {
        self.name(|names| names.word)
    }

    /// `certificates`.
    pub(crate) fn plural(self) -> &'static str {
        self.name(|names| names.plural)
    }

    /// `certificate.cert-manager.io`.
    pub(crate) fn full(self) -> &'static str {
        self.name(|names| names.full)
    }

    /// cert-manager's word: `CertificateRequest`.
    pub(crate) fn title(self) -> &'static str {
        self.name(|names| names.title)
    }

    /// The collection in the API.
    pub(crate) fn path(self) -> &'static str {
        self.name(|names| names.path)
    }

    /// The value of `kind` for kinds that share a collection.
    pub(crate) fn of_path(self) -> Option<&'static str> {
        matches!(self, Self::Issuer | Self::ClusterIssuer).then(|| self.title())
    }

    /// The `apiVersion` of its manifests.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::Secret | Self::Event => "v1",
            Self::Order | Self::Challenge => "acme.cert-manager.io/v1",
            Self::Policy | Self::Webhook => "certwright.dev/v1",
            _ => "cert-manager.io/v1",
        }
    }

    /// True if it lives in a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterIssuer | Self::Policy)
    }

    /// True if it can be found by name.
    pub(crate) fn has_names(self) -> bool {
        self != Self::Event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_names_are_understood() {
        for (text, kind) in [
            ("cert", Kind::Certificate),
            ("Certs", Kind::Certificate),
            ("certificates.cert-manager.io", Kind::Certificate),
            ("cr", Kind::Request),
            ("certificaterequests", Kind::Request),
            ("order", Kind::Order),
            ("challenges.acme.cert-manager.io", Kind::Challenge),
            ("iss", Kind::Issuer),
            ("ciss", Kind::ClusterIssuer),
            ("policies.certwright.dev", Kind::Policy),
        ] {
            assert_eq!(Kind::parse(text).unwrap(), kind, "{text}");
        }
        assert!(Kind::parse("pods").unwrap_err().to_string().contains("certificates"));
        for (typed, meant) in
            [("certificat", "certificate"), ("isuers", "issuers"), ("ordr", "order")]
        {
            let refused = Kind::parse(typed).unwrap_err().to_string();
            assert!(refused.ends_with(&format!("did you mean `{meant}`?")), "{refused}");
        }
    }
}
