//! Webhooks: who asked to be told, how their endpoints are doing, and when one wants attention.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{audit, deliveries, events, log};
use crate::domain::event_type::EventType;
use crate::domain::id::WebhookId;
use crate::domain::scope::Scope;
use crate::domain::webhook::{Disabled, EVERY_NAMESPACE, Health, Spec, Transition, Webhook};
use crate::secret::{Place, Sealed};
use crate::storage::engine::query::Filter;
use crate::storage::engine::{
    Page, Read, Rows, StorageError, Stored, Tx, count, execute, fetch, json, millis, moment,
    statements, table, write,
};
use crate::storage::queue::lease::{LEASE, Lease, Machine, held};

table! {
    struct Row of webhooks {
        insert { id: Uuid, namespace: String, name: String, created_at: i64 }
        save {
            spec: String,
            disabled_because: Option<String>,
            failures: i64,
            failing_since: Option<i64>,
            last_failure_at: Option<i64>,
            last_success_at: Option<i64>,
            last_error: Option<String>,
            paused_until: Option<i64>,
            updated_at: i64,
        }
        read { former_until: Option<i64>, lease_token: i64 }
    }
}

statements! {
    INSERT adds(webhooks) = Row::insert(&[("secret", "$1")]);
    INSERT_SUBSCRIPTION writes(webhook_subscriptions) = "INSERT INTO webhook_subscriptions (webhook_id, namespace, event_type, selector)
        VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    DELETE_SUBSCRIPTIONS writes(webhook_subscriptions) = "DELETE FROM webhook_subscriptions WHERE webhook_id = $1";
    FIND = Row::select("WHERE id = $1");
    FIND_BY_NAME = Row::select("WHERE namespace = $1 AND name = $2");
    SUBSCRIBED = Row::select(
        "WHERE id IN (SELECT webhook_id FROM webhook_subscriptions
            WHERE namespace IN ($1, '*') AND event_type IN ($2, '*') AND selector = 'all') ORDER BY id");
    SAVE writes(webhooks) = format!(
        "UPDATE webhooks SET next_action_at = $3,
            leased_by = CASE WHEN $4 THEN leased_by ELSE NULL END, lease_token = lease_token + 1, {}
         WHERE id = $1 AND lease_token = $2",
        Row::SAVED.assignments_after(4)
    );
    REST writes(webhooks) = "UPDATE webhooks SET leased_by = NULL, lease_token = lease_token + 1
        WHERE id = $1 AND lease_token = $2";
    NEXT writes(webhooks) = "UPDATE webhooks SET next_action_at = $2 WHERE id = $1";
    WAKE writes(webhooks) = "UPDATE webhooks SET next_action_at = CASE
            WHEN leased_by IS NOT NULL THEN next_action_at
            WHEN next_action_at IS NULL OR next_action_at > $2 THEN $2
            ELSE next_action_at END
        WHERE id = $1";
    LOCK writes(webhooks) = "UPDATE webhooks SET next_action_at = next_action_at WHERE id = $1";
    SECRETS = "SELECT secret, former_secret, former_until FROM webhooks WHERE id = $1";
    ROTATE writes(webhooks) = "UPDATE webhooks SET secret = $2, former_secret = $3, former_until = $4 WHERE id = $1";
    FORGET_FORMER writes(webhooks) = "UPDATE webhooks SET former_secret = NULL, former_until = NULL
        WHERE former_until <= $1";
    DELETE writes(webhooks, webhook_subscriptions, deliveries) = "DELETE FROM webhooks WHERE id = $1";
}

/// Which webhooks are wanted; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
}

/// The sealed signing secrets of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Signs.
    pub current: Sealed,
    /// Signs as well, until then.
    pub former: Option<(Sealed, OffsetDateTime)>,
}

/// The place that the signing secret is sealed for.
pub fn secret_place(webhook: &Webhook) -> Place {
    Place::new(format!("webhooks/secret/{}", webhook.id), &webhook.namespace)
}

/// The place that the former signing secret is sealed for.
pub fn former_secret_place(webhook: &Webhook) -> Place {
    Place::new(format!("webhooks/former_secret/{}", webhook.id), &webhook.namespace)
}

/// Adds a webhook with its signing secret.
pub async fn insert(tx: &mut Tx, webhook: &Webhook, secret: &Sealed) -> Result<(), StorageError> {
    let row = Row::from(webhook);
    write!(tx, INSERT, secret.0.as_slice(); row.bind_inserted);
    audit::changes(tx, "webhooks", row.id, &webhook.namespace);
    index(tx, webhook).await
}

async fn index(tx: &mut Tx, webhook: &Webhook) -> Result<(), StorageError> {
    let spec = &webhook.spec;
    let mut namespaces: Vec<&str> = spec.namespaces.iter().map(String::as_str).collect();
    if !namespaces.contains(&EVERY_NAMESPACE) {
        // ClusterIssuers concern everybody.
        namespaces.push("");
    }
    let mut event_types: Vec<&str> =
        spec.events.iter().map(|event_type| event_type.as_str()).collect();
    if event_types.is_empty() {
        event_types.push("*");
    }
    for namespace in namespaces {
        for event_type in &event_types {
            let selector = spec.selector.as_str();
            execute!(tx, INSERT_SUBSCRIPTION, webhook.id.0, namespace, *event_type, selector)?;
        }
    }
    Ok(())
}

