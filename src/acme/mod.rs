//! What an ACME client and an ACME server have in common (RFC 8555): signatures, nonces and problem
//! documents.
//!
//! Nothing here sends or receives anything; the client is [`crate::ca`].

pub(crate) mod jose;
pub(crate) mod json;
pub(crate) mod nonce;
pub(crate) mod problem;
