//! Connections: who may open, keep and direct them.

pub(crate) mod advisories;
pub(crate) mod client_certificates;
pub(crate) mod connections;
#[cfg(feature = "failpoints")]
pub(crate) mod connections_attacked;
pub(crate) mod guarded;
pub(crate) mod outbound;
#[cfg(feature = "failpoints")]
pub(crate) mod proxies;
pub(crate) mod tenants;
pub(crate) mod tls;
