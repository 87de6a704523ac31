//! The metrics, for Prometheus.
//!
//! What the process has counted is there at each scrape; what the database knows is read at most every few seconds,
//! by one scrape for all that come meanwhile.

mod figures;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use moka::future::Cache;
use tower_http::timeout::TimeoutLayer;

use super::AppState;
use super::auth::{Authorized, MetricsRead};
use super::problem::{ApiError, Code, Errors};
use crate::telemetry::metrics;
use figures::Figures;

/// Time limit for the database's answers. A scrape without them is still a scrape.
const WITHIN: Duration = Duration::from_secs(5);

/// Time limit of a scrape on the listener for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the metrics show, and where.
#[derive(Debug, Clone, Copy)]
pub struct MetricsSettings {
    /// Whether the API's own listener has them.
    pub on_api: bool,
    /// Certificates that are listed with their ends, the soonest first.
    pub certificates: u32,
    /// How long figures of the database are shown before they are read again.
    pub fresh_for: Duration,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { on_api: true, certificates: 0, fresh_for: Duration::from_secs(5) }
    }
}

/// The metrics as they are served; copies share what was read.
#[derive(Clone)]
pub struct Metrics {
    settings: MetricsSettings,
    figures: Cache<(), Arc<Figures>>,
}

impl Metrics {
    pub fn new(settings: MetricsSettings) -> Self {
        let figures = Cache::builder().max_capacity(1).time_to_live(settings.fresh_for).build();
        Self { settings, figures }
    }

    async fn page(&self, app: &AppState) -> Response {
        let certificates = self.settings.certificates;
        let read = self.figures.try_get_with((), async {
            let read = Figures::read(app, certificates);
            // Whatever it is: the log of the database's own troubles is elsewhere.
            tokio::time::timeout(WITHIN, read)
                .await
                .map_or(Err(()), |read| read.map_err(drop))
                .map(Arc::new)
        });
        let gauges = figures::gauges(read.await.ok().as_deref(), &app.db.load(), app.now());
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&gauges)).into_response()
    }
}

/// Get the metrics
///
/// In Prometheus' text format, about all namespaces: a key that is bound to some may not read them. Where they have
/// a listener of their own (`metrics.listen`), they are open there, and not here.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain", description = "The metrics"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<MetricsRead>,
) -> Result<Response, ApiError> {
    if who.is_bound() {
        let detail = "Metrics are about all namespaces: use an API key that is bound to none.";
        return Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()));
    }
    if !app.metrics.settings.on_api {
        let detail = "The metrics are not here: `metrics.enabled` is off, or `metrics.listen` names their own address.";
        return Err(ApiError::Because(Code::NotFound, detail.to_owned()));
    }
    Ok(app.metrics.page(&app).await)
}

/// The metrics by themselves, open to whoever reaches the listener.
pub fn metrics_alone(state: AppState) -> Router {
    Router::new()
        .route("/metrics", get(async |State(app): State<AppState>| app.metrics.page(&app).await))
        .fallback(async || (StatusCode::NOT_FOUND, "the metrics are at /metrics\n"))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .with_state(state)
}