/// A webhook that the caller may see: all that it hears of must be the caller's.
pub async fn find(
    read: &mut Read,
    id: WebhookId,
    scope: &Scope,
) -> Result<Option<(Webhook, Lease)>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id.0)?;
    let found = row.map(Row::into_domain).transpose()?;
    Ok(found.filter(|(webhook, _)| is_within(webhook, scope)))
}

/// The webhook of this name, if the caller may see it.
pub async fn find_by_name(
    read: &mut Read,
    namespace: &str,
    name: &str,
    scope: &Scope,
) -> Result<Option<Webhook>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND_BY_NAME, namespace, name)?;
    let found = row.map(Row::into_domain).transpose()?;
    Ok(found.map(|(webhook, _)| webhook).filter(|webhook| is_within(webhook, scope)))
}

fn is_within(webhook: &Webhook, scope: &Scope) -> bool {
    let mut all = webhook.spec.namespaces.iter().chain([&webhook.namespace]);
    all.all(|namespace| scope.covers(namespace))
}

/// The webhooks that asked for this of this namespace; what else they ask for is not looked at.
pub(in crate::storage) async fn subscribed(
    read: &mut Read,
    namespace: &str,
    event_type: EventType,
) -> Result<Vec<Webhook>, StorageError> {
    let rows: Vec<Row> = fetch!(fetch_all, read, SUBSCRIBED, namespace, event_type.as_str())?;
    rows.into_iter().map(|row| row.into_domain().map(|(webhook, _)| webhook)).collect()
}

/// The webhook that a certificate names, if it is there.
pub(in crate::storage) async fn named(
    read: &mut Read,
    id: Uuid,
) -> Result<Option<Webhook>, StorageError> {
    let row: Option<Row> = fetch!(fetch_optional, read, FIND, id)?;
    row.map(|row| row.into_domain().map(|(webhook, _)| webhook)).transpose()
}

/// Saves what may change in a webhook's life, if nobody else did since it was read; with it the
/// history of what happened. What a disabled one would have been sent is held.
///
/// With `hold` the worker goes on with it; without, a worker looks what is to be done next.
pub async fn save(
    tx: &mut Tx,
    transition: &Transition,
    lease: &Lease,
    hold: Option<OffsetDateTime>,
) -> Result<Lease, StorageError> {
    let Transition { webhook, events, at, recovered_from } = transition;
    let row = Row::from(webhook);
    let wake = millis(hold.map_or(*at, |now| now + LEASE));
    write!(tx, lease => SAVE, row.id, lease.token, wake, hold.is_some(); row.bind_saved);
    audit::changes(tx, "webhooks", row.id, &webhook.namespace);
    events::record(tx, &webhook.namespace, None, events, *at);
    log::of_webhook(tx, transition);
    if webhook.disabled.is_some() {
        deliveries::hold(tx, webhook.id, *at).await?;
    }
    if let Some(since) = recovered_from {
        deliveries::bring_forward(tx, webhook.id, *since, *at).await?;
    }
    if hold.is_none() {
        tx.wake_deliverers();
    }
    Ok(Lease { token: lease.token + 1, ..*lease })
}

/// Like [`save`], for a webhook that may want to hear of something else now: what it is not to hear any more
/// is held.
pub async fn respecify(
    tx: &mut Tx,
    transition: &Transition,
    lease: &Lease,
) -> Result<Lease, StorageError> {
    let next = save(tx, transition, lease, None).await?;
    execute!(tx, DELETE_SUBSCRIPTIONS, transition.webhook.id.0)?;
    index(tx, &transition.webhook).await?;
    deliveries::hold_unheard(tx, transition.webhook.id, transition.at).await?;
    Ok(next)
}

/// Like [`save`], for a webhook with a new signing secret; a former one signs as well until the
/// webhook's `former_until`.
pub async fn rotate(
    tx: &mut Tx,
    transition: &Transition,
    lease: &Lease,
    secret: &Sealed,
    former: Option<&Sealed>,
) -> Result<Lease, StorageError> {
    let next = save(tx, transition, lease, None).await?;
    let Webhook { id, former_until, .. } = &transition.webhook;
    let former_secret = former.map(|sealed| sealed.0.as_slice());
    execute!(tx, ROTATE, id.0, secret.0.as_slice(), former_secret, former_until.map(millis))?;
    Ok(next)
}

