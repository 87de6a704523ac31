//! ACME orders with their challenges: one aggregate, one lease.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{challenges, log, rate_limits};
use crate::domain::challenge::Challenge;
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, IssuerId, OrderId, RequestId};
use crate::domain::order::{End, Order, Stage, State, Transition};
use crate::domain::scope::Scope;
use crate::domain::trace::Trace;
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, count, execute, fetch, json, millis, moment,
    statements, table, write,
};
use crate::storage::queue::lease::{LEASE, Lease, Machine, lease_end};

table! {
    pub(in crate::storage) struct Row of orders {
        insert {
            id: Uuid,
            name: String,
            certificate_id: Uuid,
            request_id: Uuid,
            issuer_id: Uuid,
            namespace: String,
            names: String,
            profile: Option<String>,
            predecessors: i64,
            trace: Option<String>,
            created_at: i64,
        }
        save {
            state: String,
            url: Option<String>,
            expires: Option<i64>,
            tries: i64,
            stalled_since: Option<i64>,
            attempts: i64,
            last_error: Option<String>,
            handed_out_at: i64,
            deadline: i64,
            replaces: Option<String>,
            not_after: Option<i64>,
            course: String,
        }
        read { next_action_at: Option<i64>, leased_by: Option<String>, lease_token: i64 }
    }
}

// With a holder, next_action_at is when its lease ends: by the database's clock where that is another.
fn insert_text(wake: &str) -> String {
    Row::insert(&[("next_action_at", wake), ("leased_by", "$2")])
}

fn save_text(wake: &str) -> String {
    format!(
        "UPDATE orders SET next_action_at = {wake}, ended = $5,
            leased_by = CASE WHEN $4 THEN leased_by ELSE NULL END, lease_token = lease_token + 1, {}
         WHERE id = $1 AND lease_token = $2",
        Row::SAVED.assignments_after(5)
    )
}

statements! {
    INSERT adds(orders) = insert_text("$1"),
        insert_text(&format!("CASE WHEN $2::text IS NULL THEN $1 ELSE {} END", lease_end("$1")));
    FIND = Row::select("WHERE id = $1");
    OPEN_OF_CERTIFICATE = Row::select(
        "WHERE certificate_id = $1 AND state NOT IN ('valid', 'invalid', 'errored', 'expired')");
    UNDER_WAY_OF_ISSUER = "SELECT id FROM orders WHERE issuer_id = $1 AND next_action_at IS NOT NULL
        AND state NOT IN ('valid', 'invalid', 'errored', 'expired') LIMIT 1";
    OPEN_OF_ISSUER = "SELECT id FROM orders WHERE issuer_id = $1 AND next_action_at IS NOT NULL LIMIT 1";
    SAVE writes(orders) = save_text("$3"),
        save_text(&format!("CASE WHEN $4 THEN {} ELSE $3 END", lease_end("$3")));
    SAVE_HELD writes(orders) = format!(
        "UPDATE orders SET lease_token = lease_token + 1, {} WHERE id = $1 AND lease_token = $2",
        Row::SAVED.assignments_after(2)
    );
    WAKE_NEW writes(orders) = "UPDATE orders SET next_action_at = $2, lease_token = lease_token + 1
        WHERE issuer_id = $1 AND state = 'new' AND leased_by IS NULL AND next_action_at > $2";
    RETAKE writes(orders) = "UPDATE orders SET next_action_at = $2, leased_by = NULL, lease_token = lease_token + 1
        WHERE issuer_id = $1 AND next_action_at IS NOT NULL AND (leased_by IS NOT NULL OR state = 'new')";
}

/// Which orders are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// For this certificate.
    pub certificate: Option<CertificateId>,
    /// Of this name.
    pub name: Option<String>,
    /// In one of RFC 8555's states, or `expired` or `errored`.
    pub state: Option<String>,
}

/// Adds an order. With `hold` its first lease is the caller's, who goes on with it at once.
pub async fn insert(
    tx: &mut Tx,
    order: &Order,
    hold: Option<(&str, OffsetDateTime)>,
) -> Result<Lease, StorageError> {
    let row = Row::from(order);
    let wake = hold.map_or(row.next_action_at, |(_, now)| Some(millis(now + LEASE)));
    let owner = hold.map(|(owner, _)| owner);
    write!(tx, INSERT, wake, owner; row.bind_inserted);
    if hold.is_none() {
        tx.wake_workers();
    }
    Ok(Lease { machine: Machine::Order, id: row.id, token: 0 })
}

