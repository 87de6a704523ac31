//! Who works on which row, and proof of it.
//!
//! A claimed row's `next_action_at` is when the lease runs out: a worker that dies needs nobody to
//! notice. The fencing token is raised by every claim and by every write from outside, so that a
//! worker that lost its lease, or missed a client's change, cannot write over it.

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Statement, StorageError, Tx, execute, fetch, millis, moment};

/// Proof that this worker, and no other, may settle a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose row it is.
    pub machine: Machine,
    /// The row.
    pub id: Uuid,
    pub(super) token: i64,
}

/// The tables whose rows want attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// Accounts to be registered.
    Issuer,
    /// Certificates to be issued or renewed.
    Certificate,
    /// Orders to be carried through.
    Order,
    /// Watches over what is served.
    Expiry,
    /// Webhooks with something to be delivered.
    Delivery,
}

/// Longer than any one step may take; a crash costs at most this.
pub const LEASE: Duration = Duration::minutes(2);

macro_rules! machine {
    ($claim:ident, $extend:ident, $table:literal) => {
        const $claim: Statement = Statement {
            name: concat!("lease::", stringify!($claim)),
    sqlite: machine!(@claim $table, ""),
    postgres: machine!(@claim $table, "FOR UPDATE SKIP LOCKED"),
        };
        const $extend: Statement = Statement::both(
            concat!("lease::", stringify!($extend)),
            concat!(
                "UPDATE ",
                $table,
                " SET next_action_at = $3 WHERE id = $1 AND lease_token = $2"
            ),
        );
    };
    // MATERIALIZED: a planner that ran the subquery twice would claim more than asked for.
    (@claim $table:literal, $lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
                 SELECT id FROM ",
            $table,
            " WHERE next_action_at <= $1
                 ORDER BY next_action_at LIMIT $4 ",
            $lock,
            ")
             UPDATE ",
            $table,
            " SET next_action_at = $2, leased_by = $3, lease_token = lease_token + 1
             FROM due WHERE ",
            $table,
            ".id = due.id
             RETURNING ",
            $table,
            ".id, ",
            $table,
            ".lease_token"
        )
    };
}

machine!(CLAIM_ISSUERS, EXTEND_ISSUER, "issuers");
machine!(CLAIM_CERTIFICATES, EXTEND_CERTIFICATE, "certificates");
machine!(CLAIM_ORDERS, EXTEND_ORDER, "orders");
machine!(CLAIM_EXPIRIES, EXTEND_EXPIRY, "expiry_watches");
machine!(CLAIM_WEBHOOKS, EXTEND_WEBHOOK, "webhooks");

const NEXT_DUE: Statement = Statement::both(
    "lease::NEXT_DUE",
    "SELECT (SELECT min(next_action_at) FROM issuers WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM certificates),
            (SELECT min(next_action_at) FROM orders WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM expiry_watches WHERE next_action_at IS NOT NULL)",
);

const NEXT_DELIVERY: Statement = Statement::both(
    "lease::NEXT_DELIVERY",
    "SELECT min(next_action_at) FROM webhooks WHERE next_action_at IS NOT NULL",
);

pub(super) const ALL: &[Statement] = &[
    CLAIM_ISSUERS,
    EXTEND_ISSUER,
    CLAIM_CERTIFICATES,
    EXTEND_CERTIFICATE,
    CLAIM_ORDERS,
    EXTEND_ORDER,
    CLAIM_EXPIRIES,
    EXTEND_EXPIRY,
    NEXT_DUE,
    CLAIM_WEBHOOKS,
    EXTEND_WEBHOOK,
    NEXT_DELIVERY,
];

#[derive(FromRow)]
struct Claimed {
    id: Uuid,
    lease_token: i64,
}

/// Takes up to `limit` rows that are due, those that have waited longest first.
pub async fn claim(
    tx: &mut Tx,
    machine: Machine,
    owner: &str,
    now: OffsetDateTime,
    limit: usize,
) -> Result<Vec<Lease>, StorageError> {
    let statement = match machine {
        Machine::Issuer => CLAIM_ISSUERS,
        Machine::Certificate => CLAIM_CERTIFICATES,
        Machine::Order => CLAIM_ORDERS,
        Machine::Expiry => CLAIM_EXPIRIES,
        Machine::Delivery => CLAIM_WEBHOOKS,
    };
    let rows: Vec<Claimed> = fetch!(
        fetch_all,
        tx,
        statement,
        millis(now),
        millis(now + LEASE),
        owner,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?;
    Ok(rows.into_iter().map(|row| Lease { machine, id: row.id, token: row.lease_token }).collect())
}

/// Keeps the lease for another [`LEASE`], before a step that may take long.
pub async fn extend(tx: &mut Tx, lease: &Lease, now: OffsetDateTime) -> Result<(), StorageError> {
    let statement = match lease.machine {
        Machine::Issuer => EXTEND_ISSUER,
        Machine::Certificate => EXTEND_CERTIFICATE,
        Machine::Order => EXTEND_ORDER,
        Machine::Expiry => EXTEND_EXPIRY,
        Machine::Delivery => EXTEND_WEBHOOK,
    };
    let changed = execute!(tx, statement, lease.id, lease.token, millis(now + LEASE))?;
    held(lease, changed)
}

/// When each machine's next row is due, and so when to look again.
pub async fn next_due(tx: &mut Tx) -> Result<Vec<(Machine, OffsetDateTime)>, StorageError> {
    type Moments = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    let (issuers, certificates, orders, expiries): Moments = fetch!(fetch_one, tx, NEXT_DUE)?;
    Ok([
        (Machine::Expiry, expiries),
        (Machine::Order, orders),
        (Machine::Certificate, certificates),
        (Machine::Issuer, issuers),
    ]
    .into_iter()
    .filter_map(|(machine, at)| at.map(|at| (machine, moment(at))))
    .collect())
}

/// When the next webhook wants attention. Deliveries have workers of their own, and so a look of
/// their own.
pub async fn next_delivery_due(tx: &mut Tx) -> Result<Option<OffsetDateTime>, StorageError> {
    let (at,): (Option<i64>,) = fetch!(fetch_one, tx, NEXT_DELIVERY)?;
    Ok(at.map(moment))
}

/// Whether a fenced write found its row.
pub(super) fn held(lease: &Lease, changed: u64) -> Result<(), StorageError> {
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(lease.id)) }
}
