//! Who works on which row, and proof of it.
//!
//! A claimed row's `next_action_at` is when the lease runs out: a worker that dies needs nobody to
//! notice. The fencing token is raised by every claim and by every write from outside, so that a
//! worker that lost its lease, or missed a client's change, cannot write over it.
//!
//! On PostgreSQL leases are judged by the database's clock, whatever the workers' clocks say: two
//! replicas an hour apart do not take each other's work. On SQLite the process's clock is the only one.

use std::sync::LazyLock;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::storage::engine::{
    Change, Columns, Listed, Query, Read, Statement, StorageError, Tx, execute, fetch,
    fetch_changed, millis, moment, statements,
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
    /// Watches over what is served.
    Expiry,
    /// Orders to be carried through.
    Order,
    /// Certificates to be revoked.
    Revocation,
    /// Certificates to be issued or renewed.
    Certificate,
    /// Accounts to be registered.
    Issuer,
    /// What has to be done now and then.
    Task,
    /// Namespaces whose certificates are judged anew.
    PolicyReview,
    /// Webhooks with something to be delivered.
    Delivery,
}

impl Machine {
    /// In the order of the declaration, in which few rows are claimed before many.
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

    fn table(self) -> &'static str {
        match self {
            Self::Expiry => "expiry_watches",
            Self::Order => "orders",
            Self::Revocation => "revocations",
            Self::Certificate => "certificates",
            Self::Issuer => "issuers",
            Self::Task => "tasks",
            Self::PolicyReview => "policy_reviews",
            Self::Delivery => "webhooks",
        }
    }

    fn queue(self) -> &'static Queue {
        static QUEUES: LazyLock<[Queue; 8]> =
            LazyLock::new(|| Machine::ALL.map(|machine| Queue::of(machine.table())));
        &QUEUES[self as usize]
    }
}

/// Longer than any one step may take. Work that nobody notices to be abandoned, such as that of a
/// task that hangs, is taken up again after this long; that of a dead process much sooner
/// ([`super::heartbeat`]).
pub const LEASE: Duration = Duration::minutes(2);

/// The time by the database's clock, where that is not the caller's: `given` is the caller's time.
pub(in crate::storage) fn database_time(given: &str) -> String {
    format!("coalesce(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, {given})")
}

/// When a lease ends that begins now; `given` is that moment by the caller's clock.
pub(in crate::storage) fn lease_end(given: &str) -> String {
    let lease = LEASE.whole_milliseconds();
    format!(
        "coalesce(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint + {lease}, {given})"
    )
}

/// Whose clock judges leases.
#[derive(Clone, Copy)]
pub(in crate::storage) enum Dialect {
    Sqlite,
    Postgres,
}

/// Claims rows of a table, in an order. `due` is the condition by the present time that it is given.
pub(in crate::storage) fn claim_text(
    dialect: Dialect,
    table: &str,
    due: impl Fn(&str) -> String,
    order: &str,
    returning: Columns,
) -> String {
    let (due, end, lock) = match dialect {
        Dialect::Sqlite => (due("$1"), "$2".to_owned(), ""),
        // A row that nobody holds is due by the time of whoever scheduled it. Whether a lease has run out, the
        // database knows. The sub-select makes the volatile time one value, by which the index can be searched.
        Dialect::Postgres => {
            let now = database_time("$1");
            let due = due(&format!("(SELECT greatest($1, {now}))"));
            let held = format!("CASE WHEN leased_by IS NULL THEN $1 ELSE {now} END");
            (
                format!("{due} AND next_action_at <= {held}"),
                lease_end("$2"),
                "FOR UPDATE SKIP LOCKED",
            )
        }
    };
    // MATERIALIZED: a planner that ran the subquery twice would claim more than asked for.
    format!(
        "WITH due AS MATERIALIZED (SELECT id FROM {table} WHERE {due}
             ORDER BY {order} LIMIT $4 {lock})
         UPDATE {table} SET next_action_at = {end}, leased_by = $3, lease_token = lease_token + 1
         FROM due WHERE {table}.id = due.id
         RETURNING {}",
        returning.names_of(table)
    )
}

/// What a claim returns of a row to make a [`Lease`].
pub(in crate::storage) const CLAIMED: Columns = Columns(&["id", "lease_token"]);

/// The statements by which rows of a table are worked on. Such a table has the columns `id`, `next_action_at`,
/// `leased_by` and `lease_token`.
struct Queue {
    claim: Change,
    extend: Change,
    release: Change,
    give_back: Change,
    holder: Query,
    next: Query,
}

