//! Principals as they are remembered: by name too, since they may be gone by the time that somebody reads it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::words::words;

/// A reference to whoever did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrincipalRef {
    /// How it was authenticated.
    pub kind: PrincipalKind,
    /// Its identifier; absent for the service's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its name: of an API key, the subject of a token, or the name in a client certificate.
    #[schema(example = "admin")]
    pub name: String,
}

words! {
    /// How a principal was authenticated.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub serde enum PrincipalKind {
        /// An API key.
        ApiKey = "apiKey",
        /// A token of an OIDC issuer.
        Token = "token",
        /// A client certificate.
        ClientCertificate = "clientCertificate",
        /// The service's own configuration, at its start.
        Configuration = "configuration",
        /// The service itself, for what it decides without being asked.
        Service = "service",
    }
}

impl PrincipalRef {
    /// Whether the other is the same one, whatever its name is by now.
    pub fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.id == other.id
    }
}

/// `API key` and its name.
impl fmt::Display for PrincipalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.noun(), self.name)
    }
}

impl PrincipalKind {
    /// What it is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::ApiKey => "API key",
            Self::Token => "token",
            Self::ClientCertificate => "client certificate",
            Self::Configuration => "configuration",
            Self::Service => "service",
        }
    }
}
