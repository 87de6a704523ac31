//! Fair queueing: whose work is due, and claims by flow, so that a crowded one does not hide the others.
//!
//! A flow is what takes turns with others and shares a limit on concurrency: the orders of one issuer in one
//! namespace, the certificates of one namespace. A pass over what is due looks at the oldest few rows; only when
//! those are all of flows that are full does it go from flow to flow along an index (a loose index
//! scan). Neither depends on how many rows wait in a flow. Orders that are over are in no flow
//! ([`crate::storage::tables::cleanups`]).

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::certificates;
use crate::domain::certificate::Certificate;
use crate::domain::id::IssuerId;
use crate::storage::engine::{
    Columns, Query, Read, StorageError, Tx, fetch, fetch_changed, millis, moment, statements,
};
use crate::storage::queue::lease::{CLAIMED, Dialect, LEASE, Lease, Machine, claim_text};

/// Rows that a pass looks at before it goes from flow to flow.
pub const OLDEST: usize = 256;

/// What shares a limit on concurrency.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Whose rows they are.
    pub machine: Machine,
    /// Whose account they are under; certificates find that out later.
    pub issuer: Option<IssuerId>,
    /// Whose they are.
    pub namespace: String,
}

/// Claims rows of one flow: those whose `columns` are `values`.
///
/// Rows are compared as a whole and in the order of the index: a planner that took the times' own index instead
/// would look at every row of others that has waited longer.
fn claim_of_flow(
    dialect: Dialect,
    table: &str,
    condition: &str,
    (columns, values): (&str, &str),
    returning: Columns,
) -> String {
    let due = |now: &str| {
        format!(
            "{condition}({columns}) >= ({values}) AND ({columns}, next_action_at) <= ({values}, {now})"
        )
    };
    claim_text(dialect, table, due, &format!("{columns}, next_action_at"), returning)
}

fn claim_orders(dialect: Dialect) -> String {
    let condition = "next_action_at IS NOT NULL AND NOT ended AND ";
    claim_of_flow(dialect, "orders", condition, ("issuer_id, namespace", "$6, $5"), CLAIMED)
}

fn claim_certificates(dialect: Dialect) -> String {
    let columns = certificates::Row::COLUMNS;
    claim_of_flow(dialect, "certificates", "", ("namespace", "$5"), columns)
}

statements! {
    OLDEST_ORDERS =
    "SELECT issuer_id, namespace, min(next_action_at) AS due, count(*) AS waiting
     FROM (SELECT issuer_id, namespace, next_action_at FROM orders
           WHERE next_action_at <= $1
             AND NOT ended
           ORDER BY next_action_at LIMIT $2) AS oldest
     GROUP BY issuer_id, namespace ORDER BY due";
    OLDEST_CERTIFICATES =
    "SELECT CAST(NULL AS UUID) AS issuer_id, namespace, min(next_action_at) AS due, count(*) AS waiting
     FROM (SELECT namespace, next_action_at FROM certificates
           WHERE next_action_at <= $1 ORDER BY next_action_at LIMIT $2) AS oldest
     GROUP BY namespace ORDER BY due";

// From flow to flow along the index. Beyond every time of a flow its next one begins; a strict
// comparison of the two columns alone would have SQLite read the whole flow, and one without `|| ''`
// use the first column only.
    EVERY_OF_ORDERS =
    "WITH RECURSIVE flow (issuer_id, namespace) AS (
         SELECT * FROM (SELECT issuer_id, namespace FROM orders WHERE next_action_at IS NOT NULL
                        ORDER BY issuer_id, namespace LIMIT 1) AS first
         UNION ALL
         SELECT (SELECT o.issuer_id FROM orders o WHERE o.next_action_at IS NOT NULL
                   AND (o.issuer_id, o.namespace, o.next_action_at)
                     > (flow.issuer_id, flow.namespace || '', 9223372036854775807)
                 ORDER BY o.issuer_id, o.namespace LIMIT 1),
                (SELECT o.namespace FROM orders o WHERE o.next_action_at IS NOT NULL
                   AND (o.issuer_id, o.namespace, o.next_action_at)
                     > (flow.issuer_id, flow.namespace || '', 9223372036854775807)
                 ORDER BY o.issuer_id, o.namespace LIMIT 1)
         FROM flow WHERE flow.issuer_id IS NOT NULL)
     SELECT issuer_id, namespace,
            (SELECT o.next_action_at FROM orders o WHERE o.next_action_at IS NOT NULL
               AND (o.issuer_id, o.namespace) >= (flow.issuer_id, flow.namespace || '')
             ORDER BY o.issuer_id, o.namespace, o.next_action_at LIMIT 1) AS due,
            CAST(1 AS BIGINT) AS waiting
     FROM flow WHERE issuer_id IS NOT NULL ORDER BY due";
    EVERY_OF_CERTIFICATES =
    "WITH RECURSIVE flow (namespace) AS (
         SELECT (SELECT namespace FROM certificates ORDER BY namespace LIMIT 1)
         UNION ALL
         SELECT (SELECT c.namespace FROM certificates c WHERE c.namespace > flow.namespace
                 ORDER BY c.namespace LIMIT 1)
         FROM flow WHERE flow.namespace IS NOT NULL)
     SELECT CAST(NULL AS UUID) AS issuer_id, namespace,
            (SELECT c.next_action_at FROM certificates c WHERE c.namespace >= flow.namespace
             ORDER BY c.namespace, c.next_action_at LIMIT 1) AS due,
            CAST(1 AS BIGINT) AS waiting
     FROM flow WHERE namespace IS NOT NULL ORDER BY due";
    CLAIM_ORDERS writes(orders) = claim_orders(Dialect::Sqlite), claim_orders(Dialect::Postgres);
    CLAIM_CERTIFICATES writes(certificates) =
        claim_certificates(Dialect::Sqlite), claim_certificates(Dialect::Postgres);
}

