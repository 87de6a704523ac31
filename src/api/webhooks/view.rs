//! Views of a webhook. The signing secret is shown only once.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::event_type::EventType;
use crate::domain::webhook::{Disabled, Selector, Webhook};

/// Somebody who asked to be told.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    /// Its identifier.
    id: Uuid,
    /// Its namespace.
    namespace: String,
    /// Its name, unique in the namespace.
    name: String,
    /// The URL that messages are posted to.
    url: String,
    /// For people.
    description: Option<String>,
    /// The event types that are sent; all when empty.
    events: Vec<EventType>,
    /// Of which namespaces; `*` for all.
    namespaces: Vec<String>,
    /// Labels that a certificate must carry.
    labels: BTreeMap<String, String>,
    /// The certificates whose events are sent.
    selector: Selector,
    /// True while nothing is sent.
    disabled: bool,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time of the last change by a client.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// The health of its endpoint.
    status: WebhookStatus,
    /// Signs what is sent, `whsec_…`. Shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    secret: Option<String>,
}

/// The health of an endpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WebhookStatus {
    /// A summary in one word.
    phase: WebhookPhase,
    /// Why, for a person.
    message: String,
    /// Failed tries in a row, of whatever message.
    consecutive_failures: u32,
    /// Time of the first of them.
    #[serde(with = "time::serde::rfc3339::option")]
    failing_since: Option<OffsetDateTime>,
    /// Time of the last success.
    #[serde(with = "time::serde::rfc3339::option")]
    last_success_at: Option<OffsetDateTime>,
    /// Time of the last failure.
    #[serde(with = "time::serde::rfc3339::option")]
    last_failure_at: Option<OffsetDateTime>,
    /// The last error; `null` after success.
    last_error: Option<String>,
    /// It is left alone until then.
    #[serde(with = "time::serde::rfc3339::option")]
    paused_until: Option<OffsetDateTime>,
    /// Until when the former secret signs as well.
    #[serde(with = "time::serde::rfc3339::option")]
    former_secret_until: Option<OffsetDateTime>,
}

/// The health of an endpoint in one word.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
enum WebhookPhase {
    /// It takes what it is sent, as far as is known.
    Ready,
    /// It does not take what it is sent; tried again by itself.
    Failing,
    /// It is sent nothing.
    Disabled,
}

impl WebhookView {
    /// The webhook as it is at `now`.
    pub(super) fn of(webhook: &Webhook, now: OffsetDateTime) -> Self {
        let spec = webhook.spec.clone();
        Self {
            id: webhook.id.0,
            namespace: webhook.namespace.clone(),
            name: webhook.name.clone(),
            url: spec.url,
            description: spec.description,
            events: spec.events,
            namespaces: spec.namespaces,
            labels: spec.labels,
            selector: spec.selector,
            disabled: webhook.disabled.is_some(),
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            status: status(webhook, now),
            secret: None,
        }
    }

    /// The same with its secret, for the one answer that shows it.
    pub(super) fn with_secret(self, secret: &str) -> Self {
        Self { secret: Some(secret.to_owned()), ..self }
    }
}

fn status(webhook: &Webhook, now: OffsetDateTime) -> WebhookStatus {
    let health = &webhook.health;
    let (phase, message) = match (webhook.disabled, health.failures) {
        (Some(Disabled::Client), _) => {
            (WebhookPhase::Disabled, "A client disabled it; enable it with `disabled: false`")
        }
        (Some(Disabled::Gone), _) => (
            WebhookPhase::Disabled,
            "It answered 410 Gone; enable it with `disabled: false` if that was a mistake",
        ),
        (Some(Disabled::Failing), _) => (
            WebhookPhase::Disabled,
            "It failed for five days; mend it, enable it with `disabled: false`, and POST …/redeliver sends what it missed",
        ),
        (None, 0) => (WebhookPhase::Ready, "It takes what it is sent"),
        (None, _) => (WebhookPhase::Failing, "It does not take what it is sent; tried again"),
    };
    WebhookStatus {
        phase,
        message: message.to_owned(),
        consecutive_failures: health.failures,
        failing_since: health.failing_since,
        last_success_at: health.last_success_at,
        last_failure_at: health.last_failure_at,
        last_error: health.last_error.clone(),
        paused_until: health.paused_until.filter(|until| *until > now),
        former_secret_until: webhook.former_until.filter(|until| *until > now),
    }
}
