//! Who works on which row, and proof of it.
//!
//! A claimed row's `next_action_at` is when the lease runs out: a worker that dies needs nobody to
//! notice. The fencing token is raised by every claim and by every write from outside, so that a
//! worker that lost its lease, or missed a client's change, cannot write over it.
//!
//! On PostgreSQL leases are judged by the database's clock, whatever the workers' clocks say: two
//! replicas an hour apart do not take each other's work. On SQLite the process's clock is the only one.

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::storage::engine::{
    Change, Listed, Query, Read, Statement, StorageError, Touch, Tx, execute, fetch, fetch_changed,
    millis, moment, statements,
};

/// Proof that this worker, and no other, may settle a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose row it is.
    pub machine: Machine,
    /// The row.
    pub id: Uuid,
    pub(in crate::storage) token: i64,
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
    /// Certificates to be revoked.
    Revocation,
    /// What has to be done now and then.
    Task,
    /// Namespaces whose certificates are judged anew.
    PolicyReview,
    /// Webhooks with something to be delivered.
    Delivery,
}

impl Machine {
    const ALL: [Self; 8] = [
        Self::Expiry,
        Self::Order,
        Self::Revocation,
        Self::Certificate,
        Self::Issuer,
        Self::Task,
        Self::PolicyReview,
        Self::Delivery,
    ];
}

/// Longer than any one step may take. Work that nobody notices to be abandoned, such as that of a
/// task that hangs, is taken up again after this long; that of a dead process much sooner
/// ([`super::heartbeat`]).
pub const LEASE: Duration = Duration::minutes(2);

const _: () = assert!(LEASE.whole_milliseconds() == 120_000, "the statements have it as a literal");

/// The time by the database's clock, where that is not the caller's: `$given` is the caller's time.
macro_rules! database_time {
    ($given:literal) => {
        concat!(
            "coalesce(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, ",
            $given,
            ")"
        )
    };
}
/// When a lease ends that begins now; `$given` is that moment by the caller's clock.
macro_rules! lease_end {
    ($given:literal) => {
        concat!(
            "coalesce(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint + 120000, ",
            $given,
            ")"
        )
    };
}

/// The statements by which rows of a table are worked on. Such a table has the columns `id`, `next_action_at`,
/// `leased_by` and `lease_token`.
struct Queue {
    claim: Change,
    extend: Change,
    release: Change,
    give_back: Change,
    holder: Query,
}

impl Queue {
    const fn listed(&self) -> [Listed; 5] {
        [
            self.claim.listed(),
            self.extend.listed(),
            self.release.listed(),
            self.give_back.listed(),
            self.holder.listed(),
        ]
    }
}

