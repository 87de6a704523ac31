//! Messages on their way: what waits, what is due, and what came of it.
//!
//! The deliveries of a webhook change under its row's lock only, so that order within a subject
//! needs no other: an earlier one that ends makes room for the next in the same transaction.

use std::sync::LazyLock;

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::webhooks;
use crate::domain::delivery::{Attempt, DEADLINE, Delivery, State};
use crate::domain::event::Resource;
use crate::domain::event_type::EventType;
use crate::domain::id::{CertificateId, DeliveryId, IssuerId, MessageId, WebhookId};
use crate::domain::scope::Scope;
use crate::domain::trace::Trace;
use crate::domain::webhook::Webhook;
use crate::storage::engine::query::{Filter, Value};
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, count, execute, fetch, fetch_changed, millis,
    moment, statements, table, write,
};

table! {
    struct Row of deliveries {
        insert {
            id: Uuid,
            webhook_id: Uuid,
            message_id: Uuid,
            event_type: String,
            subject: Uuid,
            collection: String,
            namespace: Option<String>,
            created_at: i64,
            deadline: i64,
        }
        save {
            state: String,
            tries: i64,
            attempts: i64,
            last_attempt_at: Option<i64>,
            last_took: Option<i64>,
            last_status: Option<i64>,
            last_error: Option<String>,
            last_answer: Option<String>,
            finished_at: Option<i64>,
            next_action_at: Option<i64>,
        }
        read {}
    }
}

/// Whether the webhook still asks for what a delivery tells, as [`Webhook::still_hears_of`] has it.
fn heard(delivery: &str) -> String {
    format!(
        "({delivery}.event_type = 'webhook.test' OR EXISTS (SELECT 1 FROM webhook_subscriptions s
          WHERE s.webhook_id = {delivery}.webhook_id AND s.namespace IN ({delivery}.namespace, '*')))"
    )
}

static HEARD: LazyLock<String> = LazyLock::new(|| heard("d"));

