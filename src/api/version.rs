//! The version of the service, open to everybody: a client has to know it before it can do anything else.
//!
//! It is all that is told: which database there is, and how the service is built, are nobody's business.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::OpenErrors;

/// The version of what clients see: docs/api-versions.md says when it changes.
const API_VERSION: &str = "1";

/// The commit that the program was built from, where the build says so.
const COMMIT: Option<&str> = option_env!("CERTWRIGHT_COMMIT");

/// The version of the service.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Version)]
pub(crate) struct VersionView {
    /// The program's (Semantic Versioning).
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The commit that it was built from; absent where the build did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
    /// The API's: another one may take what a client counts on away.
    #[schema(example = "1")]
    api_version: &'static str,
}

/// Get the service's version
#[utoipa::path(get, path = "/version", operation_id = "getVersion", tag = "service", security(()),
    params(("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = VersionView, description = "The versions of program and API", headers(("ETag" = String))),
        (status = 304, description = "Not changed"), OpenErrors))]
pub(crate) async fn show() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    Json(VersionView { version, commit, api_version: API_VERSION }).into_response()
}
