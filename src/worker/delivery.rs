//! Delivers: the interpreter of the delivery machine.
//!
//! A webhook is worked on by one worker at a time, under the lease of its row; its messages go out
//! side by side as far as its endpoint's health allows, and in order for each subject. Deliveries
//! have slots of their own, so that slow receivers never take those of issuance.
//!
//! Stored, sent, marked: whoever dies before the mark has the message sent again, under the same
//! identifier and with the same body.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use super::pool::claim::POLL;
use super::{LONG, Worker, WorkerError, pause};
use crate::domain::delivery;
use crate::domain::delivery::{Answer, Attempt, Delivery, State, Step, Verdict};
use crate::domain::event_type::EventType;
use crate::domain::id::{DeliveryId, WebhookId};
use crate::domain::signature;
use crate::domain::webhook::{Transition, Webhook};
use crate::outbound::{Reply, SendError};
use crate::secret::Secret;
use crate::storage::lease;
use crate::storage::lease::{Lease, Machine};
use crate::storage::{Scope, StorageError, deliveries, events, outbox, webhooks};

/// Messages in one run; a webhook that could go on for ever gives its slot back now and then.
const MESSAGES_PER_RUN: usize = 100;

/// A webhook whose host was posted to as often as it may be rests at least so long: until then, some
/// more posts are earned.
const HOLD: time::Duration = time::Duration::seconds(5);

/// So many rows are forgotten in one transaction.
const FORGOTTEN_TOGETHER: u32 = 500;

const MESSAGE_ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// One run with one webhook.
struct Run<'a> {
    worker: &'a Worker,
    webhook: Webhook,
    lease: Lease,
    url: Result<Url, url::ParseError>,
    /// The newest first. `Err`: why they cannot be used.
    secrets: Result<Vec<Secret<String>>, String>,
    /// Nothing more is sent before then: what was not sent is as it was, and no try is counted.
    held_until: Option<OffsetDateTime>,
}