statements! {
    INSERT adds(deliveries) = Row::insert(&[]);
    PLACE = "SELECT
        EXISTS (SELECT 1 FROM webhook_subscriptions s
                WHERE s.webhook_id = $1 AND s.namespace IN ($3, '*')) AS is_heard,
        (SELECT id FROM deliveries
         WHERE webhook_id = $1 AND subject = $2 AND state IN ('queued', 'pending')
         ORDER BY id DESC LIMIT 1) AS last";
    FIND = Row::select("WHERE id = $1 AND webhook_id = $2");
    DUE = format!(
        "SELECT m.body, m.trace, {} FROM deliveries d JOIN messages m ON m.id = d.message_id
         WHERE d.webhook_id = $1 AND d.state = 'pending' AND d.next_action_at <= $2
         ORDER BY d.next_action_at, d.id LIMIT $3",
        Row::COLUMNS.names_of("d")
    );
    NEXT = "SELECT event_type, next_action_at FROM deliveries
        WHERE webhook_id = $1 AND state = 'pending' ORDER BY next_action_at LIMIT 1";
    OPEN = "SELECT count(*) FROM (
        SELECT 1 AS one FROM deliveries WHERE state IN ('queued', 'pending') LIMIT 10000) AS waiting";
    SAVE writes(deliveries) =
        format!("UPDATE deliveries SET {} WHERE id = $1", Row::SAVED.assignments_after(1));
    PROMOTE writes(deliveries) = "UPDATE deliveries SET state = 'pending', next_action_at = $3, deadline = $4
        WHERE id = (SELECT q.id FROM deliveries q
                    WHERE q.webhook_id = $1 AND q.subject = $2 AND q.state = 'queued'
                      AND q.state IN ('queued', 'pending') ORDER BY q.id LIMIT 1)
          AND NOT EXISTS (SELECT 1 FROM deliveries p
                          WHERE p.webhook_id = $1 AND p.subject = $2 AND p.state = 'pending'
                            AND p.state IN ('queued', 'pending'))";
    PROMOTE_ALL writes(deliveries) = "UPDATE deliveries SET state = 'pending', next_action_at = $2, deadline = $3
        WHERE webhook_id = $1 AND state = 'queued' AND state IN ('queued', 'pending')
          AND NOT EXISTS (SELECT 1 FROM deliveries e
                          WHERE e.webhook_id = $1 AND e.subject = deliveries.subject
                            AND e.state IN ('queued', 'pending')
                            AND (e.state = 'pending' OR e.id < deliveries.id))";
    BRING_FORWARD writes(deliveries) = "UPDATE deliveries SET next_action_at = $3
        WHERE webhook_id = $1 AND state = 'pending' AND next_action_at > $3 AND last_attempt_at >= $2";
    HOLD writes(deliveries) = "UPDATE deliveries SET state = 'held', next_action_at = NULL, finished_at = $2
        WHERE webhook_id = $1 AND state IN ('queued', 'pending') AND event_type <> 'webhook.test'";
    MAKE_DUE writes(deliveries) = "UPDATE deliveries SET next_action_at = $1
        WHERE state = 'pending' AND next_action_at > $2 AND (created_at > $2 OR next_action_at > $3)";
    WAKE_WEBHOOKS writes(webhooks) reads(deliveries) = "UPDATE webhooks SET next_action_at = $1
        WHERE leased_by IS NULL AND next_action_at > $2 AND (next_action_at > $3 OR EXISTS (SELECT 1 FROM deliveries d
            WHERE d.webhook_id = webhooks.id AND d.state = 'pending' AND d.next_action_at <= $1))";
    HOLD_UNHEARD writes(deliveries) reads(webhook_subscriptions) = format!("UPDATE deliveries SET state = 'held',
        next_action_at = NULL, finished_at = $2
        WHERE webhook_id = $1 AND state IN ('queued', 'pending') AND NOT {}", heard("deliveries"));
    REDELIVER writes(deliveries) reads(webhook_subscriptions) = format!("UPDATE deliveries SET
        state = 'queued', tries = 0, finished_at = NULL, next_action_at = NULL
        WHERE id = $1 AND webhook_id = $2 AND state IN ('delivered', 'dead', 'held') AND {}", heard("deliveries"));
    SEND_NOW writes(deliveries) = "UPDATE deliveries SET next_action_at = $3
        WHERE id = $1 AND webhook_id = $2 AND state = 'pending' AND next_action_at > $3";
    REDELIVER_SINCE writes(deliveries) reads(webhook_subscriptions) = format!("UPDATE deliveries SET
        state = 'queued', tries = 0, finished_at = NULL, next_action_at = NULL
        WHERE id IN (SELECT o.id FROM deliveries o
                     WHERE o.webhook_id = $1 AND o.id > $2 AND o.created_at >= $3
                       AND o.state IN ('delivered', 'dead', 'held') AND o.event_type <> 'webhook.test'
                       AND {}
                     ORDER BY o.id LIMIT $4)
        RETURNING id", heard("o"));
    FORGET writes(deliveries) = "DELETE FROM deliveries WHERE id IN (
        SELECT o.id FROM deliveries o
        WHERE o.state IN ('delivered', 'held') AND o.finished_at < $1
        ORDER BY o.finished_at LIMIT $2)";
    FORGET_DEAD writes(deliveries) = "DELETE FROM deliveries WHERE id IN (
        SELECT o.id FROM deliveries o WHERE o.state = 'dead' AND o.finished_at < $1 LIMIT $2)";
}

/// Which deliveries are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// In this state.
    pub state: Option<State>,
    /// Of this kind.
    pub event_type: Option<EventType>,
    /// About this certificate or other resource.
    pub subject: Option<Uuid>,
    /// Told at that moment or later.
    pub since: Option<OffsetDateTime>,
}

