//! The namespaces whose rows a caller may see.

/// The namespaces that a query is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace, and what belongs to none.
    Everything,
    /// These namespaces, and the issuers that serve all.
    Namespaces(Vec<String>),
}

/// Whether a text can name a namespace: a DNS label, as in Kubernetes.
pub fn is_namespace(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl Scope {
    /// The namespaces that it is bound to; `None` is not bound to any.
    pub fn namespaces(&self) -> Option<&[String]> {
        match self {
            Self::Everything => None,
            Self::Namespaces(names) => Some(names),
        }
    }

    /// Whether a row of this namespace is visible. The empty namespace is a `ClusterIssuer`'s.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespaces(names) => {
                namespace.is_empty() || names.iter().any(|name| name == namespace)
            }
        }
    }

    /// True if it covers nothing that `outer` does not.
    pub fn is_within(&self, outer: &Self) -> bool {
        match (self, outer) {
            (_, Self::Everything) => true,
            (Self::Everything, Self::Namespaces(_)) => false,
            (Self::Namespaces(inner), Self::Namespaces(outer)) => {
                inner.iter().all(|name| outer.contains(name))
            }
        }
    }
}
