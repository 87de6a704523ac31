//! Liveness and readiness.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::AppState;
use super::extract::Json;
use super::problem::{ApiError, Code, OpenErrors};
use crate::health::{Check, Report};

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// The instance can work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
    /// What was looked at.
    checks: Vec<CheckView>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
pub(crate) struct CheckView {
    /// `database`, `schema`, `masterKey`, `writes`, `disk` (on SQLite), `listeners`, `worker`, `clock` or `outside`.
    #[schema(example = "writes")]
    name: &'static str,
    ok: bool,
    /// Whether the instance is not ready because of it.
    blocks: bool,
    /// What is wrong, and what to do; `null` where nothing is.
    #[schema(example = "The disk is full: make room where the database lies.")]
    why: Option<String>,
    /// Since when it has been so, as far back as the instance remembers.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

impl CheckView {
    fn of(check: &Check) -> Self {
        let Check { name, ok, blocks, why, since } = check.clone();
        Self { name, ok, blocks, why, since }
    }

    pub(crate) fn all(report: &Report) -> Vec<Self> {
        report.checks.iter().map(Self::of).collect()
    }
}

/// Check liveness
#[utoipa::path(get, path = "/healthz", operation_id = "checkHealth", tag = "service",
    security(()), responses((status = 200, body = Health, description = "It lives"), OpenErrors))]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check readiness
///
/// Looks at what this instance needs, at most every five seconds: database, schema, master key, a write, disk,
/// listeners, worker. Clock and CAs are shown and take nobody out of service. Fails while the
/// installation is paused, and from the beginning of a graceful stop on, so that load balancers look elsewhere. A problem
/// has the same `checks`.
#[utoipa::path(get, path = "/readyz", operation_id = "checkReadiness", tag = "service",
    security(()), responses((status = 200, body = Readiness, description = "It can work"), OpenErrors))]
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Json<Readiness>, ApiError> {
    if app.shutdown.is_cancelled() {
        return Err(ApiError::Because(Code::Unavailable, "The service is stopping.".to_owned()));
    }
    let report = app.health.report().await;
    if !report.is_ready() {
        return Err(ApiError::NotReady(Arc::clone(&report)));
    }
    Ok(Json(Readiness { status: "ok", checks: CheckView::all(&report) }))
}
