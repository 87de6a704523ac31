//! What comes before and after every call of the double: counting, faults, the token.

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::TOKEN;
use super::api::{Double, Refusal};
use super::state::{Calls, State};

/// What comes before every call: counting, faults, the token.
pub(super) async fn gate(Extract(state): Double, request: Request, next: Next) -> Response {
    let writes = request.method() != "GET";
    if let Some(response) = before(&mut state.lock(), &request) {
        return response;
    }
    let mut response = next.run(request).await;
    let odd = state.lock().odd;
    if odd {
        response = oddly(response).await;
    }
    let mut state = state.lock();
    if writes && response.status().is_success() && state.faults.lost_answers > 0 {
        state.faults.lost_answers -= 1;
        return Refusal(500, 10013, "An unknown error has occurred").into_response();
    }
    response
}

/// The same with members that clients have stumbled over: nulls for lists, numbers as text, entries of
/// other kinds, fields that are missing or new.
async fn oddly(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
    answer["messages"] = Value::Null;
    answer["errors"] = match answer["errors"].as_array() {
        Some(errors) if !errors.is_empty() => {
            let code = answer["errors"][0]["code"].to_string();
            json!([null, "odd", {"code": code, "message": null, "error_chain": null}])
        }
        _ => Value::Null,
    };
    if let Some(pages) = answer["result_info"]["total_pages"].as_u64() {
        answer["result_info"] = json!({"total_pages": pages.to_string(), "page": null});
    }
    if let Some(posts) = answer["result"].get_mut("posts").and_then(Value::as_array_mut) {
        for post in posts {
            *post = json!({"id": post["id"], "content": null});
        }
        answer["result"]["deletes"] = Value::Null;
    }
    if let Some(list) = answer["result"].as_array_mut() {
        for one in &mut *list {
            one["meta"] = json!([1, {"new": true}]);
            one["ttl"] = json!("60");
        }
        let is_records = list.iter().any(|one| one.get("content").is_some());
        if is_records {
            list.insert(
                0,
                json!({"id": "0", "type": "SRV", "name": "x", "content": null, "data": {}}),
            );
        }
    }
    Response::from_parts(parts, answer.to_string().into())
}

fn before(state: &mut State, request: &Request) -> Option<Response> {
    count(&mut state.calls, request);
    state.called.push(Instant::now());
    if let Some(left) = blocked(state) {
        let refusal = Refusal(429, 971, "Please wait and consider throttling your request speed");
        let mut response = refusal.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, left.into());
        return Some(response);
    }
    if let Some((status, code)) = state.faults.refusals.pop_front() {
        let mut response = Refusal(status, code, "canary-of-the-provider").into_response();
        if status == 429 || status == 503 {
            response.headers_mut().insert(header::RETRY_AFTER, 0.into());
        }
        return Some(response);
    }
    let (limited, retry_after) = &mut state.faults.limited;
    if *limited > 0 {
        *limited -= 1;
        let refusal = Refusal(429, 10429, "Rate limited. Please wait and consider throttling");
        let mut response = refusal.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
        return Some(response);
    }
    if state.faults.html > 0 {
        state.faults.html -= 1;
        let page = Html("<html><h1>502 Bad Gateway</h1></html>");
        return Some((StatusCode::BAD_GATEWAY, page).into_response());
    }
    if state.faults.revoked {
        return Some(Refusal(403, 9109, "Invalid access token").into_response());
    }
    authorized(request.headers()).err().map(IntoResponse::into_response)
}

/// The seconds for which everything is still refused.
fn blocked(state: &mut State) -> Option<u64> {
    let faults = &mut state.faults;
    if let Some((calls, time)) = &mut faults.block {
        if *calls == 0 {
            faults.blocked_until = Some(Instant::now() + *time);
            faults.block = None;
        } else {
            *calls -= 1;
        }
    }
    let left = faults.blocked_until?.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.as_secs() + 1)
}

fn count(calls: &mut Calls, request: &Request) {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let kind = match (request.method().as_str(), segments.as_slice()) {
        ("GET", [.., "zones"]) => &mut calls.zones,
        ("GET", [.., "dns_records"]) => &mut calls.list,
        ("POST", [.., "dns_records"]) => &mut calls.create,
        ("POST", [.., "batch"]) => &mut calls.batch,
        ("DELETE", _) => &mut calls.delete,
        _ => &mut calls.verify,
    };
    *kind += 1;
}

fn authorized(headers: &HeaderMap) -> Result<(), Refusal> {
    let malformed = Refusal(400, 6003, "Invalid request headers");
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = value.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err(malformed);
    };
    if token.len() != TOKEN.len() {
        return Err(malformed);
    }
    if token != TOKEN {
        return Err(Refusal(403, 9109, "Invalid access token"));
    }
    Ok(())
}
