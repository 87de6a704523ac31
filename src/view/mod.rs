//! Shapes on the wire: what clients write (`spec`), and what they see in answers and webhook messages. No private
//! key is ever among them.

pub(crate) mod certificate;
pub(crate) mod issuer;
pub(crate) mod policy;
pub(crate) mod spec;
pub(crate) mod throttle;

pub(crate) use certificate::CertificateView;
pub(crate) use issuer::IssuerView;
pub(crate) use policy::PolicyView;
pub(crate) use throttle::ThrottleView;
