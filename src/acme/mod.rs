//! ACME (RFC 8555) for a client and a server: signatures, nonces and problem documents.
//!
//! The module does no I/O; the client is [`crate::ca`].

pub(crate) mod jose;
pub(crate) mod json;
pub(crate) mod nonce;
pub(crate) mod problem;