impl Queue {
    fn of(table: &'static str) -> Self {
        let name = |statement: &str| format!("lease::{statement} {table}");
        let change = |statement: &str, text: String| {
            Change::of(table, Statement::both(name(statement), text))
        };
        let claim = |dialect| {
            let due = |now: &str| format!("next_action_at <= {now}");
            claim_text(dialect, table, due, "next_action_at", CLAIMED)
        };
        let extend = |end: &str| {
            format!("UPDATE {table} SET next_action_at = {end} WHERE id = $1 AND lease_token = $2")
        };
        let let_go = "leased_by = NULL, lease_token = lease_token + 1";
        Self {
            claim: Change::of(
                table,
                Statement::each(name("claim"), claim(Dialect::Sqlite), claim(Dialect::Postgres)),
            ),
            extend: Change::of(
                table,
                Statement::each(name("extend"), extend("$3"), extend(&lease_end("$3"))),
            ),
            release: change(
                "release",
                format!(
                    "UPDATE {table} SET next_action_at = $3, {let_go}
                     WHERE id = $1 AND leased_by = $2"
                ),
            ),
            // Held rows end their lease within LEASE from now, unless the clock was set: so few that the index finds
            // them.
            give_back: change(
                "give_back",
                format!(
                    "UPDATE {table} SET next_action_at = $2, {let_go}
                     WHERE leased_by IS NOT NULL AND ($1 = '' OR leased_by = $1)
                       AND next_action_at <= $3"
                ),
            ),
            holder: Query(Statement::both(
                name("holder"),
                format!("SELECT leased_by, lease_token FROM {table} WHERE id = $1"),
            )),
            next: Query(Statement::both(name("next"), next_text(table))),
        }
    }

    fn listed(&self) -> [Listed; 6] {
        let Self { claim, extend, release, give_back, holder, next } = self;
        let changes = [claim, extend, release, give_back].map(|change| change.listed());
        let [claim, extend, release, give_back] = changes;
        [claim, extend, release, give_back, holder.listed(), next.listed()]
    }
}

fn next_text(table: &str) -> String {
    format!("SELECT min(next_action_at) FROM {table} WHERE next_action_at IS NOT NULL")
}

/// When the next row of each machine is due, but for deliveries.
fn next_due_text() -> String {
    let machines = Machine::ALL.into_iter().filter(|machine| *machine != Machine::Delivery);
    let each = machines.map(|machine| {
        let (place, next) = (machine as usize, next_text(machine.table()));
        format!("SELECT CAST({place} AS BIGINT), ({next})")
    });
    each.collect::<Vec<_>>().join(" UNION ALL ")
}

statements! {
    NEXT_DUE = next_due_text();
}

/// The statements of each queue.
pub(in crate::storage) fn of_queues() -> Vec<Listed> {
    Machine::ALL.iter().flat_map(|machine| machine.queue().listed()).collect()
}

/// Takes up to `limit` rows that are due, those that have waited longest first.
pub async fn claim(
    tx: &mut Tx,
    machine: Machine,
    owner: &str,
    now: OffsetDateTime,
    limit: usize,
) -> Result<Vec<Lease>, StorageError> {
    let rows: Vec<(Uuid, i64)> = fetch_changed!(
        fetch_all,
        tx,
        machine.queue().claim,
        millis(now),
        millis(now + LEASE),
        owner,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?;
    Ok(rows.into_iter().map(|(id, token)| Lease { machine, id, token }).collect())
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
    // Twice a lease: its owner's clock may have been a little ahead. That of a former run may have been anywhere.
    let latest = owner.map_or(i64::MAX, |_| millis(now + LEASE + LEASE));
    let mut rows = 0;
    for machine in Machine::ALL {
        let owner = owner.unwrap_or_default();
        let held = execute!(tx, machine.queue().give_back, owner, millis(now), latest)?;
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
        fetch!(fetch_optional, read, Machine::Order.queue().holder, lease.id)?;
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

/// When each machine's next row is due, and so when to look again.
pub async fn next_due(read: &mut Read) -> Result<Vec<(Machine, OffsetDateTime)>, StorageError> {
    let rows: Vec<(i64, Option<i64>)> = fetch!(fetch_all, read, NEXT_DUE)?;
    let due = |machine: Machine| {
        let (_, at) = rows.iter().find(|(place, _)| *place == machine as i64)?;
        Some((machine, moment((*at)?)))
    };
    Ok(Machine::ALL.into_iter().filter_map(due).collect())
}

/// When the next webhook wants attention. Deliveries have workers of their own, and so a look of
/// their own.
pub async fn next_delivery_due(read: &mut Read) -> Result<Option<OffsetDateTime>, StorageError> {
    let next = &Machine::Delivery.queue().next;
    let (at,): (Option<i64>,) = fetch!(fetch_one, read, *next)?;
    Ok(at.map(moment))
}

/// Whether a fenced write found its row.
pub(in crate::storage) fn held(lease: &Lease, changed: u64) -> Result<(), StorageError> {
    if changed == 1 { Ok(()) } else { Err(StorageError::LeaseLost(lease.id)) }
}
