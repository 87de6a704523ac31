//! The records of the double's zones: listed, written and removed, alone or in a batch.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Double, Refusal, finds, only, page, success};
use super::state::{Names, State, StoredRecord, ZoneData};

const MAX_BATCH: usize = 200;
const MAX_COMMENT: usize = 100;
const IDENTICAL: &str = "An identical record already exists.";

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

pub(super) async fn list_records(
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

pub(super) async fn create_record(
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

pub(super) async fn delete_record(
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
pub(super) async fn batch(
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
