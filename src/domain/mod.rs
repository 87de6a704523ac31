//! What the service knows about certificates, free of HTTP, SQL, clocks and sockets.
//!
//! Documents that a client writes and reads back (`spec`s, failures) derive `serde` and
//! `utoipa::ToSchema`: they are stored, shown and described in one shape, cert-manager's.

pub mod api_key;
pub mod backoff;
pub mod certificate;
pub mod challenge;
pub mod duration;
pub mod event;
pub mod explain;
pub mod failure;
pub mod id;
pub mod issuer;
pub mod name;
pub mod order;
pub mod selection;
