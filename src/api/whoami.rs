//! The caller's identity.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Principal;
use super::extract::Json;
use super::problem::Errors;
use crate::storage::Scope;

/// The API key that the request came with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhoAmI {
    /// Its identifier.
    id: Uuid,
    /// Its name.
    #[schema(example = "payments-deploy")]
    name: String,
    /// Its permissions; `*` is all.
    #[schema(example = json!(["certificates:read", "certificates:write"]))]
    permissions: Vec<String>,
    /// The namespaces; `null` is all of them.
    namespaces: Option<Vec<String>>,
}

/// Get the caller's identity
#[utoipa::path(get, path = "/whoami", operation_id = "whoAmI", tag = "service",
    responses((status = 200, body = WhoAmI, description = "The API key of the request"), Errors))]
pub(crate) async fn show(who: Principal) -> Json<WhoAmI> {
    Json(WhoAmI {
        id: who.subject.id().0,
        name: who.name,
        permissions: who.permissions,
        namespaces: match who.scope {
            Scope::Everything => None,
            Scope::Namespaces(names) => Some(names),
        },
    })
}
