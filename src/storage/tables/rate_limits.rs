//! What was spent of a CA's limits, what orders have reserved of them, and who waits for more.
//!
//! A budget is one row with one moment (the generic cell rate algorithm): spending moves it on, time
//! catches up with it. One statement decides and spends, so that replicas cannot spend the same.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};

use crate::domain::challenge;
use crate::domain::id::OrderId;
use crate::domain::issuer::Issuer;
use crate::domain::limits::{Limit, LimitsSpec, Rate};
use crate::domain::order::{End, Order, State};
use crate::domain::throttle::Scope;
use crate::storage::engine::{
    Read, StorageError, Stored, Tx, execute, fetch, fetch_changed, json, millis, moment,
    statements, write,
};

statements! {
    SWEEP writes(budgets) = "DELETE FROM budgets WHERE key IN
             (SELECT key FROM budgets WHERE spent_until <= $1 ORDER BY spent_until LIMIT 20)",
        "DELETE FROM budgets WHERE key IN
               (SELECT key FROM budgets WHERE spent_until <= $1 ORDER BY spent_until LIMIT 20
                FOR UPDATE SKIP LOCKED)";
    // No spending goes beyond $7: what does was written by a clock that was ahead, and says nothing.
    SPEND writes(budgets) = "INSERT INTO budgets (key, pool, spent_until) VALUES ($1, $2, $3)
        ON CONFLICT (key) DO UPDATE SET spent_until =
            (CASE WHEN budgets.spent_until BETWEEN $4 AND $7 THEN budgets.spent_until ELSE $4 END) + $5
        WHERE (CASE WHEN budgets.spent_until BETWEEN $4 AND $7 THEN budgets.spent_until ELSE $4 END) + $5 <= $6";
    SPENT = "SELECT spent_until FROM budgets WHERE key = $1";
    FULLEST = "SELECT max(spent_until) FROM budgets WHERE pool = $1";
    GIVE_BACK writes(budgets) = "UPDATE budgets SET spent_until = spent_until - $2 WHERE key = $1";
    GRANTED = "SELECT granted FROM reservations WHERE order_id = $1";
    PUT writes(reservations) = "INSERT INTO reservations (order_id, pool, priority, granted, costs)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (order_id) DO UPDATE SET
            pool = excluded.pool, priority = excluded.priority, granted = excluded.granted,
            costs = excluded.costs";
    AHEAD = "SELECT count(*) FROM (SELECT 1 AS one FROM reservations
        WHERE pool = $1 AND NOT granted AND priority < $2 AND order_id <> $3
        ORDER BY priority LIMIT 1000) AS ahead";
    LEAVE writes(reservations) = "DELETE FROM reservations WHERE order_id = $1 AND NOT granted";
    FORGET writes(reservations) = "DELETE FROM reservations WHERE order_id = $1";
    RELEASE writes(reservations) = "DELETE FROM reservations WHERE order_id = $1 RETURNING granted, costs";
}

/// One of what a limit counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// The budget that it comes from.
    pub key: String,
    /// The budgets that are shown together.
    pub pool: String,
    /// The limit.
    pub rate: Rate,
}

/// What a new order needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Budgets that must have room, and are spent only when something fails.
    pub room: Vec<Cost>,
    /// One of the account's new orders.
    pub order: Option<Cost>,
    /// One certificate, wherever it is counted; ordered by key.
    pub certificates: Vec<Cost>,
    /// The least goes first.
    pub priority: i64,
}

/// Whether a new order may go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// It may; what it takes is taken.
    Granted,
    /// Not before this moment, because of the budget of this key.
    Wait {
        /// When to look again.
        until: OffsetDateTime,
        /// What is used up.
        key: String,
    },
}

/// What was taken for an order, and can be given back.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    key: String,
    millis: i64,
    /// Spent when the CA takes the order; else when it signs the certificate.
    by_order: bool,
}

/// Takes what a new order needs from all its budgets, or nothing and says how long to wait.
///
/// To be committed before the CA is asked. Asking again for the same order takes nothing more.
/// Orders that wait for the account's budget queue by priority; each comes back at about the time
/// that it would be its turn.
pub async fn reserve(
    tx: &mut Tx,
    order: OrderId,
    claim: &Claim,
    now: OffsetDateTime,
) -> Result<Reserved, StorageError> {
    let known: Option<(bool,)> = fetch!(fetch_optional, tx, GRANTED, order.0)?;
    if known == Some((true,)) {
        return Ok(Reserved::Granted);
    }
    for cost in claim.room.iter().chain(&claim.certificates) {
        if let Some(until) = full(tx, cost, now).await? {
            leave(tx, order).await?;
            return Ok(Reserved::Wait { until, key: cost.key.clone() });
        }
    }
    let mut taken = Vec::new();
    if let Some(cost) = &claim.order {
        let (ahead,): (i64,) =
            fetch!(fetch_one, tx, AHEAD, cost.pool.as_str(), claim.priority, order.0)?;
        if ahead > 0 || !spend(tx, cost, now).await? {
            let free = full(tx, cost, now).await?.unwrap_or(now);
            let until = free + cost.rate.interval * i32::try_from(ahead).unwrap_or(i32::MAX);
            let (pool, priority) = (cost.pool.as_str(), claim.priority);
            execute!(tx, PUT, order.0, pool, priority, false, "[]")?;
            return Ok(Reserved::Wait { until, key: cost.key.clone() });
        }
        taken.push(Taken::of(cost, true));
    }
    for cost in &claim.certificates {
        if !spend(tx, cost, now).await? {
            // Somebody was quicker.
            give_back(tx, &taken, |_| true).await?;
            leave(tx, order).await?;
            let until = full(tx, cost, now).await?.unwrap_or(now + cost.rate.interval);
            return Ok(Reserved::Wait { until, key: cost.key.clone() });
        }
        taken.push(Taken::of(cost, false));
    }
    let pool = claim.order.as_ref().map_or("", |cost| &cost.pool);
    execute!(tx, PUT, order.0, pool, claim.priority, true, json(&taken))?;
    execute!(tx, SWEEP, millis(now))?;
    Ok(Reserved::Granted)
}

