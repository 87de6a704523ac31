//! What the service knows about certificates, free of HTTP, SQL, clocks and sockets.
//!
//! Documents that a client writes and reads back (`spec`s, failures) derive `serde` and
//! `utoipa::ToSchema`: they are stored, shown and described in one shape, cert-manager's.

pub mod challenge;
pub mod failure;
pub mod id;
pub mod issuer;
