//! The caller's identity.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Principal;
use super::extract::Json;
use super::problem::Errors;
use crate::domain::principal::PrincipalKind;
use crate::domain::role::Role;
use crate::storage::Scope;

/// The principal that the request was authenticated as.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhoAmI {
    /// How it was authenticated.
    kind: PrincipalKind,
    /// Its identifier.
    id: Uuid,
    /// Its name; of a token the subject, of a client certificate a name in it.
    #[schema(example = "payments-deploy")]
    name: String,
    /// The OIDC issuer of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Its role, if it has one.
    role: Option<Role>,
    /// Its permissions, those of the role included; `*` is all.
    #[schema(example = json!(["certificates:read", "certificates:write"]))]
    permissions: Vec<String>,
    /// The namespaces; `null` is all of them.
    namespaces: Option<Vec<String>>,
    /// The time from which on it is refused; `null` is never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

/// Get the caller's identity
#[utoipa::path(get, path = "/whoami", operation_id = "whoAmI", tag = "service",
    responses((status = 200, body = WhoAmI, description = "The principal of the request"), Errors))]
pub(crate) async fn show(who: Principal) -> Json<WhoAmI> {
    Json(WhoAmI {
        kind: who.subject.kind(),
        id: who.subject.id().0,
        issuer: who.subject.issuer().map(str::to_owned),
        expires_at: who.subject.expires_at(),
        name: who.name,
        role: who.permissions.role(),
        permissions: who.permissions.words(),
        namespaces: match who.scope {
            Scope::Everything => None,
            Scope::Namespaces(names) => Some(names),
        },
    })
}
