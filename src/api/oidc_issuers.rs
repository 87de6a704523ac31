//! The OIDC issuers by which people log in with the command line.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::extract::Json;
use super::problem::OpenErrors;

/// The issuers for people.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OidcIssuers {
    items: Vec<OidcIssuer>,
}

/// An issuer for people: where to log in, and as which client.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OidcIssuer {
    /// Its identifier.
    #[schema(example = "https://id.example.com")]
    issuer: String,
    /// A public client of the issuer, which may use device codes (RFC 8628).
    #[schema(example = "certwright-cli")]
    client_id: String,
    /// What `aud` of the token has to be.
    #[schema(example = "https://certwright.example.com")]
    audience: String,
}

/// List the OIDC issuers for people
///
/// Those with a `cli_client_id`. What their tokens are worth is not shown.
#[utoipa::path(get, path = "/oidc-issuers", operation_id = "listOidcIssuers", tag = "service",
    security(()), responses((status = 200, body = OidcIssuers, description = "Where `certwright login` goes"), OpenErrors))]
pub(crate) async fn list(State(app): State<AppState>) -> Json<OidcIssuers> {
    let items = app.tokens.settings().filter_map(|issuer| {
        Some(OidcIssuer {
            issuer: issuer.issuer.clone(),
            client_id: issuer.cli_client_id.clone()?,
            audience: issuer.audience.clone(),
        })
    });
    Json(OidcIssuers { items: items.collect() })
}
