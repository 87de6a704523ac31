//! Delivers: the interpreter of the delivery machine.
//!
//! A webhook is worked on by one worker at a time, under the lease of its row; its messages go out
//! side by side as far as its endpoint's health allows, and in order for each subject.
//!
//! A message is stored, sent, and marked. A worker that dies before the mark has the message sent again,
//! under the same identifier and with the same body.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use url::Url;

use super::context::{Context, pause};
use super::error::WorkerError;
use crate::domain::backoff::Jitter;
use crate::domain::delivery::{self, Answer, Attempt, Delivery, State, Step, Verdict};
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::Failure;
use crate::domain::id::{DeliveryId, WebhookId};
use crate::domain::signature;
use crate::domain::trace::Trace;
use crate::domain::webhook::{Transition, Webhook};
use crate::outbound::{Reply, SendError};
use crate::secret::Secret;
use crate::storage::deliveries::Due;
use crate::storage::lease::Lease;
use crate::storage::{Scope, StorageError, deliveries, events, outbox, webhooks};
use crate::telemetry::LogLimit;
use crate::telemetry::metrics::webhook as metrics;
use crate::telemetry::trace::{Kind, Span};

/// Messages in one run; a webhook that could go on for ever gives its slot back now and then.
const MESSAGES_PER_RUN: usize = 100;

/// A webhook whose host was posted to as often as it may be rests at least so long: until then, some
/// more posts are earned.
const HOLD: Duration = Duration::seconds(5);

/// Rows that are removed in one transaction.
const REMOVED_TOGETHER: u32 = 500;

const MESSAGE_ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One run with one webhook.
struct Run<'a> {
    ctx: &'a Context,
    webhook: Webhook,
    lease: Lease,
    url: Result<Url, url::ParseError>,
    /// The newest first. `Err` says why they cannot be used.
    secrets: Result<Vec<Secret<String>>, String>,
    /// Nothing more is sent before then. Deliveries that were not sent stay as they are, and no try is
    /// counted.
    held_until: Option<OffsetDateTime>,
}

/// Sends what is due for one webhook, until nothing is or its endpoint wants to be left alone.
pub(crate) async fn run(ctx: &Context, lease: Lease) -> Result<(), WorkerError> {
    let Some(mut run) = Run::begin(ctx, lease).await? else { return Ok(()) };
    let mut under_way = FuturesUnordered::new();
    let mut ids = HashSet::new();
    let mut begun = 0;
    loop {
        if begun < MESSAGES_PER_RUN && !ctx.stop.is_cancelled() {
            for Due { delivery, body, trace } in run.take(&ids).await? {
                if delivery.next_step(ctx.clock.now()) == Some(Step::Expire) {
                    run.settle(delivery.expire(ctx.clock.now())).await?;
                    continue;
                }
                ids.insert(delivery.id);
                begun += 1;
                let span = trace.map(|trace| run.span(&delivery, trace));
                let request = run.request(&delivery, &body, span.as_ref());
                under_way.push(async move {
                    let answer = send(ctx, request, body).await;
                    ended(span, &answer);
                    (delivery, answer)
                });
            }
        }
        let Some((delivery, answer)) = under_way.next().await else { break };
        ids.remove(&delivery.id);
        let now = ctx.clock.now();
        match answer {
            Ok(answer) => run.settle(delivery.apply(answer, now, Jitter::random())).await?,
            Err(until) => run.hold(until, now),
        }
    }
    run.rest().await
}

/// A step failed inside: it counts like an endpoint that takes no messages, shown with the webhook, and
/// told in its time.
pub(crate) async fn fail(
    ctx: &Context,
    id: WebhookId,
    failure: &Failure,
    held: &Lease,
) -> Result<bool, WorkerError> {
    let now = ctx.clock.now();
    let mut tx = ctx.db.begin();
    let found = webhooks::find(&mut tx, id, &Scope::Everything).await?;
    let Some((webhook, _)) = found else { return Ok(false) };
    let next = webhook.failed(&failure.to_string(), None, now, Jitter::random());
    webhooks::save(&mut tx, &next, held, Some(now)).await?;
    tx.commit().await?;
    Ok(false)
}

