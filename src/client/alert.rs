//! What a server thinks of a client certificate: it says so by an alert (RFC 8446, section 6).

const ABOUT_CERTIFICATES: [&str; 9] = [
    "AccessDenied",
    "BadCertificate",
    "CertificateExpired",
    "CertificateRequired",
    "CertificateRevoked",
    "CertificateUnknown",
    "DecryptError",
    "UnknownCA",
    "UnsupportedCertificate",
];

/// The alert about the certificate that a request has failed with. Only the words tell: HTTP/2 keeps nothing else of what
/// its connection has ended with.
pub(super) fn alert_in(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once("received fatal alert: ")?;
    let alert = rest.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    ABOUT_CERTIFICATES.contains(&alert).then_some(alert)
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error};

    use super::*;

    #[test]
    fn alerts_about_certificates_are_told_from_others() {
        for (alert, expected) in [
            (AlertDescription::CertificateExpired, Some("CertificateExpired")),
            (AlertDescription::UnknownCA, Some("UnknownCA")),
            (AlertDescription::UnsupportedCertificate, Some("UnsupportedCertificate")),
            (AlertDescription::DecryptError, Some("DecryptError")),
            (AlertDescription::HandshakeFailure, None),
            (AlertDescription::ProtocolVersion, None),
        ] {
            let words = format!("connection error: {}. And more", Error::AlertReceived(alert));
            assert_eq!(alert_in(&words), expected, "{words}");
        }
        assert_eq!(alert_in("connection reset by peer"), None);
    }
}