/// Puts a message in the row for a webhook, behind what is open about the same subject.
pub(in crate::storage) async fn place(
    tx: &mut Tx,
    webhook: &Webhook,
    mut delivery: Delivery,
) -> Result<(), StorageError> {
    let at = delivery.created_at;
    if webhook.disabled.is_some() {
        // Who was deleted meanwhile is told nothing.
        if webhooks::lock(tx, webhook.id).await? {
            insert(tx, &delivery.held(at)).await?;
        }
        return Ok(());
    }
    let wake = webhook.health.paused_until.map_or(at, |until| until.max(at));
    if !webhooks::wake(tx, webhook.id, wake).await? {
        return Ok(());
    }
    let (to, subject) = (webhook.id.0, delivery.subject.id());
    let namespace = delivery.namespace.as_deref();
    let (is_heard, last): (bool, Option<Uuid>) =
        fetch!(fetch_one, tx, PLACE, to, subject, namespace)?;
    // It may have been narrowed since it was found to hear of this.
    if !is_heard {
        return Ok(());
    }
    if let Some(last) = last {
        // Another replica's clock may be ahead of ours.
        let id = delivery.id.0.max(Uuid::from_u128(last.as_u128() + 1));
        delivery = Delivery { id: DeliveryId(id), ..delivery.queued() };
    }
    insert(tx, &delivery).await
}

/// Adds a delivery that waits for nothing, and has a worker look at once.
pub(in crate::storage) async fn place_alone(
    tx: &mut Tx,
    delivery: &Delivery,
) -> Result<(), StorageError> {
    webhooks::wake(tx, delivery.webhook, delivery.created_at).await?;
    insert(tx, delivery).await
}

async fn insert(tx: &mut Tx, delivery: &Delivery) -> Result<(), StorageError> {
    let row = Row::from(delivery);
    write!(tx, INSERT; row.bind_inserted);
    Ok(())
}

/// A delivery of this webhook.
pub async fn find(
    read: &mut Read,
    webhook: WebhookId,
    id: DeliveryId,
) -> Result<Option<Delivery>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0, webhook.0)?;
    row.map(Row::into_domain).transpose()
}

/// A delivery that is due.
#[derive(Debug)]
pub struct Due {
    pub delivery: Delivery,
    /// What is posted.
    pub body: String,
    /// What brought it about.
    pub trace: Option<Trace>,
}

/// What is due for a webhook; what has waited longest first.
pub async fn due(
    read: &mut Read,
    webhook: WebhookId,
    now: OffsetDateTime,
    limit: usize,
) -> Result<Vec<Due>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows: Vec<DueRow> = fetch!(fetch_all, read, DUE, webhook.0, millis(now), limit)?;
    rows.into_iter().map(DueRow::into_due).collect()
}

/// Of which kind the next delivery is, and when it is due.
pub(in crate::storage) async fn next(
    read: &mut Read,
    webhook: WebhookId,
) -> Result<Option<(EventType, OffsetDateTime)>, StorageError> {
    let row: Option<(String, i64)> = fetch!(fetch_optional, read, NEXT, webhook.0)?;
    Ok(row
        .and_then(|(word, at)| EventType::parse(&word).map(|event_type| (event_type, moment(at)))))
}

/// The number of deliveries that wait to be sent, counted up to 10,000.
pub async fn open(read: &mut Read) -> Result<u64, StorageError> {
    let (open,): (i64,) = fetch!(fetch_one, read, OPEN)?;
    Ok(open.unsigned_abs())
}

/// Saves what came of a try, under the webhook's lease. What ended makes room for the next.
pub async fn save(
    tx: &mut Tx,
    delivery: &Delivery,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let row = Row::from(delivery);
    write!(tx, SAVE, row.id; row.bind_saved);
    if delivery.state.is_final() {
        promote(tx, delivery, now).await?;
        tx.has_settled(delivery.id.0);
    }
    Ok(())
}

async fn promote(tx: &mut Tx, after: &Delivery, now: OffsetDateTime) -> Result<(), StorageError> {
    let (webhook, subject) = (after.webhook.0, after.subject.id());
    execute!(tx, PROMOTE, webhook, subject, millis(now), millis(now + DEADLINE))?;
    Ok(())
}

