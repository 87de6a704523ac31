//! The pure state machines, by values only.

pub(crate) mod all;
pub(crate) mod order;
pub(crate) mod order_liveness;
pub(crate) mod order_successors;
