//! The tree itself: who may know whom, and what tests may depend on.

pub(crate) mod architecture;
pub(crate) mod audit;
pub(crate) mod conditions;
pub(crate) mod docs;
pub(crate) mod fuzzing;
pub(crate) mod harness;
pub(crate) mod storage_floors;
pub(crate) mod test_sources;
pub(crate) mod worker_rooms;