/// Posts once. Everything that happens is an answer. `Err`: nothing was sent, because the host has to be
/// left alone until this moment.
async fn send(
    ctx: &Context,
    request: Result<(Url, HeaderMap), String>,
    body: String,
) -> Result<Answer, OffsetDateTime> {
    let (at, begun) = (ctx.clock.now(), Instant::now());
    failpoint!("before_post");
    let sent = match request {
        Ok((url, headers)) => match ctx.outbound.post(&url, headers, Bytes::from(body)).await {
            Err(SendError::Held { until }) => return Err(until),
            sent => sent.map_err(|error| error.to_string()),
        },
        Err(problem) => Err(problem),
    };
    failpoint!("after_post");
    metrics::attempted(begun.elapsed());
    let took = Duration::try_from(begun.elapsed()).unwrap_or_default();
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
                .map(|wish| wish.from(ctx.clock.now())),
        },
        Err(error) => Answer { attempt: Attempt { error: Some(error), ..attempt }, retry_at: None },
    })
}

/// Ends the span of a try. The words of a receiver, or about it, may hold a part of the URL, which may be a secret.
fn ended(span: Option<Span>, answer: &Result<Answer, OffsetDateTime>) {
    let Some(mut span) = span else { return };
    match answer.as_ref().map(|answer| answer.attempt.status) {
        Ok(status) => span.answered(status),
        Err(_) => span.fail(|| "not sent: the host is left alone".to_owned()),
    }
}

/// Removes deliveries and messages that are older than they are to be kept, a batch at a time; returns
/// how many.
pub(crate) async fn forget(ctx: &Context) -> Result<u64, StorageError> {
    let now = ctx.clock.now();
    let before = now - ctx.settings.delivery_retention;
    let dead_before = now - ctx.settings.dead_delivery_retention;
    let mut forgotten = 0;
    loop {
        let mut tx = ctx.db.begin();
        let deliveries = deliveries::forget(&mut tx, before, REMOVED_TOGETHER).await?;
        let dead = deliveries::forget_dead(&mut tx, dead_before, REMOVED_TOGETHER).await?;
        let messages = outbox::forget(&mut tx, before, REMOVED_TOGETHER).await?;
        webhooks::forget_former(&mut tx, now).await?;
        tx.commit().await?;
        forgotten += deliveries + dead + messages;
        if deliveries.max(dead).max(messages) < u64::from(REMOVED_TOGETHER) {
            return Ok(forgotten);
        }
    }
}

impl<'a> Run<'a> {
    async fn begin(ctx: &'a Context, lease: Lease) -> Result<Option<Self>, WorkerError> {
        let id = WebhookId(lease.id);
        let mut tx = ctx.db.read().await?;
        let found = webhooks::find(&mut tx, id, &Scope::Everything).await?;
        let sealed = webhooks::secrets(&mut tx, id).await?;
        drop(tx);
        let (Some((webhook, _)), Some(sealed)) = (found, sealed) else { return Ok(None) };
        let secrets = open(ctx, &webhook, &sealed, ctx.clock.now());
        let (url, held_until) = (Url::parse(&webhook.spec.url), None);
        Ok(Some(Self { ctx, webhook, lease, url, secrets, held_until }))
    }

    /// The deliveries that may be sent now, beside those that are under way.
    async fn take(&self, under_way: &HashSet<DeliveryId>) -> Result<Vec<Due>, StorageError> {
        if self.held_until.is_some() {
            return Ok(Vec::new());
        }
        let now = self.ctx.clock.now();
        let free = self.webhook.at_once(now).saturating_sub(under_way.len());
        // Somebody waits for a test, whatever the endpoint's health.
        let look = if under_way.is_empty() { free.max(1) } else { free };
        if look == 0 {
            return Ok(Vec::new());
        }
        let mut due = deliveries::due(
            &mut self.ctx.db.read().await?,
            self.webhook.id,
            now,
            look + under_way.len(),
        )
        .await?;
        due.retain(|due| !under_way.contains(&due.delivery.id));
        due.truncate(look);
        if free == 0 {
            due.retain(|due| due.delivery.event_type == EventType::WebhookTest);
        }
        Ok(due)
    }

    fn hold(&mut self, until: OffsetDateTime, now: OffsetDateTime) {
        let until = until.max(now + Jitter::random().stretch(HOLD, 0.2));
        self.held_until = self.held_until.max(Some(until));
    }

