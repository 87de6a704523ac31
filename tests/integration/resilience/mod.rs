//! Crashes, outages and hostile surroundings.

#[cfg(feature = "failpoints")]
pub(crate) mod backup;
pub(crate) mod clock;
#[cfg(feature = "failpoints")]
pub(crate) mod crash;
#[cfg(feature = "failpoints")]
pub(crate) mod crash_beside;
#[cfg(feature = "failpoints")]
pub(crate) mod database_file;
#[cfg(feature = "failpoints")]
pub(crate) mod internal_failures;
pub(crate) mod reliability;
#[cfg(feature = "failpoints")]
pub(crate) mod replicas;
#[cfg(feature = "failpoints")]
pub(crate) mod short_lived;
pub(crate) mod side_by_side;
#[cfg(feature = "failpoints")]
pub(crate) mod soak;
