//! Orders that are over and whose proofs are still to be taken away: claimed and loaded many at once.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::challenges;
use super::orders::Row;
use crate::domain::id::ChallengeId;
use crate::domain::order::Order;
use crate::storage::engine::{
    Read, StorageError, Tx, fetch, fetch_changed, json, millis, statements,
};
use crate::storage::queue::lease::{LEASE, Lease, database_time, lease_end};

// Like any other claim: a lease is judged by the database's clock (see `lease`).
fn claim_text(due: &str, end: &str, lock: &str) -> String {
    format!(
        "WITH due AS MATERIALIZED (
             SELECT id FROM orders WHERE next_action_at IS NOT NULL AND ended AND {due}
             ORDER BY next_action_at LIMIT $4 {lock})
         UPDATE orders SET next_action_at = {end}, leased_by = $3, lease_token = lease_token + 1
         WHERE id IN (SELECT id FROM due)
         RETURNING {}",
        Row::COLUMNS.names()
    )
}

fn challenges_text(orders: &str) -> String {
    format!(
        "SELECT {} FROM challenges WHERE order_id IN {orders} ORDER BY order_id, position",
        challenges::Row::COLUMNS.names()
    )
}

// A list travels as JSON: the two databases have no other form of it in common.
macro_rules! listed {
    (sqlite) => {
        "(SELECT unhex(value) FROM json_each($1))"
    };
    (postgres) => {
        "(SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST($1 AS json)) AS list (value))"
    };
}

macro_rules! shared {
    ($dialect:ident) => {
        concat!(
            "SELECT own.id FROM challenges own WHERE own.id IN ",
            listed!($dialect),
            " AND EXISTS (SELECT 1 FROM challenges other
                WHERE other.token = own.token AND other.id <> own.id AND NOT other.clean
                  AND other.state IN ('pending', 'presented', 'visible', 'processing'))"
        )
    };
}

statements! {
    CLAIM writes(orders) = claim_text("next_action_at <= $1", "$2", ""),
        claim_text(
            concat!(
                "next_action_at <= (SELECT greatest($1, ",
                database_time!("$1"),
                ")) AND next_action_at <= CASE WHEN leased_by IS NULL THEN $1 ELSE ",
                database_time!("$1"),
                " END"
            ),
            lease_end!("$2"),
            "FOR UPDATE SKIP LOCKED"
        );
    CHALLENGES = challenges_text(listed!(sqlite)), challenges_text(listed!(postgres));
    SHARED = shared!(sqlite), shared!(postgres);
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
