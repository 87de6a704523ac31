//! The states of a certificate, and transitions.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Certificate;
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::Failure;
use crate::domain::id::OrderId;
use crate::domain::words::words;

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Issuance begins at the next wake-up.
    Triggered(Trigger),
    /// Issuance begins once its issuer exists and is ready.
    AwaitingIssuer(Trigger),
    /// Issuance begins once somebody has approved its request.
    AwaitingApproval(Trigger),
    /// An order is under way.
    Ordering(Trigger),
    /// It is there; nothing to do until renewal.
    Idle,
    /// The last attempt failed; the next one comes by itself.
    Backoff,
    /// The last attempt failed, and only a person can mend the cause; probed daily.
    Blocked,
}

words! {
    /// Why something has to be issued.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Trigger {
        /// There is none.
        DoesNotExist = "DoesNotExist",
        /// The present one nears its end.
        Renewing = "Renewing",
        /// A client asked.
        ManuallyTriggered = "ManuallyTriggered",
        /// The present one is not what the spec says any more.
        RequestChanged = "RequestChanged",
        /// The present one was revoked.
        Revoked = "Revoked",
    }
}

/// The one word that sums a certificate up for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// The first issuance is under way.
    Issuing,
    /// It is there.
    Ready,
    /// It is there, and a successor is under way.
    Renewing,
    /// The last attempt failed; the next one comes at `nextAttemptAt`.
    Failed,
    /// Waits for a person.
    Blocked,
    /// What was issued is no longer valid.
    Expired,
    /// What was issued last is revoked.
    Revoked,
}

/// Failures that were told since the last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// `certificate.failed`
    pub failed: bool,
    /// `certificate.blocked`
    pub blocked: bool,
}

/// The result of a change to a certificate. Storage accepts nothing less, so that saving the certificate
/// saves what happened, and what is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub certificate: Certificate,
    pub events: Vec<Event>,
    pub event_types: Vec<EventType>,
    pub at: OffsetDateTime,
    /// A trouble that was not known before, or the end of which is not in sight any more.
    pub trouble: Option<Failure>,
    /// Whether the CA lost the order: the same key and CSR want a fresh one at this moment.
    pub fresh_order_at: Option<OffsetDateTime>,
}

impl Transition {
    /// The certificate as it is, with nothing to tell.
    pub fn silent(certificate: Certificate, at: OffsetDateTime) -> Self {
        let (events, event_types) = (vec![], vec![]);
        Self { certificate, events, event_types, at, trouble: None, fresh_order_at: None }
    }

    pub(super) fn with(self, events: Vec<Event>) -> Self {
        Self { events, ..self }
    }

    pub(super) fn telling(self, event_types: Vec<EventType>) -> Self {
        Self { event_types, ..self }
    }

    /// Adds what was remarked beside.
    #[must_use]
    pub fn remarking(mut self, remarks: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(remarks);
        self
    }

    /// Shows the page where a person can mend the cause of what is waited for.
    #[must_use]
    pub fn with_page_of(mut self, cause: Option<&Failure>) -> Self {
        if let (Some(shown), Some(cause)) = (&mut self.certificate.last_error, cause) {
            shown.instance.clone_from(&cause.instance);
        }
        self
    }

    /// The order that takes the place of the one that the CA lost.
    #[must_use]
    pub fn with_fresh_order(mut self, order: OrderId) -> Self {
        self.certificate.order = Some(order);
        self
    }

    /// Looks at what is waited for again at this moment, though it should tell by itself.
    #[must_use]
    pub fn looking_again_at(mut self, at: OffsetDateTime) -> Self {
        self.certificate.next_action_at = at;
        self
    }

    /// Applies another transition to the result of this one.
    #[must_use]
    pub fn then(self, next: impl FnOnce(Certificate) -> Self) -> Self {
        let Self { certificate, events, event_types, trouble, .. } = self;
        let mut followed = next(certificate);
        followed.trouble = followed.trouble.or(trouble);
        followed.events.splice(0..0, events);
        followed.event_types.splice(0..0, event_types);
        followed
    }
}