/// Claims rows of a table, in an order. `$due` and `$rest` are the condition before and after the present time.
macro_rules! claim_text {
    (sqlite $table:literal, $due:expr, $rest:literal, $order:expr) => {
        claim_text!(@text $table, concat!($due, "$1", $rest), $order, "$2", "")
    };
    // A row that nobody holds is due by the time of whoever scheduled it. Whether a lease has run out, the
    // database knows. The sub-select makes the volatile time one value, by which the index can be searched.
    (postgres $table:literal, $due:expr, $rest:literal, $order:expr) => {
        claim_text!(
            @text $table,
            concat!(
                $due, "(SELECT greatest($1, ", database_time!("$1"), "))", $rest,
                " AND next_action_at <= CASE WHEN leased_by IS NULL THEN $1 ELSE ", database_time!("$1"), " END"
            ),
            $order,
            lease_end!("$2"),
            "FOR UPDATE SKIP LOCKED"
        )
    };
    // MATERIALIZED: a planner that ran the subquery twice would claim more than asked for.
    (@text $table:literal, $due:expr, $order:expr, $end:expr, $lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (SELECT id FROM ",
            $table,
            " WHERE ",
            $due,
            "
                 ORDER BY ",
            $order,
            " LIMIT $4 ",
            $lock,
            ")
             UPDATE ",
            $table,
            " SET next_action_at = ",
            $end,
            ", leased_by = $3,
                 lease_token = lease_token + 1
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
pub(in crate::storage) use {claim_text, database_time, lease_end};

macro_rules! extend {
    ($table:literal, $end:expr) => {
        concat!(
            "UPDATE ",
            $table,
            " SET next_action_at = ",
            $end,
            " WHERE id = $1 AND lease_token = $2"
        )
    };
}

macro_rules! queue {
    ($table:literal) => {
        Queue {
            claim: Change::new(
                Statement {
                    name: concat!("lease::claim ", $table),
                    sqlite: claim_text!(sqlite $table, "next_action_at <= ", "", "next_action_at"),
                    postgres: claim_text!(postgres $table, "next_action_at <= ", "", "next_action_at"),
                },
                &[Touch::Writes(&[$table])],
            ),
            extend: Change::new(
                Statement {
                    name: concat!("lease::extend ", $table),
                    sqlite: extend!($table, "$3"),
                    postgres: extend!($table, lease_end!("$3")),
                },
                &[Touch::Writes(&[$table])],
            ),
            release: Change::new(
                Statement::both(
                    concat!("lease::release ", $table),
                    concat!(
                        "UPDATE ", $table, " SET next_action_at = $3, leased_by = NULL,
                             lease_token = lease_token + 1
                         WHERE id = $1 AND leased_by = $2"
                    ),
                ),
                &[Touch::Writes(&[$table])],
            ),
            // Held rows end their lease within LEASE from now: so few that the index finds them.
            give_back: Change::new(
                Statement::both(
                    concat!("lease::give_back ", $table),
                    concat!(
                        "UPDATE ", $table, " SET next_action_at = $2, leased_by = NULL,
                             lease_token = lease_token + 1
                         WHERE leased_by IS NOT NULL AND ($1 = '' OR leased_by = $1)
                           AND next_action_at <= $3"
                    ),
                ),
                &[Touch::Writes(&[$table])],
            ),
            holder: Query(Statement::both(
                concat!("lease::holder ", $table),
                concat!("SELECT leased_by, lease_token FROM ", $table, " WHERE id = $1"),
            )),
        }
    };
}

static ISSUERS: Queue = queue!("issuers");
static CERTIFICATES: Queue = queue!("certificates");
static ORDERS: Queue = queue!("orders");
static EXPIRY_WATCHES: Queue = queue!("expiry_watches");
static REVOCATIONS: Queue = queue!("revocations");
static TASKS: Queue = queue!("tasks");
static POLICY_REVIEWS: Queue = queue!("policy_reviews");
static WEBHOOKS: Queue = queue!("webhooks");

impl Machine {
    fn queue(self) -> &'static Queue {
        match self {
            Self::Issuer => &ISSUERS,
            Self::Certificate => &CERTIFICATES,
            Self::Order => &ORDERS,
            Self::Expiry => &EXPIRY_WATCHES,
            Self::Revocation => &REVOCATIONS,
            Self::Task => &TASKS,
            Self::PolicyReview => &POLICY_REVIEWS,
            Self::Delivery => &WEBHOOKS,
        }
    }
}

statements! {
    NEXT_DUE = "SELECT (SELECT min(next_action_at) FROM issuers WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM certificates),
            (SELECT min(next_action_at) FROM orders WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM expiry_watches WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM tasks),
            (SELECT min(next_action_at) FROM policy_reviews),
            (SELECT min(next_action_at) FROM revocations WHERE next_action_at IS NOT NULL),
            (SELECT min(next_action_at) FROM orders WHERE next_action_at IS NOT NULL AND ended)";
    NEXT_DELIVERY = "SELECT min(next_action_at) FROM webhooks WHERE next_action_at IS NOT NULL";
}

/// The statements of each queue.
pub(in crate::storage) fn of_queues() -> Vec<Listed> {
    Machine::ALL.iter().flat_map(|machine| machine.queue().listed()).collect()
}

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
    let rows: Vec<Claimed> = fetch_changed!(
        fetch_all,
        tx,
        machine.queue().claim,
        millis(now),
        millis(now + LEASE),
        owner,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?;
    Ok(rows.into_iter().map(|row| Lease { machine, id: row.id, token: row.lease_token }).collect())
}

/// Keeps the lease for another [`LEASE`], before a step that may take long.
pub async fn extend(tx: &mut Tx, lease: &Lease, now: OffsetDateTime) -> Result<(), StorageError> {
    let changed =
        execute!(tx, lease.machine.queue().extend, lease.id, lease.token, millis(now + LEASE))?;
    held(lease, changed)
}

/// Lets go of a row that `owner` holds, so that it is taken up again at `now`, or at another time.
pub async fn release(
    tx: &mut Tx,
    machine: Machine,
    id: Uuid,
    owner: &str,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, machine.queue().release, id, owner, millis(now))?;
    wake(tx, machine);
    Ok(())
}

/// Makes everything due at once that `owner` holds, or, with `None`, that anybody holds; says how
/// many rows that were. Should the owner still live, its results are void.
pub async fn give_back(
    tx: &mut Tx,
    owner: Option<&str>,
    now: OffsetDateTime,
) -> Result<u64, StorageError> {
    let mut rows = 0;
    for machine in Machine::ALL {
        let owner = owner.unwrap_or_default();
        // Twice a lease: its owner's clock may have been a little ahead.
        let held = execute!(
            tx,
            machine.queue().give_back,
            owner,
            millis(now),
            millis(now + LEASE + LEASE)
        )?;
        if held > 0 {
            wake(tx, machine);
        }
        rows += held;
    }
    Ok(rows)
}

/// Deliveries have workers of their own.
fn wake(tx: &mut Tx, machine: Machine) {
    match machine {
        Machine::Delivery => tx.wake_deliverers(),
        _ => tx.wake_workers(),
    }
}

/// The lease that `owner` has on an order after the write that followed `lease`, if that write
/// came through: for whoever did not hear the answer to a commit.
pub async fn after_unheard_commit(
    read: &mut Read,
    lease: &Lease,
    owner: &str,
) -> Result<Option<Lease>, StorageError> {
    let found: Option<(Option<String>, i64)> =
        fetch!(fetch_optional, read, ORDERS.holder, lease.id)?;
    let next = Lease { token: lease.token + 1, ..*lease };
    Ok(found
        .filter(|(holder, token)| holder.as_deref() == Some(owner) && *token == next.token)
        .map(|_| next))
}

/// The lease that `owner` has on a row as it is now, if it still has one.
pub async fn held_by(
    read: &mut Read,
    machine: Machine,
    id: Uuid,
    owner: &str,
) -> Result<Option<Lease>, StorageError> {
    let found: Option<(Option<String>, i64)> =
        fetch!(fetch_optional, read, machine.queue().holder, id)?;
    let ours = found.filter(|(holder, _)| holder.as_deref() == Some(owner));
    Ok(ours.map(|(_, token)| Lease { machine, id, token }))
}

/// When there is something to do.
#[derive(Debug)]
pub struct Due {
    /// When each machine's next row is due.
    pub rows: Vec<(Machine, OffsetDateTime)>,
    /// When the next order is due that is over ([`crate::storage::tables::cleanups`]).
    pub clean_ups: Option<OffsetDateTime>,
}

/// When each machine's next row is due, and so when to look again.
pub async fn next_due(read: &mut Read) -> Result<Due, StorageError> {
    type At = Option<i64>;
    let (issuers, certificates, orders, expiries, tasks, reviews, revocations, clean_ups): (
        At,
        At,
        At,
        At,
        At,
        At,
        At,
        At,
    ) = fetch!(fetch_one, read, NEXT_DUE)?;
    let rows = [
        (Machine::Expiry, expiries),
        (Machine::Order, orders),
        (Machine::Revocation, revocations),
        (Machine::Certificate, certificates),
        (Machine::Issuer, issuers),
        (Machine::Task, tasks),
        (Machine::PolicyReview, reviews),
    ]
    .into_iter()
    .filter_map(|(machine, at)| at.map(|at| (machine, moment(at))))
    .collect();
    Ok(Due { rows, clean_ups: clean_ups.map(moment) })
}

/// When the next webhook wants attention. Deliveries have workers of their own, and so a look of
/// their own.
pub async fn next_delivery_due(read: &mut Read) -> Result<Option<OffsetDateTime>, StorageError> {
    let (at,): (Option<i64>,) = fetch!(fetch_one, read, NEXT_DELIVERY)?;
    Ok(at.map(moment))
}

/// Whether a fenced write found its row.
pub(in crate::storage) fn held(lease: &Lease, changed: u64) -> Result<(), StorageError> {
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(lease.id)) }
}
