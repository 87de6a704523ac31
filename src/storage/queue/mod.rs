//! Rows that want attention: who works on which, and when.

pub mod handoff;
pub mod heartbeat;
pub mod lease;
pub mod tasks;
