//! The namespaces whose rows a caller may see.

/// The namespaces that a query is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace, and what belongs to none.
    Everything,
    /// These namespaces, and the issuers that serve all.
    Namespaces(Vec<String>),
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
}