/// Gives up an order's place among those who wait.
pub async fn leave(tx: &mut Tx, order: OrderId) -> Result<(), StorageError> {
    execute!(tx, LEAVE, order.0)?;
    Ok(())
}

/// Spends one, if there is one; says whether there was.
pub async fn spend(tx: &mut Tx, cost: &Cost, now: OffsetDateTime) -> Result<bool, StorageError> {
    let Rate { interval, window } = cost.rate;
    let changed = execute!(
        tx,
        SPEND,
        cost.key.as_str(),
        cost.pool.as_str(),
        millis(now + interval),
        millis(now),
        span(interval),
        millis(now + window),
        millis(now + cost.rate.farthest()),
    )?;
    Ok(changed == 1)
}

/// Until when the fullest budget of a pool takes to be earned again, if anything of it is spent.
pub async fn fullest(read: &mut Read, pool: &str) -> Result<Option<OffsetDateTime>, StorageError> {
    let (until,): (Option<i64>,) = fetch!(fetch_one, read, FULLEST, pool)?;
    Ok(until.map(moment))
}

/// A limit by its name, and the time at which all of it is available again.
pub type Spent = (&'static str, Limit, OffsetDateTime);

/// Each limit that holds for an issuer; of several per domain, set or name, the fullest.
pub async fn spent(
    read: &mut Read,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<Vec<Spent>, StorageError> {
    let acme = &issuer.acme;
    let asker = issuer.asker();
    let mut spent = Vec::new();
    for (name, limit) in LimitsSpec::of(acme.limits.as_ref(), &acme.server).each() {
        let counted = match name {
            "newOrders" => Scope::Account,
            "certificatesPerDomain" => Scope::RegisteredDomain(String::new()),
            "certificatesPerExactSet" => Scope::ExactSet,
            _ => Scope::Name(String::new()),
        };
        let until = fullest(read, &asker.pool(&counted)).await?.unwrap_or(now);
        spent.push((name, limit.clone(), until));
    }
    Ok(spent)
}

/// An order is over: what it took and did not use is given back, once. An issued one has used all of it.
pub(in crate::storage) async fn release(tx: &mut Tx, order: &Order) -> Result<(), StorageError> {
    let State::Done { url, end } = &order.state else { return Ok(()) };
    if *end == End::Valid {
        write!(tx, FORGET, order.id.0);
        return Ok(());
    }
    let row: Option<Row> = fetch_changed!(fetch_optional, tx, RELEASE, order.id.0)?;
    let Some(Row { costs, .. }) = row.filter(|row| row.granted) else {
        return Ok(());
    };
    let taken: Vec<Taken> = Stored("reservations", order.id.0).document(&costs)?;
    // Once every name is proved the CSR may be on its way, and with it the certificate.
    let unproved = order.challenges.iter().any(|one| one.state != challenge::State::Valid);
    let unused = |taken: &Taken| url.is_none() || (!taken.by_order && unproved);
    give_back(tx, &taken, unused).await
}

/// When there is room again; `None` when there is some.
async fn full(
    read: &mut Read,
    cost: &Cost,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StorageError> {
    let row: Option<(i64,)> = fetch!(fetch_optional, read, SPENT, cost.key.as_str())?;
    let spent =
        row.map(|(until,)| moment(until)).filter(|until| *until <= now + cost.rate.farthest());
    Ok(spent.map(|until| cost.rate.free_at(until)).filter(|at| *at > now))
}

async fn give_back(
    tx: &mut Tx,
    taken: &[Taken],
    unused: impl Fn(&Taken) -> bool,
) -> Result<(), StorageError> {
    for one in taken.iter().filter(|one| unused(one)) {
        execute!(tx, GIVE_BACK, one.key.as_str(), one.millis)?;
    }
    Ok(())
}

#[derive(FromRow)]
struct Row {
    granted: bool,
    costs: String,
}

impl Taken {
    fn of(cost: &Cost, by_order: bool) -> Self {
        Self { key: cost.key.clone(), millis: span(cost.rate.interval), by_order }
    }
}

fn span(duration: Duration) -> i64 {
    i64::try_from(duration.whole_milliseconds()).unwrap_or(i64::MAX)
}
