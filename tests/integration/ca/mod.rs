//! CAs: by the protocol, and in ways of their own.

pub(crate) mod accounts;
pub(crate) mod chains;
pub(crate) mod protocol;
pub(crate) mod signatures;
pub(crate) mod unusual_answers;
pub(crate) mod unusual_cas;
