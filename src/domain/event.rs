//! The history: what happened to which resource, in Kubernetes' words.

use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId, WebhookId};
use super::text::foreign_words;
use crate::domain::words::words;

words! {
    /// The severity of an event.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
    #[schema(as = EventType)]
    pub serde enum Severity {
        /// Things go as they should.
        Normal = "Normal",
        /// Somebody may have to look.
        Warning = "Warning",
    }
}

macro_rules! resources {
    ($($name:ident($id:ident) = $collection:literal,)+) => {
        /// The subject of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Resource {
            $($name($id),)+
        }

        impl Resource {
            /// The word that paths and filters use: `certificates`, `orders`, ….
            pub fn collection(self) -> &'static str {
                match self {
                    $(Self::$name(_) => $collection,)+
                }
            }

            /// The resource's identifier within its collection.
            pub fn id(self) -> Uuid {
                match self {
                    $(Self::$name(id) => id.0,)+
                }
            }
        }

        $(impl From<$id> for Resource {
            fn from(id: $id) -> Self {
                Self::$name(id)
            }
        })+
    };
}

resources! {
    Issuer(IssuerId) = "issuers",
    Certificate(CertificateId) = "certificates",
    Request(RequestId) = "requests",
    Order(OrderId) = "orders",
    Challenge(ChallengeId) = "challenges",
    Webhook(WebhookId) = "webhooks",
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
    pub fn normal(
        about: impl Into<Resource>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::of(Severity::Normal, about.into(), reason, &message.into())
    }

    /// An event of severity `Warning`.
    pub fn warning(
        about: impl Into<Resource>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::of(Severity::Warning, about.into(), reason, &message.into())
    }

    fn of(severity: Severity, about: Resource, reason: &'static str, message: &str) -> Self {
        Self { about, severity, reason, message: readable(message) }
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
