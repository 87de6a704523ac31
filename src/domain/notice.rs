//! What is worth telling those who asked to be told: the event types of webhooks.
//!
//! The machines say themselves when there is something to tell; storage writes it down with the
//! change that it is about. A failure is told once for all the attempts that share it.

/// Something worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// The first certificate was issued.
    CertificateIssued,
    /// A later one was issued.
    CertificateRenewed,
    /// An issuance failed, and is tried again by itself.
    CertificateFailed,
    /// An issuance failed, and only a person can mend the cause.
    CertificateBlocked,
    /// An issuance succeeded after failures that were told.
    CertificateRecovered,
    /// What is served ends soon.
    CertificateExpiring,
    /// What is served has ended.
    CertificateExpired,
    /// What was served was revoked.
    CertificateRevoked,
    /// The issuer's account is registered.
    IssuerReady,
    /// The issuer's account cannot be registered.
    IssuerFailed,
    /// Somebody tries a webhook out.
    WebhookTest,
}

impl Notice {
    /// Every notice.
    pub const ALL: [Self; 11] = [
        Self::CertificateIssued,
        Self::CertificateRenewed,
        Self::CertificateFailed,
        Self::CertificateBlocked,
        Self::CertificateRecovered,
        Self::CertificateExpiring,
        Self::CertificateExpired,
        Self::CertificateRevoked,
        Self::IssuerReady,
        Self::IssuerFailed,
        Self::WebhookTest,
    ];

    /// The word that receivers see as `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CertificateIssued => "certificate.issued",
            Self::CertificateRenewed => "certificate.renewed",
            Self::CertificateFailed => "certificate.failed",
            Self::CertificateBlocked => "certificate.blocked",
            Self::CertificateRecovered => "certificate.recovered",
            Self::CertificateExpiring => "certificate.expiring",
            Self::CertificateExpired => "certificate.expired",
            Self::CertificateRevoked => "certificate.revoked",
            Self::IssuerReady => "issuer.ready",
            Self::IssuerFailed => "issuer.failed",
            Self::WebhookTest => "webhook.test",
        }
    }

    /// Reads what [`Notice::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notice_is_read_back_by_its_word() {
        for notice in Notice::ALL {
            assert_eq!(Notice::parse(notice.as_str()), Some(notice));
        }
        assert_eq!(Notice::parse("certificate.lost"), None);
    }
}
