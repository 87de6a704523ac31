//! Views of an API key. The key itself is shown only when it gets a new value.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::auth::Permissions;
use crate::domain::api_key::ApiKey;
use crate::domain::principal::PrincipalRef;
use crate::domain::role::Role;
use crate::storage::Scope;

/// An API key, without the key itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub(crate) struct KeyView {
    /// Its identifier.
    pub(super) id: Uuid,
    /// Its name.
    #[schema(example = "payments-deploy")]
    name: String,
    /// For people.
    description: Option<String>,
    /// Its role, if it has one.
    role: Option<Role>,
    /// The permissions of its bearer, those of the role included.
    #[schema(example = json!(["certificates:read"]))]
    permissions: Vec<String>,
    /// The namespaces; `null` is all of them.
    namespaces: Option<Vec<String>>,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Who made it; `null` for a key from before this was kept.
    created_by: Option<PrincipalRef>,
    /// The time from which on it is refused; `null` is never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// The day of its last use, at midnight UTC.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
    /// The last change of its value.
    rotation: Option<RotationView>,
    /// The key itself, shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    key: Option<String>,
}

/// A change of an API key's value.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeyRotation)]
struct RotationView {
    /// Its time.
    #[serde(with = "time::serde::rfc3339")]
    rotated_at: OffsetDateTime,
    /// The end of the former value; `null` if it ended at once.
    #[serde(with = "time::serde::rfc3339::option")]
    former_valid_until: Option<OffsetDateTime>,
}

impl KeyView {
    pub(super) fn of(key: ApiKey) -> Self {
        let rotation = key.rotation.map(|rotation| RotationView {
            rotated_at: rotation.rotated_at,
            former_valid_until: rotation.former_until,
        });
        Self {
            id: key.id.0,
            permissions: Permissions::new(key.role, &key.permissions).words(),
            name: key.name,
            description: key.description,
            role: key.role,
            namespaces: match key.scope {
                Scope::Everything => None,
                Scope::Namespaces(names) => Some(names),
            },
            created_at: key.created_at,
            created_by: key.created_by,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            rotation,
            key: None,
        }
    }

    pub(super) fn with_value(self, value: &str) -> Self {
        Self { key: Some(value.to_owned()), ..self }
    }
}