/// Makes pending whatever waits for nothing any more.
pub(in crate::storage) async fn promote_all(
    tx: &mut Tx,
    webhook: WebhookId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, PROMOTE_ALL, webhook.0, millis(now), millis(now + DEADLINE))?;
    Ok(())
}

/// Has tried at once what failed during an outage that is over.
pub(in crate::storage) async fn bring_forward(
    tx: &mut Tx,
    webhook: WebhookId,
    since: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, BRING_FORWARD, webhook.0, millis(since), millis(now))?;
    Ok(())
}

/// Keeps back whatever a disabled webhook would be sent.
pub(in crate::storage) async fn hold(
    tx: &mut Tx,
    webhook: WebhookId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, HOLD, webhook.0, millis(now))?;
    Ok(())
}

/// Keeps back whatever a webhook would be sent and does not ask for any more.
pub(in crate::storage) async fn hold_unheard(
    tx: &mut Tx,
    webhook: WebhookId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    execute!(tx, HOLD_UNHEARD, webhook.0, millis(now))?;
    Ok(())
}

/// Makes due at `now` what was written later than is `tolerated`, or waits beyond `latest`; milliseconds. Returns the
/// number of deliveries.
pub(super) async fn make_due(
    tx: &mut Tx,
    now: i64,
    tolerated: i64,
    latest: i64,
) -> Result<u64, StorageError> {
    Ok(execute!(tx, MAKE_DUE, now, tolerated, latest)?)
}

/// Makes due at `now` the webhooks that one of these is due for, or that wait beyond `latest`; milliseconds.
pub(super) async fn wake_webhooks(
    tx: &mut Tx,
    now: i64,
    tolerated: i64,
    latest: i64,
) -> Result<(), StorageError> {
    execute!(tx, WAKE_WEBHOOKS, now, tolerated, latest)?;
    Ok(())
}

/// Sends a delivery again, under the same identifier, whatever came of it; now, if it is waiting.
/// What the webhook does not ask for any more stays where it is.
pub async fn redeliver(
    tx: &mut Tx,
    delivery: &Delivery,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    webhooks::wake(tx, delivery.webhook, now).await?;
    execute!(tx, REDELIVER, delivery.id.0, delivery.webhook.0)?;
    promote(tx, delivery, now).await?;
    execute!(tx, SEND_NOW, delivery.id.0, delivery.webhook.0, millis(now))?;
    Ok(())
}

/// Puts back in the row what was told since then, has come to its end and is still asked for: at most `limit`, those
/// after `after`. Says how many, and which was the last; with none, [`go_on`] sends them.
pub async fn redeliver_since(
    tx: &mut Tx,
    webhook: WebhookId,
    since: OffsetDateTime,
    after: Option<DeliveryId>,
    limit: u32,
) -> Result<(usize, Option<DeliveryId>), StorageError> {
    // Identifiers sort by time: nothing before this one was told since then.
    let first = u128::try_from(millis(since)).unwrap_or_default() << 80;
    let after = after.map_or(Uuid::from_u128(first), |id| id.0);
    webhooks::wake(tx, webhook, since).await?;
    let rows: Vec<(Uuid,)> = fetch_changed!(
        fetch_all,
        tx,
        REDELIVER_SINCE,
        webhook.0,
        after,
        millis(since),
        i64::from(limit),
    )?;
    Ok((rows.len(), rows.into_iter().map(|(id,)| DeliveryId(id)).max()))
}

/// Sends what waits for nothing any more.
pub async fn go_on(
    tx: &mut Tx,
    webhook: WebhookId,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    webhooks::wake(tx, webhook, now).await?;
    promote_all(tx, webhook, now).await
}

/// Forgets what ended before then without being dead; at most `limit`.
pub async fn forget(tx: &mut Tx, before: OffsetDateTime, limit: u32) -> Result<u64, StorageError> {
    Ok(execute!(tx, FORGET, millis(before), i64::from(limit))?)
}

/// Forgets what was given up before then; at most `limit`.
pub async fn forget_dead(
    tx: &mut Tx,
    before: OffsetDateTime,
    limit: u32,
) -> Result<u64, StorageError> {
    Ok(execute!(tx, FORGET_DEAD, millis(before), i64::from(limit))?)
}

