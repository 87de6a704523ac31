//! What a server thinks of a client certificate: it says so by an alert (RFC 8446, section 6).

use std::error::Error;
use std::io;

use rustls::AlertDescription::{
    self, AccessDenied, BadCertificate, CertificateExpired, CertificateRequired,
    CertificateRevoked, CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
};

/// The alert about the certificate that a request has failed with.
pub(super) fn alert_of(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        // An I/O error hides what it was made of.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map_or(error, |inner| inner as &(dyn Error + 'static));
        if let Some(rustls::Error::AlertReceived(alert)) = inner.downcast_ref() {
            return is_about_a_certificate(*alert).then(|| format!("{alert:?}"));
        }
        next = inner.source();
    }
    None
}

fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | UnknownCA
            | UnsupportedCertificate
    )
}
