//! What is told, and to whom: the transactional outbox.
//!
//! [`super::certificates::save`], [`super::issuers::save`] and [`super::expiry_watches::save`] hand over what
//! their transition tells; [`Tx::commit`] writes it down, in the transaction that makes the change true. There is no other
//! way in, so that nothing changes without those who asked hearing of it. It comes last because the
//! rows of webhooks are locked here: after all others, and in their order.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{deliveries, webhooks};
use crate::domain::certificate;
use crate::domain::certificate::Certificate;
use crate::domain::delivery::Delivery;
use crate::domain::event::Resource;
use crate::domain::event_type::EventType;
use crate::domain::id::MessageId;
use crate::domain::issuer;
use crate::domain::issuer::Issuer;
use crate::domain::trace::Trace;
use crate::domain::webhook::Webhook;
use crate::storage::engine::tx::Hook;
use crate::storage::engine::{Read, StorageError, Tx, execute, json, millis, statements};
use crate::telemetry::trace;
use crate::view::{CertificateView, IssuerView};

statements! {
    INSERT adds(messages) = "INSERT INTO messages (id, body, created_at, trace) VALUES ($1, $2, $3, $4)";
    FORGET writes(messages) reads(deliveries) = "DELETE FROM messages WHERE id IN (
        SELECT m.id FROM messages m
        WHERE m.created_at < $1
          AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.message_id = m.id)
        ORDER BY m.created_at LIMIT $2)";
}

/// The messages of a transaction, written as the last of it.
#[derive(Default)]
struct Outbox(Vec<Announcement>);

/// A message until it is written.
struct Announcement {
    event_type: EventType,
    about: About,
    at: OffsetDateTime,
    trace: Option<Trace>,
}

enum About {
    Certificate(Box<Certificate>),
    Issuer(Box<Issuer>),
}

/// What a receiver reads.
#[derive(Serialize)]
struct Body<T> {
    #[serde(rename = "type")]
    kind: EventType,
    #[serde(with = "time::serde::rfc3339")]
    timestamp: OffsetDateTime,
    data: T,
}

/// Has told at commit what happened to a certificate.
pub(in crate::storage) fn of_certificate(tx: &mut Tx, transition: &certificate::Transition) {
    let certificate::Transition { certificate, event_types, at, .. } = transition;
    about_certificate(tx, certificate, event_types, *at);
}

/// Has told at commit what there is to tell about a certificate.
pub(in crate::storage) fn about_certificate(
    tx: &mut Tx,
    certificate: &Certificate,
    event_types: &[EventType],
    at: OffsetDateTime,
) {
    tx.hook::<Outbox>().0.extend(event_types.iter().map(|event_type| Announcement {
        event_type: *event_type,
        about: About::Certificate(Box::new(certificate.clone())),
        at,
        trace: trace::current(),
    }));
}

/// Has told at commit what happened to an issuer.
pub(in crate::storage) fn of_issuer(tx: &mut Tx, transition: &issuer::Transition) {
    let issuer::Transition { issuer, event_types, at, .. } = transition;
    tx.hook::<Outbox>().0.extend(event_types.iter().map(|event_type| Announcement {
        event_type: *event_type,
        about: About::Issuer(Box::new(issuer.clone())),
        at: *at,
        trace: trace::current(),
    }));
}

impl Hook for Outbox {
    fn before_commit<'t>(&'t mut self, tx: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>> {
        place(tx, std::mem::take(&mut self.0)).boxed()
    }
}

/// Places a delivery of each message for every webhook that hears of it.
async fn place(tx: &mut Tx, announcements: Vec<Announcement>) -> Result<(), StorageError> {
    let mut placed: Vec<(Webhook, Delivery)> = Vec::new();
    for Announcement { event_type, about, at, trace } in announcements {
        // A transaction that has asked nothing yet need not begin for a message that nobody hears.
        if !tx.has_begun() && about.hearers(&mut tx.beside().await?, event_type).await?.is_empty() {
            continue;
        }
        let hearers = about.hearers(tx, event_type).await?;
        if hearers.is_empty() {
            continue;
        }
        let message = insert(tx, &about.body(event_type, at), at, trace).await?;
        let (subject, namespace) = (about.subject(), about.namespace());
        placed.extend(hearers.into_iter().map(|webhook| {
            let delivery = Delivery::new(webhook.id, message, event_type, subject, namespace, at);
            (webhook, delivery)
        }));
    }
    placed.sort_by_key(|(webhook, _)| webhook.id);
    for (webhook, delivery) in placed {
        deliveries::place(tx, &webhook, delivery).await?;
    }
    Ok(())
}

/// A message that only tries a webhook out; its delivery comes before all others.
pub async fn try_out(
    tx: &mut Tx,
    webhook: &Webhook,
    now: OffsetDateTime,
) -> Result<Delivery, StorageError> {
    let event_type = EventType::WebhookTest;
    let data = serde_json::json!({ "webhook": format!("/webhooks/{}", webhook.id) });
    let body = json(&Body { kind: event_type, timestamp: now, data });
    let message = insert(tx, &body, now, trace::current()).await?;
    let subject = Resource::Webhook(webhook.id);
    let namespace = &webhook.namespace;
    let delivery = Delivery::new(webhook.id, message, event_type, subject, namespace, now);
    deliveries::place_alone(tx, &delivery).await?;
    Ok(delivery)
}

/// Forgets messages from before then that are on their way to nobody; at most `limit`.
pub async fn forget(tx: &mut Tx, before: OffsetDateTime, limit: u32) -> Result<u64, StorageError> {
    Ok(execute!(tx, FORGET, millis(before), i64::from(limit))?)
}

async fn insert(
    tx: &mut Tx,
    body: &str,
    at: OffsetDateTime,
    trace: Option<Trace>,
) -> Result<MessageId, StorageError> {
    let id = MessageId::generate(at);
    execute!(tx, INSERT, id.0, body, millis(at), trace.as_ref().map(Trace::to_string))?;
    Ok(id)
}

impl About {
    async fn hearers(
        &self,
        read: &mut Read,
        event_type: EventType,
    ) -> Result<Vec<Webhook>, StorageError> {
        let named: &[Uuid] = match self {
            Self::Certificate(one) => &one.spec.webhooks,
            Self::Issuer(_) => &[],
        };
        let mut found = webhooks::subscribed(read, self.namespace(), event_type).await?;
        for id in named {
            if found.iter().all(|known| known.id.0 != *id) {
                found.extend(webhooks::named(read, *id).await?);
            }
        }
        found.retain(|webhook| match self {
            Self::Certificate(one) => webhook.hears_of(event_type, one),
            Self::Issuer(one) => webhook.hears_of_issuer(event_type, &one.namespace),
        });
        Ok(found)
    }

    fn namespace(&self) -> &str {
        match self {
            Self::Certificate(one) => &one.namespace,
            Self::Issuer(one) => &one.namespace,
        }
    }

    fn subject(&self) -> Resource {
        match self {
            Self::Certificate(one) => Resource::Certificate(one.id),
            Self::Issuer(one) => Resource::Issuer(one.id),
        }
    }

    fn body(&self, event_type: EventType, at: OffsetDateTime) -> String {
        match self {
            Self::Certificate(one) => {
                let data = CertificateView::of(one, at);
                json(&Body { kind: event_type, timestamp: at, data })
            }
            Self::Issuer(one) => {
                let data = IssuerView::from(&**one);
                json(&Body { kind: event_type, timestamp: at, data })
            }
        }
    }
}
