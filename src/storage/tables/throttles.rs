//! What a CA does not want to be asked before a moment, for everybody who shares the limit.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::failure::Failure;
use crate::domain::id::ThrottleId;
use crate::domain::throttle::{Scope, Throttle};
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, execute, fetch, json, millis, moment, statements,
};

statements! {
    HOLD writes(throttles) = "INSERT INTO throttles (id, key, scope, held_until, why) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (key) DO UPDATE SET held_until = excluded.held_until, why = excluded.why
     WHERE throttles.held_until < excluded.held_until";
    // A list travels as JSON: the two databases have no other form of it in common.
    HELD = "SELECT held_until, why FROM throttles
             WHERE key IN (SELECT value FROM json_each($1)) AND held_until > $2
             ORDER BY held_until DESC LIMIT 1",
        "SELECT held_until, why FROM throttles
               WHERE key = ANY (ARRAY(SELECT json_array_elements_text($1::json))) AND held_until > $2
               ORDER BY held_until DESC LIMIT 1";
    // Few are held at a time: the index finds those, and each is compared with the pools.
    OF_POOLS = "SELECT id, key, held_until, why FROM throttles
            WHERE held_until > $2 AND EXISTS (SELECT 1 FROM json_each($1)
                WHERE throttles.key = value OR substr(throttles.key, 1, length(value) + 1) = value || ' ')
            ORDER BY held_until DESC, id LIMIT $3",
        "SELECT id, key, held_until, why FROM throttles
              WHERE held_until > $2 AND EXISTS (SELECT 1 FROM json_array_elements_text($1::json) AS pool (value)
                  WHERE throttles.key = value OR substr(throttles.key, 1, length(value) + 1) = value || ' ')
              ORDER BY held_until DESC, id LIMIT $3";
    FIND = "SELECT id, key, held_until, why FROM throttles WHERE id = $1 AND held_until > $2";
    LIFT writes(throttles) = "DELETE FROM throttles WHERE id = $1";
    // SKIP LOCKED: whoever sweeps must not wait for those who hold, nor they for it.
    SWEEP writes(throttles) = "DELETE FROM throttles WHERE key IN
             (SELECT key FROM throttles WHERE held_until <= $1 ORDER BY held_until LIMIT 100)",
        "DELETE FROM throttles WHERE key IN
               (SELECT key FROM throttles WHERE held_until <= $1 ORDER BY held_until LIMIT 100
                FOR UPDATE SKIP LOCKED)";
}

/// Holds whatever shares this key until `until`; a later end that is known already stays.
///
/// Throttles that have ended are swept on the way, by their index.
pub async fn hold(
    tx: &mut Tx,
    key: &str,
    scope: &Scope,
    until: OffsetDateTime,
    why: &Failure,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, SWEEP, millis(now))?;
    let id = ThrottleId::generate(now);
    execute!(tx, HOLD, id.0, key, scope.as_str(), millis(until), json(why))?;
    Ok(())
}

/// The throttle that holds one of these keys the longest, with what the CA said.
pub async fn held(
    read: &mut Read,
    keys: &[String],
    now: OffsetDateTime,
) -> Result<Option<(OffsetDateTime, Failure)>, StorageError> {
    let keys = serde_json::json!(keys).to_string();
    let found: Option<(i64, String)> =
        fetch!(fetch_optional, read, HELD, keys.as_str(), millis(now))?;
    let row = Stored("throttles", Uuid::nil());
    found.map(|(until, why)| Ok((moment(until), row.document(&why)?))).transpose()
}

/// The throttles that hold somebody, a page of them.
pub async fn list(
    read: &mut Read,
    page: Page,
    now: OffsetDateTime,
) -> Result<Rows<Throttle>, StorageError> {
    let mut filter = Filter::default();
    filter.and("held_until > ?", millis(now).into());
    let select = "SELECT id, key, held_until, why FROM throttles";
    let rows: Rows<Row> = filter.page(read, select, "id", page).await?;
    rows.map(Row::into_domain)
}

/// The throttles of these buckets and kinds of buckets ([`Asker::pools`]), the longest first, `most` of them.
///
/// [`Asker::pools`]: crate::domain::throttle::Asker::pools
pub async fn of(
    read: &mut Read,
    pools: &[String],
    most: u32,
    now: OffsetDateTime,
) -> Result<Vec<Throttle>, StorageError> {
    let pools = serde_json::json!(pools).to_string();
    let (now, most) = (millis(now), i64::from(most));
    let rows: Vec<Row> = fetch!(fetch_all, read, OF_POOLS, pools.as_str(), now, most)?;
    rows.into_iter().map(Row::into_domain).collect()
}

/// The throttle with this identifier, while it holds somebody.
pub async fn find(
    read: &mut Read,
    id: ThrottleId,
    now: OffsetDateTime,
) -> Result<Option<Throttle>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0, millis(now))?;
    row.map(Row::into_domain).transpose()
}

/// Holds nobody any more.
pub async fn lift(tx: &mut Tx, id: ThrottleId) -> Result<(), StorageError> {
    execute!(tx, LIFT, id.0)?;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    key: String,
    held_until: i64,
    why: String,
}

impl Row {
    fn into_domain(self) -> Result<Throttle, StorageError> {
        let Self { id, key, held_until, why } = self;
        let why = Stored("throttles", id).document(&why)?;
        Ok(Throttle { id: ThrottleId(id), key, until: moment(held_until), why })
    }
}
