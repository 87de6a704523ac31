//! The double's HTTP side.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::TOKEN;
use super::state::{Calls, Names, Shared, State, StoredRecord, ZoneData};

const MAX_BATCH: usize = 200;
const MAX_COMMENT: usize = 100;
const IDENTICAL: &str = "An identical record already exists.";

type Double = Extract<Arc<Shared>>;

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
struct Refusal(u16, u32, &'static str);

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

fn success(result: &Value) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

/// What comes before every call: counting, faults, the token.
async fn gate(Extract(state): Double, request: Request, next: Next) -> Response {
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

async fn verify() -> Response {
    success(&json!({"id": "ed17574386854bf78a67040be0a770b0", "status": "active"}))
}

/// The part of `all` that the query asks for, with `result_info`.
fn page(query: &HashMap<String, String>, most: usize, all: &[Value]) -> Result<Response, Refusal> {
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

fn only(query: &HashMap<String, String>, known: &[&str]) -> Result<(), Refusal> {
    match query.keys().find(|key| !known.contains(&key.as_str())) {
        Some(_) => Err(Refusal(400, 9207, "unknown query parameter")),
        None => Ok(()),
    }
}

/// Whether a filter finds a name.
fn finds(state: &State, wanted: &str, name: &str) -> bool {
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

fn editable<'a>(state: &'a mut State, id: &str) -> Result<&'a mut ZoneData, Refusal> {
    let zone = state.zone_with_id(id).ok_or(Refusal(
        404,
        7003,
        "Could not route to the zone, perhaps your identifier is invalid",
    ))?;
    if !zone.editable {
        return Err(Refusal(403, 10000, "Authentication error"));
    }
    Ok(zone)
}

/// No `zone_id` and no dates: those who read them must not.
fn view(record: &StoredRecord, names: Names) -> Value {
    json!({
        "id": record.id, "type": record.kind, "name": names.written(&record.name),
        "content": record.content, "ttl": record.ttl, "comment": record.comment,
    })
}

async fn list_records(
    Extract(state): Double,
    Path(zone): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    only(
        &query,
        &[
            "type",
            "name",
            "name.exact",
            "content",
            "content.exact",
            "comment.startswith",
            "page",
            "per_page",
        ],
    )?;
    let mut state = state.lock();
    let is = |keys: [&str; 2], value: &str| {
        keys.iter().filter_map(|key| query.get(*key)).all(|wanted| wanted == value)
    };
    let names = state.names;
    let mut records = editable(&mut state, &zone)?.records.clone();
    records.retain(|record| {
        ["name", "name.exact"]
            .iter()
            .filter_map(|key| query.get(*key))
            .all(|wanted| finds(&state, wanted, &record.name))
    });
    let records: Vec<Value> = records
        .iter()
        .filter(|record| is(["type", "type"], &record.kind))
        .filter(|record| is(["content", "content.exact"], &record.content))
        .filter(|record| {
            query.get("comment.startswith").is_none_or(|start| {
                record.comment.as_ref().is_some_and(|comment| comment.starts_with(start.as_str()))
            })
        })
        .map(|record| view(record, names))
        .collect();
    page(&query, 5000, &records)
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRecord {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    content: String,
    ttl: u32,
    #[serde(default)]
    comment: Option<String>,
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind != Some("application/json") {
        return Err(Refusal(400, 9207, "Content-Type must be application/json"));
    }
    serde_json::from_slice(body).map_err(|_| Refusal(400, 9207, "Failed to parse request body"))
}

/// Writes one record into a zone that may still be thrown away.
fn insert(
    zone: &mut ZoneData,
    new: NewRecord,
    id: String,
    written_at: Option<Instant>,
) -> Result<Value, Refusal> {
    if zone.records.len() >= zone.room {
        return Err(Refusal(400, 81045, "Record quota exceeded."));
    }
    if new.kind != "TXT" {
        return Err(Refusal(400, 1004, "DNS Validation Error: type"));
    }
    if new.name != zone.name && !new.name.ends_with(&format!(".{}", zone.name)) {
        return Err(Refusal(400, 9005, "name is not in the zone"));
    }
    if new.ttl != 1 && !(60..=86400).contains(&new.ttl) {
        return Err(Refusal(400, 9021, "TTL must be between 60 and 86400 seconds, or 1"));
    }
    let quoted =
        new.content.len() >= 2 && new.content.starts_with('"') && new.content.ends_with('"');
    if !quoted {
        return Err(Refusal(400, 9005, "Content for TXT record must be quoted"));
    }
    if new
        .comment
        .as_ref()
        .is_some_and(|comment| comment.len() > MAX_COMMENT || comment.contains('\n'))
    {
        return Err(Refusal(400, 9207, "comment is too long"));
    }
    let twin = zone
        .records
        .iter()
        .any(|old| (&old.kind, &old.name, &old.content) == (&new.kind, &new.name, &new.content));
    if twin {
        return Err(Refusal(400, 81058, IDENTICAL));
    }
    let NewRecord { kind, name, content, ttl, comment } = new;
    let record = StoredRecord { id, kind, name, content, ttl, comment, written_at };
    let answer = view(&record, Names::Plain);
    zone.records.push(record);
    Ok(answer)
}

fn remove(zone: &mut ZoneData, id: &str) -> Result<Value, Refusal> {
    let before = zone.records.len();
    zone.records.retain(|record| record.id != id);
    if zone.records.len() == before {
        return Err(Refusal(404, 81044, "Record does not exist."));
    }
    Ok(json!({"id": id}))
}

async fn create_record(
    Extract(state): Double,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let new = read::<NewRecord>(&headers, &body)?;
    let mut state = state.lock();
    refuse_record(&state)?;
    let (id, written_at) = (state.next_id(), Some(Instant::now()));
    let inserted = insert(editable(&mut state, &zone)?, new, id, written_at);
    note(&mut state, 1, &inserted);
    inserted.map(|result| success(&result)).map_err(|refusal| other_word(&state, refusal))
}

async fn delete_record(
    Extract(state): Double,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let mut state = state.lock();
    remove(editable(&mut state, &zone)?, &id).map(|result| success(&result))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    #[serde(default)]
    deletes: Vec<Id>,
    #[serde(default)]
    patches: Vec<Value>,
    #[serde(default)]
    puts: Vec<Value>,
    #[serde(default)]
    posts: Vec<NewRecord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    id: String,
}

/// One transaction: deletes, then posts; when one is refused, nothing has happened.
async fn batch(
    Extract(state): Double,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let batch = read::<Batch>(&headers, &body)?;
    if !batch.patches.is_empty() || !batch.puts.is_empty() {
        return Err(Refusal(400, 9207, "the double knows only deletes and posts"));
    }
    if batch.deletes.len() + batch.posts.len() > MAX_BATCH {
        return Err(Refusal(400, 9207, "A batch may hold at most 200 changes"));
    }
    let mut state = state.lock();
    if !batch.posts.is_empty() {
        refuse_record(&state)?;
    }
    let posts = u32::try_from(batch.posts.len()).unwrap();
    let ids: Vec<String> = batch.posts.iter().map(|_| state.next_id()).collect();
    let written_at = Some(Instant::now());
    let zone = editable(&mut state, &zone)?;
    let before = zone.records.clone();
    let applied = apply(zone, batch, ids, written_at);
    if applied.is_err() {
        zone.records = before;
    }
    note(&mut state, posts, &applied);
    applied.map(|result| success(&result)).map_err(|refusal| other_word(&state, refusal))
}

fn refuse_record(state: &State) -> Result<(), Refusal> {
    match state.faults.no_record {
        Some((status, code)) => Err(Refusal(status, code, "canary-of-the-provider")),
        None => Ok(()),
    }
}

fn note(state: &mut State, records: u32, done: &Result<Value, Refusal>) {
    match done {
        Ok(_) => state.written += records,
        Err(Refusal(_, 81058, _)) => state.twins += 1,
        Err(_) => {}
    }
}

/// Cloudflare has two codes for the same, and both are seen.
fn other_word(state: &State, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal(_, 81058, _) if state.twins.is_multiple_of(2) => {
            Refusal(400, 81057, "The record already exists.")
        }
        refusal => refusal,
    }
}

fn apply(
    zone: &mut ZoneData,
    batch: Batch,
    ids: Vec<String>,
    written_at: Option<Instant>,
) -> Result<Value, Refusal> {
    let deletes: Vec<Value> =
        batch.deletes.iter().map(|delete| remove(zone, &delete.id)).collect::<Result<_, _>>()?;
    let posts: Vec<Value> = batch
        .posts
        .into_iter()
        .zip(ids)
        .map(|(new, id)| insert(zone, new, id, written_at))
        .collect::<Result<_, _>>()?;
    Ok(json!({"deletes": deletes, "patches": [], "puts": [], "posts": posts}))
}
