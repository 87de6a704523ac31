//! The history: what happened to which resource, in Kubernetes' words.

use uuid::Uuid;

use super::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId, WebhookId};
use super::text::foreign_words;

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    /// `Normal` or `Warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The subject of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// An `Issuer` or `ClusterIssuer`.
    Issuer(IssuerId),
    Certificate(CertificateId),
    Request(RequestId),
    /// An ACME order.
    Order(OrderId),
    Challenge(ChallengeId),
    Webhook(WebhookId),
}

impl Resource {
    /// The word that paths and filters use: `certificates`, `orders`, ….
    pub fn collection(self) -> &'static str {
        match self {
            Self::Issuer(_) => "issuers",
            Self::Certificate(_) => "certificates",
            Self::Request(_) => "requests",
            Self::Order(_) => "orders",
            Self::Challenge(_) => "challenges",
            Self::Webhook(_) => "webhooks",
        }
    }

    /// The resource's identifier within its collection.
    pub fn id(self) -> Uuid {
        match self {
            Self::Issuer(id) => id.0,
            Self::Certificate(id) => id.0,
            Self::Request(id) => id.0,
            Self::Order(id) => id.0,
            Self::Challenge(id) => id.0,
            Self::Webhook(id) => id.0,
        }
    }
}

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub about: Resource,
    pub severity: Severity,
    /// cert-manager's `CamelCase` word for it.
    pub reason: &'static str,
    /// One sentence for a person. Never holds a secret.
    pub message: String,
}

impl Event {
    /// Good news about `about`.
    pub fn normal(about: Resource, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about, severity: Severity::Normal, reason, message: readable(&message.into()) }
    }

    /// An event of severity `Warning`.
    pub fn warning(about: Resource, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about, severity: Severity::Warning, reason, message: readable(&message.into()) }
    }
}

/// Longest message: room for a failure with its title and the words around it.
const LONGEST_MESSAGE: usize = 4_000;

/// Messages may quote others, so they are cleaned.
fn readable(message: &str) -> String {
    foreign_words(message, LONGEST_MESSAGE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stands_in_the_history_on_one_clean_line() {
        let about = Resource::Order(OrderId(Uuid::nil()));
        let event = Event::warning(about, "Failed", "the CA says:\n\u{1b}[2J\u{202E}no");

        assert_eq!(event.message, "the CA says: [2Jno");
    }
}
