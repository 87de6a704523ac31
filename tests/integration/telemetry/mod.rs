//! What operators see from outside: metrics, alerts, and the log.

pub(crate) mod canaries;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod prometheus;
pub(crate) mod traces;
