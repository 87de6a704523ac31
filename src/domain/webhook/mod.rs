//! Webhooks: who asked to be told of what, and how the endpoint is doing.
//!
//! While an endpoint fails it is sent one message at a time; after [`OUTAGE`] failures in a row it is
//! left alone for growing pauses. Success ends that at once. An endpoint that fails for
//! [`GIVEN_UP_AFTER`] without a success is disabled, and so is one that answers 410.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::domain::backoff::{self, Jitter};
use crate::domain::certificate::Certificate;
use crate::domain::delivery::Delivery;
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::id::WebhookId;
use crate::domain::words::words;

/// Stands for every namespace.
pub const EVERY_NAMESPACE: &str = "*";

/// The client's part of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The endpoint.
    pub url: String,
    pub description: Option<String>,
    /// Empty means every type.
    pub events: Vec<EventType>,
    /// `*` stands for all.
    pub namespaces: Vec<String>,
    /// Labels that a certificate must carry, all of them.
    pub labels: BTreeMap<String, String>,
    pub selector: Selector,
}

words! {
    /// Which certificates a webhook is told of.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub serde enum Selector {
        /// Those of its namespaces that carry its labels, and those that name it.
        #[default]
        All = "all",
        /// Only those that name it in their `webhooks`.
        Named = "named",
    }
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    pub namespace: String,
    /// Unique in the namespace.
    pub name: String,
    pub spec: Spec,
    /// Why it is sent nothing, if so.
    pub disabled: Option<Disabled>,
    pub health: Health,
    /// The former secret signs as well until then.
    pub former_until: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

words! {
    /// Why a webhook is sent nothing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Disabled {
        /// A client wanted it so.
        Client = "client",
        /// The endpoint answered 410.
        Gone = "gone",
        /// The endpoint failed for too long.
        Failing = "failing",
    }
}

/// The health of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub failures: u32,
    /// The time of the first of them.
    pub failing_since: Option<OffsetDateTime>,
    pub last_failure_at: Option<OffsetDateTime>,
    pub last_success_at: Option<OffsetDateTime>,
    /// Cleared by success.
    pub last_error: Option<String>,
    /// It is left alone until then.
    pub paused_until: Option<OffsetDateTime>,
}

/// The result of a change to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub webhook: Webhook,
    pub events: Vec<Event>,
    pub at: OffsetDateTime,
    /// An outage since this moment is over: what it kept waiting goes out now.
    pub recovered_from: Option<OffsetDateTime>,
}

impl Transition {
    /// The webhook as it is, with nothing to tell.
    pub fn silent(webhook: Webhook, at: OffsetDateTime) -> Self {
        Self { webhook, events: vec![], at, recovered_from: None }
    }

    fn with(self, events: Vec<Event>) -> Self {
        Self { events, ..self }
    }
}

/// Messages to one healthy endpoint at the same time.
const AT_ONCE: usize = 4;

/// After so many failures in a row, the endpoint counts as down rather than a message as bad.
pub const OUTAGE: u32 = 3;

/// An endpoint that fails for so long without a success is disabled.
pub const GIVEN_UP_AFTER: Duration = Duration::days(5);

/// Failures further apart than this are not one outage: nobody looked in between.
const STREAK_ENDS_AFTER: Duration = Duration::days(2);

/// Longest `Retry-After` that is respected.
const LONGEST_PAUSE: Duration = Duration::hours(1);

impl Webhook {
    /// The name of a webhook that was given none: the last digits of a UUIDv7 are random.
    pub fn default_name(id: WebhookId) -> String {
        let digits = id.0.simple().to_string();
        format!("webhook-{}", &digits[20..])
    }

    /// Whether it wants to be told this of this certificate.
    pub fn hears_of(&self, event_type: EventType, certificate: &Certificate) -> bool {
        let names_us = certificate.spec.webhooks.contains(&self.id.0);
        let selected = match self.spec.selector {
            Selector::Named => names_us,
            Selector::All => names_us || self.spec.wants_labels(&certificate.labels),
        };
        selected && self.spec.wants(event_type) && self.spec.covers(&certificate.namespace)
    }

    /// Whether it wants to be told this of an issuer of this namespace; the empty one is that of
    /// `ClusterIssuer`s, which concern everybody.
    pub fn hears_of_issuer(&self, event_type: EventType, namespace: &str) -> bool {
        self.spec.selector == Selector::All
            && self.spec.labels.is_empty()
            && self.spec.wants(event_type)
            && (namespace.is_empty() || self.spec.covers(namespace))
    }

    /// Whether it still asks for this delivery, by its namespace; an unknown namespace is only
    /// for who asks for all.
    pub fn still_hears_of(&self, delivery: &Delivery) -> bool {
        delivery.event_type == EventType::WebhookTest
            || match &delivery.namespace {
                Some(namespace) => namespace.is_empty() || self.spec.covers(namespace),
                None => self.spec.covers(EVERY_NAMESPACE),
            }
    }