    /// The span of one try, below what the message tells of.
    fn span(&self, delivery: &Delivery, trace: Trace) -> Span {
        let mut span = Span::below(trace, Kind::Client, "deliver webhook");
        if let Ok(url) = &self.url {
            span.asks("POST", url);
        }
        span.set("certwright.event_type", || delivery.event_type.as_str());
        span.set("certwright.delivery", || delivery.id.to_string());
        span.set("certwright.attempt", || delivery.attempts + 1);
        span
    }

    /// Where a message goes, and under which headers; each try has a time and signatures of its own.
    fn request(
        &self,
        delivery: &Delivery,
        body: &str,
        span: Option<&Span>,
    ) -> Result<(Url, HeaderMap), String> {
        let (id, at) = (delivery.message_id(), self.ctx.clock.now());
        let signature =
            signature::sign(self.secrets.as_ref().map_err(Clone::clone)?, &id, at, body)
                .map_err(|error| format!("it could not be signed: {error}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let traceparent = span.map(|span| (TRACEPARENT, span.trace().to_string()));
        for (name, value) in
            [(MESSAGE_ID, id), (TIMESTAMP, at.unix_timestamp().to_string()), (SIGNATURE, signature)]
                .into_iter()
                .chain(traceparent)
        {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| "its headers could not be written".to_owned())?;
            headers.insert(name, value);
        }
        let url = self.url.clone().map_err(|error| format!("the URL cannot be read: {error}"))?;
        Ok((url, headers))
    }

    /// Marks the result of a try, on the delivery and on its webhook; tries again while the database is
    /// busy: a message that was sent must not be forgotten.
    async fn settle(&mut self, settled: delivery::Transition) -> Result<(), WorkerError> {
        let now = self.ctx.clock.now();
        let webhook = self.webhook.clone();
        let next = match &settled.verdict {
            Verdict::Well => webhook.delivered(now),
            Verdict::Failed { reason, retry_at } => {
                webhook.failed(reason, *retry_at, now, Jitter::random())
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
                Err(error) if error.is_passing() && tries < 10 => {
                    static LIMIT: LogLimit = LogLimit::new();
                    tries += 1;
                    if let Some(left_out) = LIMIT.pass() {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            delivery = %delivery.id,
                            left_out,
                            "marking a delivery again"
                        );
                    }
                    pause().await;
                }
                marked => break marked?,
            }
        };
        self.webhook = next.webhook;
        metrics::tried(match delivery.state {
            State::Queued | State::Pending => "retried",
            ended => ended.as_str(),
        });
        Ok(())
    }

    async fn mark(
        &self,
        next: &Transition,
        delivery: &Delivery,
        happened: &[Event],
        now: OffsetDateTime,
    ) -> Result<Lease, StorageError> {
        let mut tx = self.ctx.db.begin();
        // The webhook first: its row is the lock.
        let lease = webhooks::save(&mut tx, next, &self.lease, Some(now)).await?;
        deliveries::save(&mut tx, delivery, now).await?;
        events::record(&mut tx, &next.webhook.namespace, None, happened, now);
        tx.commit().await?;
        Ok(lease)
    }

    async fn rest(self) -> Result<(), WorkerError> {
        let now = self.ctx.clock.now();
        let mut tx = self.ctx.db.begin();
        webhooks::rest(&mut tx, &self.webhook, &self.lease, self.held_until, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The secrets that sign at `now`.
fn open(
    ctx: &Context,
    webhook: &Webhook,
    sealed: &webhooks::Secrets,
    now: OffsetDateTime,
) -> Result<Vec<Secret<String>>, String> {
    let former = sealed
        .former
        .as_ref()
        .filter(|(_, until)| *until > now)
        .map(|(former, _)| (webhooks::former_secret_place(webhook), former));
    [(webhooks::secret_place(webhook), &sealed.current)]
        .into_iter()
        .chain(former)
        .map(|(place, sealed)| {
            let opened = ctx
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
    } else if delivery.state == State::Dead {
        tracing::warn!(
            delivery = %delivery.id,
            webhook = %webhook.id,
            event_type = delivery.event_type.as_str(),
            attempts = delivery.attempts,
            status,
            error,
            "a message could not be delivered, and is not tried again; `certwright webhooks redeliver` sends it once more"
        );
    } else {
        tracing::debug!(
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
