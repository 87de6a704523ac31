//! What others see of a certificate and of an issuer: one shape for the API's answers and for what
//! webhooks are told. Never a key.

pub(crate) mod certificate;
pub(crate) mod issuer;

pub(crate) use certificate::CertificateView;
pub(crate) use issuer::IssuerView;