    /// Takes over what a client wants now. Enabling it forgets how badly it was doing.
    #[must_use]
    pub fn respecified(mut self, spec: Spec, disabled: bool, now: OffsetDateTime) -> Transition {
        let mut events = Vec::new();
        if self.spec != spec || self.disabled.is_some() != disabled {
            self.updated_at = now;
        }
        match (self.disabled, disabled) {
            (None, true) => {
                self.disabled = Some(Disabled::Client);
                events.push(Event::normal(self.id, "Disabled", "A client disabled it"));
            }
            (Some(_), false) => {
                self.disabled = None;
                self.health =
                    Health { last_success_at: self.health.last_success_at, ..Health::default() };
                events.push(Event::normal(self.id, "Enabled", "A client enabled it"));
            }
            (None, false) | (Some(_), true) => {}
        }
        if self.spec.url != spec.url {
            self.health.paused_until = None;
        }
        self.spec = spec;
        Transition::silent(self, now).with(events)
    }

    /// It has a new secret; the former one signs as well until `former_until`.
    #[must_use]
    pub fn rotated(
        mut self,
        former_until: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Transition {
        let message = match former_until {
            Some(until) => {
                format!("It has a new secret; the former one signs as well until {until}")
            }
            None => "It has a new secret; the former one does not sign any more".to_owned(),
        };
        self.former_until = former_until;
        self.updated_at = now;
        let event = Event::normal(self.id, "SecretRotated", message);
        Transition::silent(self, now).with(vec![event])
    }

    /// It took a message.
    #[must_use]
    pub fn delivered(mut self, now: OffsetDateTime) -> Transition {
        let was = std::mem::take(&mut self.health);
        self.health.last_success_at = Some(now);
        self.health.last_failure_at = was.last_failure_at;
        let outage = was.failing_since.filter(|_| was.failures >= OUTAGE);
        let mut next = Transition::silent(self, now);
        if let Some(since) = outage {
            let message = format!("It takes messages again, after failing since {since}");
            next.events.push(Event::normal(next.webhook.id, "Recovered", message));
            next.recovered_from = outage;
        }
        next
    }

    /// It did not take a message; `retry_at` is when it wants to be asked again, if it said so.
    #[must_use]
    pub fn failed(
        mut self,
        reason: &str,
        retry_at: Option<OffsetDateTime>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let health = &mut self.health;
        let forgotten = health.last_failure_at.is_none_or(|last| now - last > STREAK_ENDS_AFTER);
        if health.failures == 0 || forgotten {
            health.failures = 0;
            health.failing_since = Some(now);
        }
        health.failures = health.failures.saturating_add(1);
        health.last_failure_at = Some(now);
        health.last_error = Some(reason.to_owned());
        let pause = health
            .failures
            .checked_sub(OUTAGE)
            .map(|beyond| now + backoff::transient(beyond, jitter));
        health.paused_until = pause.max(retry_at.map(|asked| asked.min(now + LONGEST_PAUSE)));
        let since = health.failing_since.unwrap_or(now);
        let mut events = Vec::new();
        if health.failures == OUTAGE {
            let message = format!("It does not take messages: {reason}");
            events.push(Event::warning(self.id, "Failing", message));
        }
        if self.disabled.is_none() && now - since >= GIVEN_UP_AFTER {
            self.disabled = Some(Disabled::Failing);
            let message = format!(
                "It was disabled: it has not taken a message since {since}, last because: {reason}. Mend it, enable it (PATCH with disabled: false), and send what it missed (POST …/redeliver)"
            );
            events.push(Event::warning(self.id, "Disabled", message));
        }
        Transition::silent(self, now).with(events)
    }

    /// It answered that it is gone for good (410).
    #[must_use]
    pub fn gone(mut self, now: OffsetDateTime) -> Transition {
        self.health.last_failure_at = Some(now);
        self.health.last_error = Some("it answered 410 Gone".to_owned());
        let events = match self.disabled.replace(Disabled::Gone) {
            None => {
                vec![Event::warning(self.id, "Disabled", "It was disabled: it answered 410 Gone")]
            }
            Some(_) => vec![],
        };
        Transition::silent(self, now).with(events)
    }

    /// It is no longer wanted.
    #[must_use]
    pub fn deleted(self, now: OffsetDateTime) -> Transition {
        let event = Event::normal(self.id, "Deleted", "The webhook was deleted");
        Transition::silent(self, now).with(vec![event])
    }

    /// The number of messages that may be under way to it now.
    pub fn at_once(&self, now: OffsetDateTime) -> usize {
        if self.disabled.is_some() || self.is_paused(now) {
            0
        } else if self.health.failures > 0 {
            1
        } else {
            AT_ONCE
        }
    }

    /// Whether it is left alone for a while.
    pub fn is_paused(&self, now: OffsetDateTime) -> bool {
        self.health.paused_until.is_some_and(|until| until > now)
    }
}

impl Spec {
    fn wants(&self, event_type: EventType) -> bool {
        self.events.is_empty() || self.events.contains(&event_type)
    }

    /// Whether it is about this namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|name| name == EVERY_NAMESPACE || name == namespace)
    }

    fn wants_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
