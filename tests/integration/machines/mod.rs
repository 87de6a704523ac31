//! The pure state machines, by values only.

pub(crate) mod all;
pub(crate) mod order;
