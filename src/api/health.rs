//! Liveness and readiness.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::extract::Json;
use super::problem::{ApiError, Code, OpenErrors};
use crate::storage::pause;

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
/// Asks the database. Ends with the beginning of a graceful stop, so that load balancers look elsewhere, and fails
/// while the installation is paused.
#[utoipa::path(get, path = "/readyz", operation_id = "checkReadiness", tag = "service",
    security(()), responses((status = 200, body = Health, description = "It can work"), OpenErrors))]
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Json<Health>, ApiError> {
    if app.shutdown.is_cancelled() {
        return Err(unavailable("The service is stopping."));
    }
    let look = async { pause::find(&mut app.db.read().await?).await };
    match tokio::time::timeout(WITHIN, look).await {
        Ok(Ok(None)) => Ok(Json(Health { status: "ok" })),
        Ok(Ok(Some(why))) => Err(unavailable(&format!(
            "The installation is paused: {why}. `certwright resume` ends it."
        ))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(unavailable("The database does not answer.")),
    }
}

fn unavailable(detail: &str) -> ApiError {
    ApiError::Because(Code::Unavailable, detail.to_owned())
}
