//! The event types of webhooks.
//!
//! The machines say themselves when there is something to tell; storage writes it down with the
//! change that it is about. A failure is told once for all the attempts that share it.

use crate::domain::words::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

words! {
    /// Something worth telling.
    #[derive(
        Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
    )]
    #[schema(as = Notice)]
    pub serde enum EventType {
        /// The first certificate was issued.
        CertificateIssued = "certificate.issued",
        /// A later one was issued.
        CertificateRenewed = "certificate.renewed",
        /// An issuance failed, and is tried again by itself.
        CertificateFailed = "certificate.failed",
        /// An issuance failed, and only a person can mend the cause.
        CertificateBlocked = "certificate.blocked",
        /// An issuance succeeded after failures that were told.
        CertificateRecovered = "certificate.recovered",
        /// What is served ends soon.
        CertificateExpiring = "certificate.expiring",
        /// What is served has ended.
        CertificateExpired = "certificate.expired",
        /// What was served was revoked.
        CertificateRevoked = "certificate.revoked",
        /// A request waits for approval.
        RequestPending = "request.pending",
        /// A request that waited was approved.
        RequestApproved = "request.approved",
        /// A request that waited was denied, or nobody decided in time.
        RequestDenied = "request.denied",
        /// The issuer's account is registered.
        IssuerReady = "issuer.ready",
        /// The issuer's account cannot be registered.
        IssuerFailed = "issuer.failed",
        /// Somebody tries a webhook out.
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