/// An order that the caller may see, with its challenges.
pub async fn find(
    read: &mut Read,
    id: OrderId,
    scope: &Scope,
) -> Result<Option<(Order, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    match row.filter(|row| scope.covers(&row.namespace)) {
        Some(row) => with_challenges(read, row).await.map(Some),
        None => Ok(None),
    }
}

/// The orders that are still under way for a certificate.
pub async fn open_of_certificate(
    read: &mut Read,
    certificate: CertificateId,
) -> Result<Vec<(Order, Lease)>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, OPEN_OF_CERTIFICATE, certificate.0)?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in rows {
        orders.push(with_challenges(read, row).await?);
    }
    Ok(orders)
}

/// An order that still needs this issuer, to be issued or to be cleaned up.
pub async fn any_open_of_issuer(
    read: &mut Read,
    issuer: IssuerId,
) -> Result<Option<OrderId>, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, OPEN_OF_ISSUER, issuer.0)?;
    Ok(row.map(|(id,)| OrderId(id)))
}

/// An order that this issuer's account has yet to end, its clean-up aside.
pub async fn any_under_way_of_issuer(
    read: &mut Read,
    issuer: IssuerId,
) -> Result<Option<OrderId>, StorageError> {
    let row: Option<(Uuid,)> = fetch!(fetch_optional, read, UNDER_WAY_OF_ISSUER, issuer.0)?;
    Ok(row.map(|(id,)| OrderId(id)))
}

/// Saves what may change in an order's life, if nobody else did since it was read; then the
/// challenges that differ from `before`.
///
/// With `hold` the worker goes on with it; the returned lease is the one that counts from now on. That the
/// lease was lost may be told only with the next question, or the commit.
pub async fn save(
    tx: &mut Tx,
    order: &Order,
    before: &[Challenge],
    lease: &Lease,
    hold: Option<OffsetDateTime>,
) -> Result<Lease, StorageError> {
    let row = Row::from(order);
    let wake = hold.map_or(row.next_action_at, |now| Some(millis(now + LEASE)));
    let (is_held, is_over) = (hold.is_some(), order.is_over());
    write!(tx, lease => SAVE, row.id, lease.token, wake, is_held, is_over; row.bind_saved);
    challenges::save_changed(tx, &order.challenges, before).await?;
    // Proofs are taken away only after the end, when what it took was given back already.
    let is_tidied = !order.challenges.is_empty() && order.challenges.iter().all(|one| one.clean);
    if order.is_over() && !is_tidied {
        rate_limits::release(tx, order).await?;
    }
    if order.is_over() {
        tx.has_settled(row.id);
    }
    if hold.is_none()
        && let Some(at) = row.next_action_at
    {
        tx.wake_workers_at(at);
    }
    Ok(Lease { token: lease.token + 1, ..*lease })
}

/// Like [`save()`], for an order that is under way and on which the worker goes on under the lease as it
/// is. No index changes.
pub async fn save_held(
    tx: &mut Tx,
    order: &Order,
    before: &[Challenge],
    lease: &Lease,
) -> Result<Lease, StorageError> {
    debug_assert!(!order.is_over(), "the end of an order ends the lease");
    let row = Row::from(order);
    write!(tx, lease => SAVE_HELD, row.id, lease.token; row.bind_saved);
    challenges::save_changed(tx, &order.challenges, before).await?;
    Ok(Lease { token: lease.token + 1, ..*lease })
}

/// Has the log say, once this is committed, that an order under way is in trouble that was not known.
pub fn tell_trouble(tx: &mut Tx, order: &Order, trouble: &Failure) {
    log::of_order(tx, order, trouble);
}

/// Has the order's span sent, once this is committed, if the order ends with this.
pub fn tell_end(tx: &mut Tx, transition: &Transition) {
    log::of_end(tx, transition);
}

/// Has the steps repeated that orders of this issuer are just taking: what they go by has changed,
/// and the answer that is on its way would be to the old question. Orders that wait to be sent to the
/// CA look again at once: perhaps it is another CA, or other limits.
pub async fn retake_steps(
    tx: &mut Tx,
    issuer: IssuerId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, RETAKE, issuer.0, millis(now))?;
    tx.wake_workers();
    Ok(())
}

/// Has the orders of this issuer that wait to be sent to the CA look again whether they may.
pub async fn wake_new(
    tx: &mut Tx,
    issuer: IssuerId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, WAKE_NEW, issuer.0, millis(now))?;
    tx.wake_workers();
    Ok(())
}

