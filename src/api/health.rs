//! Liveness and readiness.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::extract::Json;
use super::problem::{ApiError, Code, OpenErrors};
use crate::storage::settings;

/// Time limit for the database's answer.
const WITHIN: Duration = Duration::from_secs(2);

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// Check liveness
#[utoipa::path(get, path = "/healthz", operation_id = "checkHealth", tag = "service",
    security(()), responses((status = 200, body = Health, description = "It lives"), OpenErrors))]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check readiness
///
/// Asks the database. Ends with the beginning of a graceful stop, so that load balancers look elsewhere.
#[utoipa::path(get, path = "/readyz", operation_id = "checkReadiness", tag = "service",
    security(()), responses((status = 200, body = Health, description = "It can work"), OpenErrors))]
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Json<Health>, ApiError> {
    if app.shutdown.is_cancelled() {
        return Err(unavailable("The service is stopping."));
    }
    let look = async { settings::find(&mut app.db.read().await?, "ready").await };
    match tokio::time::timeout(WITHIN, look).await {
        Ok(found) => found.map(|_| Json(Health { status: "ok" })).map_err(ApiError::from),
        Err(_) => Err(unavailable("The database does not answer.")),
    }
}

fn unavailable(detail: &str) -> ApiError {
    ApiError::Because(Code::Unavailable, detail.to_owned())
}
