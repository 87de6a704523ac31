//! The HTTP-01 responder (RFC 8555, section 8.3): one route, on a listener of its own.
//!
//! It reads tokens from the database and nothing else: no files, no redirects, no other paths.

use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::timeout::TimeoutLayer;

use super::layers::names_one_host;
use crate::domain::challenge::is_token;
use crate::storage::{Db, StorageError, challenges};
use crate::telemetry::LogLimit;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers HTTP-01 challenges of CAs, on any replica.
pub fn responder(db: Db) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(answer))
        .fallback(async || nothing())
        .method_not_allowed_fallback(async || nothing())
        .layer(from_fn(async |request: Request, next: Next| {
            if names_one_host(&request) {
                next.run(request).await
            } else {
                (StatusCode::BAD_REQUEST, "send exactly one Host header\n").into_response()
            }
        }))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .with_state(db)
}

async fn answer(State(db): State<Db>, token: Result<Path<String>, PathRejection>) -> Response {
    let Some(token) = token.ok().map(|Path(token)| token).filter(|token| is_token(token)) else {
        return nothing();
    };
    match look_up(&db, &token).await {
        Ok(Some(text)) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], text).into_response()
        }
        Ok(None) => nothing(),
        Err(error) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.pass() {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, left_out, "the HTTP-01 responder could not look up a token");
            }
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

async fn look_up(db: &Db, token: &str) -> Result<Option<String>, StorageError> {
    challenges::key_authorization(&mut db.read().await?, token).await
}

/// The answer for everything but a known token.
fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}
