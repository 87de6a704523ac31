//! What may be asked of others now.

pub(in crate::worker) mod admission;
pub(in crate::worker) mod breaker;
pub(in crate::worker) mod budget;
pub(in crate::worker) mod order_gate;
pub(in crate::worker) mod poll_interval;
pub(in crate::worker) mod refused_requests;
