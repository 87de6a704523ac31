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
    /// Certificates to be revoked.
    Revocation,
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
machine!(CLAIM_REVOCATIONS, EXTEND_REVOCATION, "revocations");

const NEXT_DUE: Statement = Statement::both(
    "lease::NEXT_DUE",
    "SELECT (SELECT min(next_action_at) FROM issuers WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM certificates),
            (SELECT min(next_action_at) FROM orders WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM revocations WHERE next_action_at IS NOT NULL)",
);

pub(super) const ALL: &[Statement] = &[
    CLAIM_ISSUERS,
    EXTEND_ISSUER,
    CLAIM_CERTIFICATES,
    EXTEND_CERTIFICATE,
    CLAIM_ORDERS,
    EXTEND_ORDER,
    CLAIM_REVOCATIONS,
    EXTEND_REVOCATION,
    NEXT_DUE,
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
        Machine::Revocation => CLAIM_REVOCATIONS,
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
        Machine::Revocation => EXTEND_REVOCATION,
    };
    let changed = execute!(tx, statement, lease.id, lease.token, millis(now + LEASE))?;
    held(lease, changed)
}

/// When each machine's next row is due, and so when to look again.
pub async fn next_due(tx: &mut Tx) -> Result<Vec<(Machine, OffsetDateTime)>, StorageError> {
    type At = Option<i64>;
    let (issuers, certificates, orders, revocations): (At, At, At, At) =
        fetch!(fetch_one, tx, NEXT_DUE)?;
    Ok([
        (Machine::Order, orders),
        (Machine::Revocation, revocations),
        (Machine::Certificate, certificates),
        (Machine::Issuer, issuers),
    ]
    .into_iter()
    .filter_map(|(machine, at)| at.map(|at| (machine, moment(at))))
    .collect())
}

/// Whether a fenced write found its row.
pub(super) fn held(lease: &Lease, changed: u64) -> Result<(), StorageError> {
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(lease.id)) }
}