/// A page of orders, newest first, with their challenges.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Order>, StorageError> {
    let mut filter = Filter::within("namespace", scope.namespaces());
    filter.and_if("namespace = ?", wanted.namespace.as_ref());
    filter.and_if("certificate_id = ?", wanted.certificate.map(|it| it.0));
    filter.and_if("name = ?", wanted.name.as_ref());
    match wanted.state.as_deref() {
        Some("pending") => {
            filter.and_that(
                "state IN ('new', 'authorizing', 'presenting', 'accepting', 'validating')",
            );
        }
        Some("ready") => filter.and_that("state = 'finalizing'"),
        Some("valid") => filter.and_that("state IN ('downloading', 'valid')"),
        Some(state) => filter.and("state = ?", Value::Text(state.to_owned())),
        None => {}
    }
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    let mut orders = Vec::with_capacity(rows.rows.len());
    for row in rows.rows {
        orders.push(with_challenges(read, row).await?.0);
    }
    Ok(Rows { rows: orders, count: rows.count })
}

async fn with_challenges(read: &mut Read, row: Row) -> Result<(Order, Lease), StorageError> {
    let challenges = challenges::of_order(read, row.id).await?;
    row.into_domain(challenges)
}

impl From<&Order> for Row {
    fn from(order: &Order) -> Self {
        let (state, url) = match &order.state {
            State::New => ("new", None),
            State::Open { url, stage } => (stage.as_str(), Some(url)),
            State::Done { url, end } => (end.as_str(), url.as_ref()),
        };
        Self {
            id: order.id.0,
            name: order.name.clone(),
            certificate_id: order.certificate.0,
            request_id: order.request.0,
            issuer_id: order.issuer.0,
            namespace: order.namespace.clone(),
            names: json(&order.names),
            profile: order.profile.clone(),
            predecessors: order.predecessors.into(),
            trace: order.trace.as_ref().map(Trace::to_string),
            state: state.to_owned(),
            url: url.cloned(),
            expires: order.expires.map(millis),
            tries: order.tries.into(),
            stalled_since: order.stalled_since.map(millis),
            attempts: order.attempts.into(),
            last_error: order.last_error.as_ref().map(json),
            created_at: millis(order.created_at),
            handed_out_at: millis(order.handed_out_at),
            next_action_at: order.next_action_at.map(millis),
            deadline: millis(order.deadline),
            replaces: order.replaces.clone(),
            not_after: order.not_after.map(millis),
            course: json(&order.course),
            leased_by: None,
            lease_token: 0,
        }
    }
}

impl Row {
    pub(in crate::storage) fn id(&self) -> Uuid {
        self.id
    }

    pub(in crate::storage) fn into_domain(
        self,
        challenges: Vec<Challenge>,
    ) -> Result<(Order, Lease), StorageError> {
        let row = Stored("orders", self.id);
        let word = self.state.as_str();
        let state = match (word, Stage::parse(word), End::parse(word), self.url) {
            ("new", None, None, None) => State::New,
            (_, Some(stage), None, Some(url)) => State::Open { url, stage },
            (_, None, Some(end), url) => State::Done { url, end },
            _ => return Err(row.corrupt("state and url disagree")),
        };
        let order = Order {
            id: OrderId(self.id),
            name: self.name,
            certificate: CertificateId(self.certificate_id),
            request: RequestId(self.request_id),
            issuer: IssuerId(self.issuer_id),
            namespace: self.namespace,
            names: row.document(&self.names)?,
            profile: self.profile,
            predecessors: count(self.predecessors),
            state,
            expires: self.expires.map(moment),
            challenges,
            tries: count(self.tries),
            stalled_since: self.stalled_since.map(moment),
            course: row.document(&self.course)?,
            attempts: count(self.attempts),
            last_error: row.document_if(self.last_error)?,
            trace: self.trace.and_then(|text| text.parse().ok()),
            created_at: moment(self.created_at),
            handed_out_at: moment(self.handed_out_at),
            // While somebody is at it, the row shows when the lease ends: it was due when that began.
            next_action_at: self.next_action_at.map(|at| {
                moment(at) - if self.leased_by.is_some() { LEASE } else { Duration::ZERO }
            }),
            deadline: moment(self.deadline),
            replaces: self.replaces,
            not_after: self.not_after.map(moment),
        };
        let lease = Lease { machine: Machine::Order, id: self.id, token: self.lease_token };
        Ok((order, lease))
    }
}