/// A page of a webhook's deliveries, by identifier, and so by age: to who is bound to namespaces, those that
/// it still asks for.
pub async fn list(
    read: &mut Read,
    webhook: WebhookId,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Delivery>, StorageError> {
    let mut filter = Filter::within("d.namespace", scope.namespaces());
    filter.and("d.webhook_id = ?", Value::Id(webhook.0));
    if matches!(scope, Scope::Namespaces(_)) {
        filter.and_that(&HEARD);
    }
    filter.and_if("d.state = ?", wanted.state.map(State::as_str));
    filter.and_if("d.event_type = ?", wanted.event_type.map(EventType::as_str));
    filter.and_if("d.subject = ?", wanted.subject);
    filter.and_if("d.created_at >= ?", wanted.since.map(millis));
    let rows: Rows<Row> = filter.page(read, &Row::select("d"), "d.id", page).await?;
    rows.map(Row::into_domain)
}

#[derive(FromRow)]
struct DueRow {
    #[sqlx(flatten)]
    row: Row,
    body: String,
    trace: Option<String>,
}

impl DueRow {
    fn into_due(self) -> Result<Due, StorageError> {
        let trace = self.trace.and_then(|text| text.parse().ok());
        Ok(Due { delivery: self.row.into_domain()?, body: self.body, trace })
    }
}

impl From<&Delivery> for Row {
    fn from(delivery: &Delivery) -> Self {
        let last = delivery.last.as_ref();
        let took = last.map(|attempt| attempt.took.whole_milliseconds());
        Self {
            id: delivery.id.0,
            webhook_id: delivery.webhook.0,
            message_id: delivery.message.0,
            event_type: delivery.event_type.as_str().to_owned(),
            subject: delivery.subject.id(),
            collection: delivery.subject.collection().to_owned(),
            namespace: delivery.namespace.clone(),
            created_at: millis(delivery.created_at),
            deadline: millis(delivery.deadline),
            state: delivery.state.as_str().to_owned(),
            tries: delivery.tries.into(),
            attempts: delivery.attempts.into(),
            last_attempt_at: last.map(|attempt| millis(attempt.at)),
            last_took: took.map(|took| i64::try_from(took).unwrap_or(i64::MAX)),
            last_status: last.and_then(|attempt| attempt.status).map(i64::from),
            last_error: last.and_then(|attempt| attempt.error.clone()),
            last_answer: last.and_then(|attempt| attempt.answer.clone()),
            finished_at: delivery.finished_at.map(millis),
            next_action_at: delivery.next_action_at.map(millis),
        }
    }
}

impl Row {
    fn into_domain(self) -> Result<Delivery, StorageError> {
        let row = Stored("deliveries", self.id);
        let subject = match self.collection.as_str() {
            "certificates" => Resource::Certificate(CertificateId(self.subject)),
            "issuers" => Resource::Issuer(IssuerId(self.subject)),
            "webhooks" => Resource::Webhook(WebhookId(self.subject)),
            _ => return row.known("collection", None),
        };
        let last = self.last_attempt_at.map(|at| Attempt {
            at: moment(at),
            took: time::Duration::milliseconds(self.last_took.unwrap_or_default()),
            status: self.last_status.and_then(|status| u16::try_from(status).ok()),
            error: self.last_error,
            answer: self.last_answer,
        });
        Ok(Delivery {
            id: DeliveryId(self.id),
            webhook: WebhookId(self.webhook_id),
            message: MessageId(self.message_id),
            event_type: row.known("event_type", EventType::parse(&self.event_type))?,
            subject,
            namespace: self.namespace,
            state: row.known("state", State::parse(&self.state))?,
            tries: count(self.tries),
            attempts: count(self.attempts),
            last,
            created_at: moment(self.created_at),
            finished_at: self.finished_at.map(moment),
            next_action_at: self.next_action_at.map(moment),
            deadline: moment(self.deadline),
        })
    }
}