impl Worker {
    /// Delivers until it is stopped, then finishes what is under way.
    pub async fn run_deliveries(self: Arc<Self>) {
        let permits = Arc::new(Semaphore::new(self.settings.delivery_concurrency));
        let tasks = TaskTracker::new();
        while !self.stop.is_cancelled() {
            let claimed = match self.claim_webhooks(permits.available_permits()).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for deliveries; trying again in a second"
                    );
                    self.rest_from_deliveries(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if claimed.is_empty() {
                // A slot that comes free is a signal, too.
                let full = permits.available_permits() == 0;
                let next = if full { LONG } else { self.until_next_delivery().await };
                self.rest_from_deliveries(next).await;
                continue;
            }
            for lease in claimed {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let worker = Arc::clone(&self);
                tasks.spawn(async move {
                    worker.work(lease).await;
                    drop(permit);
                    worker.db.signals().deliverable().notify_one();
                });
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Works off every webhook that is due at this moment, one after the other; says how many were.
    pub async fn deliver_due(&self) -> Result<usize, WorkerError> {
        let mut worked = 0;
        loop {
            let claimed = self.claim_webhooks(1).await?;
            let Some(lease) = claimed.into_iter().next() else { return Ok(worked) };
            self.work(lease).await;
            worked += 1;
        }
    }

    async fn claim_webhooks(&self, free: usize) -> Result<Vec<Lease>, StorageError> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let mut tx = self.db.read().await?;
        let due = lease::next_delivery_due(&mut tx).await?;
        drop(tx);
        if due.is_none_or(|at| at > now) {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin();
        let name = &self.settings.name;
        let claimed = lease::claim(&mut tx, Machine::Delivery, name, now, free).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn until_next_delivery(&self) -> Duration {
        let longest = if self.db.dialect() == "sqlite" { LONG } else { POLL };
        let due = async {
            let mut tx = self.db.read().await?;
            lease::next_delivery_due(&mut tx).await
        };
        match due.await {
            Ok(Some(at)) => {
                Duration::try_from(at - self.clock.now()).unwrap_or_default().min(longest)
            }
            Ok(None) => longest,
            Err(_) => Duration::from_secs(1),
        }
    }

    async fn rest_from_deliveries(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // Either way it is time to look again.
            _ = tokio::time::timeout(pause, self.db.signals().deliverable().notified()) => {}
        }
    }

    /// Sends what is due for one webhook, until nothing is or its endpoint wants to be left alone.
    pub(in crate::worker) async fn deliver(&self, lease: Lease) -> Result<(), WorkerError> {
        let Some(mut run) = Run::begin(self, lease).await? else { return Ok(()) };
        let mut under_way = FuturesUnordered::new();
        let mut ids = HashSet::new();
        let mut begun = 0;
        loop {
            if begun < MESSAGES_PER_RUN && !self.stop.is_cancelled() {
                for (delivery, body) in run.take(&ids).await? {
                    if delivery.next_step(self.clock.now()) == Some(Step::Expire) {
                        run.settle(delivery.expire(self.clock.now())).await?;
                        continue;
                    }
                    ids.insert(delivery.id);
                    begun += 1;
                    let request = run.request(&delivery, &body);
                    under_way.push(async move {
                        let answer = self.send(request, body).await;
                        (delivery, answer)
                    });
                }
            }
            let Some((delivery, answer)) = under_way.next().await else { break };
            ids.remove(&delivery.id);
            let now = self.clock.now();
            match answer {
                Ok(answer) => run.settle(delivery.apply(answer, now, super::jitter())).await?,
                Err(until) => run.hold(until, now),
            }
        }
        run.rest().await
    }

    /// Posts once. Whatever happens is an answer, but that it was not sent because its host has to be left
    /// alone until a certain moment.
    async fn send(
        &self,
        request: Result<(Url, HeaderMap), String>,
        body: String,
    ) -> Result<Answer, OffsetDateTime> {
        let (at, begun) = (self.clock.now(), Instant::now());
        failpoint!("before_post");
        let sent = match request {
            Ok((url, headers)) => {
                match self.outbound.post(&url, headers, Bytes::from(body)).await {
                    Err(SendError::Held { until }) => return Err(until),
                    sent => sent.map_err(|error| error.to_string()),
                }
            }
            Err(problem) => Err(problem),
        };
        failpoint!("after_post");
        let took = time::Duration::try_from(begun.elapsed()).unwrap_or_default();
        let attempt = Attempt { at, took, status: None, error: None, answer: None };
        Ok(match sent {
            Ok(Reply { status, retry_after, first_bytes }) => Answer {
                attempt: Attempt {
                    status: Some(status),
                    answer: Some(delivery::shown(&first_bytes)),
                    ..attempt
                },
                retry_at: retry_after
                    .filter(|_| matches!(status, 429 | 503))
                    .map(|wish| wish.from(self.clock.now())),
            },
            Err(error) => {
                Answer { attempt: Attempt { error: Some(error), ..attempt }, retry_at: None }
            }
        })
    }

    /// Forgets deliveries and messages that are older than they are to be remembered, a batch at a
    /// time; says how many that were.
    pub async fn forget_deliveries(&self) -> Result<u64, StorageError> {
        let now = self.clock.now();
        let before = now - self.settings.delivery_retention;
        let mut forgotten = 0;
        loop {
            let mut tx = self.db.begin();
            let deliveries = deliveries::forget(&mut tx, before, FORGOTTEN_TOGETHER).await?;
            let messages = outbox::forget(&mut tx, before, FORGOTTEN_TOGETHER).await?;
            webhooks::forget_former(&mut tx, now).await?;
            tx.commit().await?;
            forgotten += deliveries + messages;
            if deliveries.max(messages) < u64::from(FORGOTTEN_TOGETHER) {
                return Ok(forgotten);
            }
        }
    }
}

impl<'a> Run<'a> {
    async fn begin(worker: &'a Worker, lease: Lease) -> Result<Option<Self>, WorkerError> {
        let id = WebhookId(lease.id);
        let mut tx = worker.db.read().await?;
        let found = webhooks::find(&mut tx, id, &Scope::Everything).await?;
        let sealed = webhooks::secrets(&mut tx, id).await?;
        drop(tx);
        let (Some((webhook, _)), Some(sealed)) = (found, sealed) else { return Ok(None) };
        let secrets = open(worker, id, &sealed, worker.clock.now());
        let (url, held_until) = (Url::parse(&webhook.spec.url), None);
        Ok(Some(Self { worker, webhook, lease, url, secrets, held_until }))
    }

    /// What may be sent now, beside what is under way.
    async fn take(
        &self,
        under_way: &HashSet<DeliveryId>,
    ) -> Result<Vec<(Delivery, String)>, StorageError> {
        if self.held_until.is_some() {
            return Ok(Vec::new());
        }
        let now = self.worker.clock.now();
        let free = self.webhook.at_once(now).saturating_sub(under_way.len());
        // Somebody waits for a test, whatever the endpoint's health.
        let look = if under_way.is_empty() { free.max(1) } else { free };
        if look == 0 {
            return Ok(Vec::new());
        }
        let mut tx = self.worker.db.read().await?;
        let mut due =
            deliveries::due(&mut tx, self.webhook.id, now, look + under_way.len()).await?;
        due.retain(|(delivery, _)| !under_way.contains(&delivery.id));
        due.truncate(look);
        if free == 0 {
            due.retain(|(delivery, _)| delivery.event_type == EventType::WebhookTest);
        }
        Ok(due)
    }

    fn hold(&mut self, until: OffsetDateTime, now: OffsetDateTime) {
        let until = until.max(now + super::jitter().stretch(HOLD, 0.2));
        self.held_until = self.held_until.max(Some(until));
    }

    /// Where a message goes, and under which headers; each try has a time and signatures of its own.
    fn request(&self, delivery: &Delivery, body: &str) -> Result<(Url, HeaderMap), String> {
        let (id, at) = (delivery.message_id(), self.worker.clock.now());
        let signature =
            signature::sign(self.secrets.as_ref().map_err(Clone::clone)?, &id, at, body)
                .map_err(|error| format!("it could not be signed: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in
            [(MESSAGE_ID, id), (TIMESTAMP, at.unix_timestamp().to_string()), (SIGNATURE, signature)]
        {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| "its headers could not be written".to_owned())?;
            headers.insert(name, value);
        }
        let url = self.url.clone().map_err(|error| format!("the URL cannot be read: {error}"))?;
        Ok((url, headers))
    }

    /// Marks what came of a try, on the delivery and on its webhook; again, while the database is
    /// busy: what was sent must not be forgotten.
    async fn settle(&mut self, settled: delivery::Transition) -> Result<(), WorkerError> {
        let now = self.worker.clock.now();
        let webhook = self.webhook.clone();
        let next = match &settled.verdict {
            Verdict::Well => webhook.delivered(now),
            Verdict::Failed { reason, retry_at } => {
                webhook.failed(reason, *retry_at, now, super::jitter())
            }
            Verdict::Gone => webhook.gone(now),
            Verdict::None => Transition::silent(webhook, now),
        };
        let mut delivery = settled.delivery;
        if next.webhook.disabled.is_some() && !delivery.state.is_final() {
            delivery = delivery.held(now);
        }
        log(&next.webhook, &delivery);
        let mut tries = 0;
        self.lease = loop {
            match self.mark(&next, &delivery, &settled.events, now).await {
                Err(StorageError::Unavailable(error)) if tries < 10 => {
                    tries += 1;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        delivery = %delivery.id,
                        "marking a delivery again"
                    );
                    pause().await;
                }
                marked => break marked?,
            }
        };
        self.webhook = next.webhook;
        Ok(())
    }

    async fn mark(
        &self,
        next: &Transition,
        delivery: &Delivery,
        happened: &[crate::domain::event::Event],
        now: OffsetDateTime,
    ) -> Result<Lease, StorageError> {
        let mut tx = self.worker.db.begin();
        // The webhook first: its row is the lock.
        let lease = webhooks::save(&mut tx, next, &self.lease, Some(now)).await?;
        deliveries::save(&mut tx, delivery, now).await?;
        events::record(&mut tx, &next.webhook.namespace, None, happened, now);
        tx.commit().await?;
        Ok(lease)
    }

    async fn rest(self) -> Result<(), WorkerError> {
        let now = self.worker.clock.now();
        let mut tx = self.worker.db.begin();
        webhooks::rest(&mut tx, &self.webhook, &self.lease, self.held_until, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The secrets that sign at `now`.
fn open(
    worker: &Worker,
    id: WebhookId,
    sealed: &webhooks::Secrets,
    now: OffsetDateTime,
) -> Result<Vec<Secret<String>>, String> {
    let former = sealed
        .former
        .as_ref()
        .filter(|(_, until)| *until > now)
        .map(|(former, _)| (webhooks::former_secret_place(id), former));
    [(webhooks::secret_place(id), &sealed.current)]
        .into_iter()
        .chain(former)
        .map(|(place, sealed)| {
            let opened = worker
                .sealer
                .open(&place, sealed)
                .map_err(|error| format!("its signing secret cannot be opened: {error}"))?;
            let text = String::from_utf8(opened.expose().clone());
            text.map(Secret::new).map_err(|_| "its signing secret is damaged".to_owned())
        })
        .collect()
}

fn log(webhook: &Webhook, delivery: &Delivery) {
    let (status, error) = match &delivery.last {
        Some(attempt) => (attempt.status, attempt.error.as_deref()),
        None => (None, None),
    };
    if delivery.state == State::Delivered {
        tracing::debug!(delivery = %delivery.id, webhook = %webhook.id, event_type = delivery.event_type.as_str(), "delivered");
    } else {
        tracing::info!(
            delivery = %delivery.id,
            webhook = %webhook.id,
            event_type = delivery.event_type.as_str(),
            state = delivery.state.as_str(),
            attempts = delivery.attempts,
            status,
            error,
            "not delivered"
        );
    }
}
