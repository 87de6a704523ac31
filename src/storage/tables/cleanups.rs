//! Orders that are over and whose proofs are still to be taken away: claimed and loaded many at once.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::challenges;
use super::orders::Row;
use crate::domain::id::ChallengeId;
use crate::domain::order::Order;
use crate::storage::engine::{
    Read, StorageError, Tx, fetch, fetch_changed, json, millis, moment, statements,
};
use crate::storage::queue::lease::{Dialect, LEASE, Lease, claim_text};

fn claim_ended(dialect: Dialect) -> String {
    let due =
        |now: &str| format!("next_action_at IS NOT NULL AND ended AND next_action_at <= {now}");
    claim_text(dialect, "orders", due, "next_action_at", Row::COLUMNS)
}

// A list travels as JSON: the two databases have no other form of it in common.
const ON_SQLITE: &str = "(SELECT unhex(value) FROM json_each($1))";
const ON_POSTGRES: &str =
    "(SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST($1 AS json)) AS list (value))";

fn challenges_of(orders: &str) -> String {
    challenges::Row::select(&format!("WHERE order_id IN {orders} ORDER BY order_id, position"))
}

fn shared_of(list: &str) -> String {
    format!(
        "SELECT own.id FROM challenges own WHERE own.id IN {list} AND EXISTS (
             SELECT 1 FROM challenges other
             WHERE other.token = own.token AND other.id <> own.id AND NOT other.clean
               AND other.state IN ('pending', 'presented', 'visible', 'processing'))"
    )
}

statements! {
    NEXT = "SELECT min(next_action_at) FROM orders WHERE next_action_at IS NOT NULL AND ended";
    CLAIM writes(orders) = claim_ended(Dialect::Sqlite), claim_ended(Dialect::Postgres);
    CHALLENGES = challenges_of(ON_SQLITE), challenges_of(ON_POSTGRES);
    SHARED = shared_of(ON_SQLITE), shared_of(ON_POSTGRES);
}

/// When the next of them is due.
pub async fn next_due(read: &mut Read) -> Result<Option<OffsetDateTime>, StorageError> {
    let (at,): (Option<i64>,) = fetch!(fetch_one, read, NEXT)?;
    Ok(at.map(moment))
}

/// Takes up to `limit` of them that are due.
pub async fn claim(
    tx: &mut Tx,
    owner: &str,
    now: OffsetDateTime,
    limit: usize,
) -> Result<Vec<(Order, Lease)>, StorageError> {
    let until = millis(now + LEASE);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<Row> = fetch_changed!(fetch_all, tx, CLAIM, millis(now), until, owner, limit)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids = list(rows.iter().map(Row::id));
    let challenges: Vec<challenges::Row> = fetch!(fetch_all, tx, CHALLENGES, ids.as_str())?;
    let mut of_order: HashMap<Uuid, Vec<_>> = HashMap::new();
    for row in challenges {
        of_order.entry(row.order_id()).or_default().push(row.into_domain()?);
    }
    rows.into_iter()
        .map(|row| {
            let challenges = of_order.remove(&row.id()).unwrap_or_default();
            row.into_domain(challenges)
        })
        .collect()
}

/// Those of these challenges whose proof another one still needs: a CA may hand out one authorization
/// twice.
pub async fn shared(
    read: &mut Read,
    challenges: impl Iterator<Item = ChallengeId>,
) -> Result<HashSet<ChallengeId>, StorageError> {
    let ids = list(challenges.map(|id| id.0));
    let rows: Vec<(Uuid,)> = fetch!(fetch_all, read, SHARED, ids.as_str())?;
    Ok(rows.into_iter().map(|(id,)| ChallengeId(id)).collect())
}

fn list(ids: impl Iterator<Item = Uuid>) -> String {
    json(&ids.map(|id| id.simple().to_string()).collect::<Vec<_>>())
}
