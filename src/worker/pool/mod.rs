//! Claims rows and runs their steps.

pub(in crate::worker) mod claim;
pub(in crate::worker) mod handoff;
pub(in crate::worker) mod heartbeat;
pub(in crate::worker) mod housekeeping;
pub(in crate::worker) mod internal_failure;
pub(in crate::worker) mod quota;
