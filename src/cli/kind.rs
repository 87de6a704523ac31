//! What there is to look at, under all the names that kubectl knows it by.

use super::exit::Complaint;

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    Request,
    Order,
    Challenge,
    Issuer,
    ClusterIssuer,
    Secret,
    Webhook,
    Event,
}

/// Singular, plural, kubectl's name of the resource, short names.
const NAMES: &[(Kind, &str, &str, &str, &[&str])] = &[
    (
        Kind::Certificate,
        "certificate",
        "certificates",
        "certificate.cert-manager.io",
        &["cert", "certs"],
    ),
    (
        Kind::Request,
        "request",
        "requests",
        "certificaterequest.cert-manager.io",
        &["certificaterequest", "certificaterequests", "cr", "crs"],
    ),
    (Kind::Order, "order", "orders", "order.acme.cert-manager.io", &[]),
    (Kind::Challenge, "challenge", "challenges", "challenge.acme.cert-manager.io", &[]),
    (Kind::Issuer, "issuer", "issuers", "issuer.cert-manager.io", &["iss"]),
    (
        Kind::ClusterIssuer,
        "clusterissuer",
        "clusterissuers",
        "clusterissuer.cert-manager.io",
        &["ciss"],
    ),
    (Kind::Secret, "secret", "secrets", "secret", &[]),
    (Kind::Webhook, "webhook", "webhooks", "webhook", &["hook", "hooks"]),
    (Kind::Event, "event", "events", "event", &["ev"]),
];

impl Kind {
    /// What people type, in any case: `certs`, `cr`, `order.acme.cert-manager.io`.
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let lower = text.to_ascii_lowercase();
        let word = lower.split('.').next().unwrap_or_default();
        NAMES
            .iter()
            .find(|(_, one, many, _, short)| word == *one || word == *many || short.contains(&word))
            .map(|(kind, ..)| *kind)
            .ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|(_, _, many, ..)| *many).collect();
                Complaint::Usage(format!(
                    "there is no kind `{text}`; there are {}",
                    known.join(", ")
                ))
            })
    }

    /// Several kinds, joined by commas.
    pub(super) fn parse_several(text: &str) -> Result<Vec<Self>, Complaint> {
        text.split(',').map(Self::parse).collect()
    }

    fn names(self) -> (&'static str, &'static str, &'static str) {
        NAMES
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(("", "", ""), |(_, one, many, full, _)| (one, many, full))
    }

    /// `certificate`.
    pub(super) fn word(self) -> &'static str {
        self.names().0
    }

    /// `certificates`.
    pub(super) fn plural(self) -> &'static str {
        self.names().1
    }

    /// `certificate.cert-manager.io`.
    pub(super) fn full(self) -> &'static str {
        self.names().2
    }

    /// cert-manager's word: `CertificateRequest`.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Certificate => "Certificate",
            Self::Request => "CertificateRequest",
            Self::Order => "Order",
            Self::Challenge => "Challenge",
            Self::Issuer => "Issuer",
            Self::ClusterIssuer => "ClusterIssuer",
            Self::Secret => "Secret",
            Self::Webhook => "Webhook",
            Self::Event => "Event",
        }
    }

    /// Where the API keeps it.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Certificate => "/certificates",
            Self::Request => "/requests",
            Self::Order => "/orders",
            Self::Challenge => "/challenges",
            Self::Issuer | Self::ClusterIssuer => "/issuers",
            Self::Secret => "/secrets",
            Self::Webhook => "/webhooks",
            Self::Event => "/events",
        }
    }

    /// Which of the kinds that share the path.
    pub(super) fn of_path(self) -> Option<&'static str> {
        match self {
            Self::Issuer => Some("Issuer"),
            Self::ClusterIssuer => Some("ClusterIssuer"),
            _ => None,
        }
    }

    /// Whether it lives in a namespace.
    pub(super) fn is_namespaced(self) -> bool {
        self != Self::ClusterIssuer
    }

    /// Whether it can be asked for by name.
    pub(super) fn has_names(self) -> bool {
        !matches!(self, Self::Webhook | Self::Event)
    }
}

/// Kinds and names as kubectl takes them: `certs web api`, `order,challenge`, or `cert/web order/web-1-…`.
pub(super) fn targets(words: &[String]) -> Result<Vec<(Kind, Option<String>)>, Complaint> {
    if words.iter().any(|word| word.contains('/')) {
        return words
            .iter()
            .map(|word| {
                let (kind, name) = word.split_once('/').ok_or_else(|| {
                    Complaint::Usage(format!("`{word}` stands beside KIND/NAME and has no `/`"))
                })?;
                Ok((Kind::parse(kind)?, Some(name.to_owned())))
            })
            .collect();
    }
    let Some((first, names)) = words.split_first() else {
        return Err(Complaint::Usage("say which kind, such as `certificates`".to_owned()));
    };
    let kinds = Kind::parse_several(first)?;
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| (kind, None)).collect());
    }
    let pairs = kinds.iter().flat_map(|kind| names.iter().map(|name| (*kind, Some(name.clone()))));
    Ok(pairs.collect())
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
        ] {
            assert_eq!(Kind::parse(text).unwrap(), kind, "{text}");
        }
        assert!(Kind::parse("pods").unwrap_err().to_string().contains("certificates"));
    }

    #[test]
    fn kinds_and_names_are_told_apart() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let named = |kind, name: &str| (kind, Some(name.to_owned()));

        let several = targets(&words("order,challenge")).unwrap();
        assert_eq!(several, [(Kind::Order, None), (Kind::Challenge, None)]);
        let two = targets(&words("cert a b")).unwrap();
        assert_eq!(two, [named(Kind::Certificate, "a"), named(Kind::Certificate, "b")]);
        let full = targets(&words("cert/a order.acme.cert-manager.io/b")).unwrap();
        assert_eq!(full, [named(Kind::Certificate, "a"), named(Kind::Order, "b")]);
        assert!(targets(&words("cert/a b")).is_err() && targets(&[]).is_err());
    }
}
