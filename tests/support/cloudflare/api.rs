//! The double's HTTP side.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::gate::gate;
use super::records::{batch, create_record, delete_record, list_records};
use super::state::{Names, Shared, State};

pub(super) type Double = Extract<Arc<Shared>>;

pub(super) fn router(state: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/user/tokens/verify", get(verify))
        .route("/zones", get(list_zones))
        .route("/zones/{zone}/dns_records", get(list_records).post(create_record))
        .route("/zones/{zone}/dns_records/batch", post(batch))
        .route("/zones/{zone}/dns_records/{id}", delete(delete_record))
        .fallback(async || Refusal(404, 7000, "No route for that URI"))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), gate))
        .with_state(state);
    Router::new().nest("/client/v4", api)
}

/// A refusal in Cloudflare's form: status, code, message.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) u32, pub(super) &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        let mut problem = json!({"code": code, "message": message});
        if code == 6003 {
            problem["error_chain"] =
                json!([{"code": 6111, "message": "Invalid format for Authorization header"}]);
        }
        let body = json!({"success": false, "errors": [problem], "messages": [], "result": null});
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    }
}

pub(super) fn success(result: &Value) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

async fn verify() -> Response {
    success(&json!({"id": "ed17574386854bf78a67040be0a770b0", "status": "active"}))
}

/// The part of `all` that the query asks for, with `result_info`.
pub(super) fn page(
    query: &HashMap<String, String>,
    most: usize,
    all: &[Value],
) -> Result<Response, Refusal> {
    let number = |key: &str, default: usize| match query.get(key) {
        Some(text) => text.parse().map_err(|_| Refusal(400, 9207, "invalid number")),
        None => Ok(default),
    };
    let (page, per_page) = (number("page", 1)?, number("per_page", 20)?);
    if !(5..=most).contains(&per_page) || page == 0 {
        return Err(Refusal(400, 1004, "per_page or page is out of range"));
    }
    let shown: Vec<&Value> = all.iter().skip((page - 1) * per_page).take(per_page).collect();
    let info = json!({
        "page": page, "per_page": per_page, "count": shown.len(),
        "total_count": all.len(), "total_pages": all.len().div_ceil(per_page),
    });
    Ok(Json(json!({
        "success": true, "errors": [], "messages": [], "result": shown, "result_info": info,
    }))
    .into_response())
}

pub(super) fn only(query: &HashMap<String, String>, known: &[&str]) -> Result<(), Refusal> {
    match query.keys().find(|key| !known.contains(&key.as_str())) {
        Some(_) => Err(Refusal(400, 9207, "unknown query parameter")),
        None => Ok(()),
    }
}

/// Whether a filter finds a name.
pub(super) fn finds(state: &State, wanted: &str, name: &str) -> bool {
    match state.names {
        Names::International => wanted == state.names.written(name),
        Names::Plain | Names::Upper | Names::Absolute => wanted == name,
    }
}

async fn list_zones(
    Extract(state): Double,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    only(&query, &["name", "status", "page", "per_page"])?;
    let state = state.lock();
    if !state.zones_readable {
        return Err(Refusal(403, 10000, "Authentication error"));
    }
    let zones: Vec<Value> = state
        .zones
        .iter()
        .filter(|zone| query.get("name").is_none_or(|name| finds(&state, name, &zone.name)))
        .filter(|_| query.get("status").is_none_or(|status| status == "active"))
        .map(|zone| {
            let name = state.names.written(&zone.name);
            json!({"id": zone.id, "name": name, "status": "active"})
        })
        .collect();
    page(&query, 50, &zones)
}
