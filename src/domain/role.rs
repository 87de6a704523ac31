//! Roles: names for sets of permissions, as people give them. Which permissions each has is said in `api::auth`,
//! where the permissions are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but API keys, policies, and the contents of secrets and private keys.
    Operator,
    /// Certificates and their private keys.
    Requester,
    /// Looks, at nothing that is secret.
    Reader,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Requester, Self::Reader];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Requester => "requester",
            Self::Reader => "reader",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}
