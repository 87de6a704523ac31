//! The event types of webhooks.
//!
//! The machines say themselves when there is something to tell; storage writes it down with the
//! change that it is about. A failure is told once for all the attempts that share it.

use crate::domain::words::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something worth telling.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[schema(as = Notice)]
pub enum EventType {
    /// The first certificate was issued.
    #[serde(rename = "certificate.issued")]
    CertificateIssued,
    /// A later one was issued.
    #[serde(rename = "certificate.renewed")]
    CertificateRenewed,
    /// An issuance failed, and is tried again by itself.
    #[serde(rename = "certificate.failed")]
    CertificateFailed,
    /// An issuance failed, and only a person can mend the cause.
    #[serde(rename = "certificate.blocked")]
    CertificateBlocked,
    /// An issuance succeeded after failures that were told.
    #[serde(rename = "certificate.recovered")]
    CertificateRecovered,
    /// What is served ends soon.
    #[serde(rename = "certificate.expiring")]
    CertificateExpiring,
    /// What is served has ended.
    #[serde(rename = "certificate.expired")]
    CertificateExpired,
    /// What was served was revoked.
    #[serde(rename = "certificate.revoked")]
    CertificateRevoked,
    /// The issuer's account is registered.
    #[serde(rename = "issuer.ready")]
    IssuerReady,
    /// The issuer's account cannot be registered.
    #[serde(rename = "issuer.failed")]
    IssuerFailed,
    /// Somebody tries a webhook out.
    #[serde(rename = "webhook.test")]
    WebhookTest,
}

words! {
    /// The word that receivers see as `type`.
    EventType {
        CertificateIssued = "certificate.issued",
        CertificateRenewed = "certificate.renewed",
        CertificateFailed = "certificate.failed",
        CertificateBlocked = "certificate.blocked",
        CertificateRecovered = "certificate.recovered",
        CertificateExpiring = "certificate.expiring",
        CertificateExpired = "certificate.expired",
        CertificateRevoked = "certificate.revoked",
        IssuerReady = "issuer.ready",
        IssuerFailed = "issuer.failed",
        WebhookTest = "webhook.test",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notice_is_read_back_by_its_word() {
        for event_type in EventType::ALL {
            assert_eq!(EventType::parse(event_type.as_str()), Some(event_type));
            assert_eq!(serde_json::to_value(event_type).unwrap(), event_type.as_str());
        }
        assert_eq!(EventType::parse("certificate.lost"), None);
    }
}