#[derive(FromRow)]
struct Row {
    issuer_id: Option<Uuid>,
    namespace: String,
    due: i64,
    waiting: i64,
}

/// Flows with when their earliest row is due.
#[derive(Default)]
pub struct Flows {
    /// The most urgent first.
    pub flows: Vec<(Flow, OffsetDateTime)>,
    /// Whether there may be others.
    pub more: bool,
}

/// The flows of the oldest rows, and all of them. Rows of other machines are few, and in no flow.
fn statements_of(machine: Machine) -> Option<(Query, Query)> {
    match machine {
        Machine::Certificate => Some((*OLDEST_CERTIFICATES, *EVERY_OF_CERTIFICATES)),
        Machine::Order => Some((*OLDEST_ORDERS, *EVERY_OF_ORDERS)),
        Machine::Expiry
        | Machine::Revocation
        | Machine::Issuer
        | Machine::Task
        | Machine::PolicyReview
        | Machine::Delivery => None,
    }
}

/// The flows of the [`OLDEST`] rows that are due.
pub async fn oldest(
    read: &mut Read,
    machine: Machine,
    now: OffsetDateTime,
) -> Result<Flows, StorageError> {
    let Some((statement, _)) = statements_of(machine) else { return Ok(Flows::default()) };
    let limit = i64::try_from(OLDEST).unwrap_or(i64::MAX);
    let rows: Vec<Row> = fetch!(fetch_all, read, statement, millis(now), limit)?;
    let more = rows.iter().map(|row| row.waiting).sum::<i64>() >= limit;
    Ok(Flows { flows: rows.into_iter().map(|row| row.flow(machine)).collect(), more })
}

/// Every flow in which something waits, be it for a later time.
pub async fn every(read: &mut Read, machine: Machine) -> Result<Flows, StorageError> {
    let Some((_, statement)) = statements_of(machine) else { return Ok(Flows::default()) };
    let rows: Vec<Row> = fetch!(fetch_all, read, statement)?;
    Ok(Flows { flows: rows.into_iter().map(|row| row.flow(machine)).collect(), more: false })
}

/// A row that was claimed.
#[derive(Debug)]
pub struct Claimed {
    pub lease: Lease,
    /// What it says: of certificates only, and of those that can be read.
    pub certificate: Option<Box<Certificate>>,
}

/// Like [`crate::storage::lease::claim`], in one flow. Certificates come with their rows, so that nobody has to ask for
/// each of them.
pub async fn claim(
    tx: &mut Tx,
    flow: &Flow,
    owner: &str,
    now: OffsetDateTime,
    limit: usize,
) -> Result<Vec<Claimed>, StorageError> {
    let (from, until) = (millis(now), millis(now + LEASE));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let namespace = flow.namespace.as_str();
    let machine = flow.machine;
    if let Some(issuer) = flow.issuer {
        let rows: Vec<(Uuid, i64)> = fetch_changed!(
            fetch_all,
            tx,
            CLAIM_ORDERS,
            from,
            until,
            owner,
            limit,
            namespace,
            issuer.0
        )?;
        let lease = |(id, token)| Lease { machine, id, token };
        let claimed = |row| Claimed { lease: lease(row), certificate: None };
        return Ok(rows.into_iter().map(claimed).collect());
    }
    let rows: Vec<certificates::Row> =
        fetch_changed!(fetch_all, tx, CLAIM_CERTIFICATES, from, until, owner, limit, namespace)?;
    Ok(rows.into_iter().map(certificates::Row::into_claimed).collect())
}

impl Row {
    fn flow(self, machine: Machine) -> (Flow, OffsetDateTime) {
        let issuer = self.issuer_id.map(IssuerId);
        (Flow { machine, issuer, namespace: self.namespace }, moment(self.due))
    }
}