/// Gives the lease back: a worker looks again when the next of its deliveries is due, though not
/// while the endpoint is left alone, nor anything at all before `held_until`.
pub async fn rest(
    tx: &mut Tx,
    webhook: &Webhook,
    lease: &Lease,
    held_until: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    // First, since it locks: what is told from here on waits, and then wakes it again.
    let changed = execute!(tx, REST, webhook.id.0, lease.token)?;
    held(lease, changed)?;
    if webhook.disabled.is_some() {
        deliveries::hold(tx, webhook.id, now).await?;
    }
    let mut next = deliveries::next(tx, webhook.id).await?;
    if next.is_none() {
        deliveries::promote_all(tx, webhook.id, now).await?;
        next = deliveries::next(tx, webhook.id).await?;
    }
    let wake = next.map(|(event_type, at)| match webhook.health.paused_until {
        Some(until) if event_type != EventType::WebhookTest => at.max(until),
        _ => at,
    });
    let wake = wake.map(|at| held_until.map_or(at, |until| until.max(at)));
    execute!(tx, NEXT, webhook.id.0, wake.map(millis))?;
    tx.wake_deliverers();
    Ok(())
}

/// Has a worker look at a webhook at that moment, if nobody does already. Locks the row, as anybody
/// must who changes its deliveries. Says whether it is there still.
pub(in crate::storage) async fn wake(
    tx: &mut Tx,
    id: WebhookId,
    at: OffsetDateTime,
) -> Result<bool, StorageError> {
    tx.wake_deliverers();
    Ok(execute!(tx, WAKE, id.0, millis(at))? == 1)
}

/// Locks the row of a webhook that nothing is sent to. Says whether it is there still.
pub(in crate::storage) async fn lock(tx: &mut Tx, id: WebhookId) -> Result<bool, StorageError> {
    Ok(execute!(tx, LOCK, id.0)? == 1)
}

/// The sealed signing secrets.
pub async fn secrets(read: &mut Read, id: WebhookId) -> Result<Option<Secrets>, StorageError> {
    type Row = (Vec<u8>, Option<Vec<u8>>, Option<i64>);
    let row: Option<Row> = fetch!(fetch_optional, read, SECRETS, id.0)?;
    Ok(row.map(|(current, former, until)| Secrets {
        current: Sealed(current),
        former: former.map(Sealed).zip(until.map(moment)),
    }))
}

/// Forgets former signing secrets whose time is up.
pub async fn forget_former(tx: &mut Tx, now: OffsetDateTime) -> Result<u64, StorageError> {
    Ok(execute!(tx, FORGET_FORMER, millis(now))?)
}

/// Forgets a webhook with its deliveries.
pub async fn delete(tx: &mut Tx, id: WebhookId) -> Result<(), StorageError> {
    execute!(tx, DELETE, id.0)?;
    Ok(())
}

/// A page of webhooks, by identifier, and so by age.
pub async fn list(
    read: &mut Read,
    scope: &Scope,
    wanted: &Wanted,
    page: Page,
) -> Result<Rows<Webhook>, StorageError> {
    let mut filter = Filter::within("namespace", scope.namespaces());
    filter.without(
        "id IN (SELECT webhook_id FROM webhook_subscriptions WHERE namespace NOT IN (?))",
        scope.namespaces(),
    );
    filter.and_if("namespace = ?", wanted.namespace.as_ref());
    filter.and_if("name = ?", wanted.name.as_ref());
    let rows: Rows<Row> = filter.page(read, &Row::select(""), "id", page).await?;
    rows.map(|row| row.into_domain().map(|(webhook, _)| webhook))
}

impl From<&Webhook> for Row {
    fn from(webhook: &Webhook) -> Self {
        let health = &webhook.health;
        Self {
            id: webhook.id.0,
            namespace: webhook.namespace.clone(),
            name: webhook.name.clone(),
            created_at: millis(webhook.created_at),
            spec: json(&webhook.spec),
            disabled_because: webhook.disabled.map(|why| why.as_str().to_owned()),
            failures: health.failures.into(),
            failing_since: health.failing_since.map(millis),
            last_failure_at: health.last_failure_at.map(millis),
            last_success_at: health.last_success_at.map(millis),
            last_error: health.last_error.clone(),
            paused_until: health.paused_until.map(millis),
            updated_at: millis(webhook.updated_at),
            former_until: None,
            lease_token: 0,
        }
    }
}

impl Row {
    fn into_domain(self) -> Result<(Webhook, Lease), StorageError> {
        let row = Stored("webhooks", self.id);
        let known = |word: String| row.known("disabled_because", Disabled::parse(&word));
        let disabled = self.disabled_because.map(known).transpose()?;
        let spec: Spec = row.document(&self.spec)?;
        let webhook = Webhook {
            id: WebhookId(self.id),
            namespace: self.namespace,
            name: self.name,
            spec,
            disabled,
            health: Health {
                failures: count(self.failures),
                failing_since: self.failing_since.map(moment),
                last_failure_at: self.last_failure_at.map(moment),
                last_success_at: self.last_success_at.map(moment),
                last_error: self.last_error,
                paused_until: self.paused_until.map(moment),
            },
            former_until: self.former_until.map(moment),
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
        };
        let lease = Lease { machine: Machine::Delivery, id: self.id, token: self.lease_token };
        Ok((webhook, lease))
    }
}
