//! Load on others, and fairness among tenants.

pub(crate) mod bounded_load;
pub(crate) mod breakers;
pub(crate) mod budget;
pub(crate) mod deadlines;
pub(crate) mod endless_refusals;
pub(crate) mod fairness;
pub(crate) mod learned_waits;
pub(crate) mod provider_load;
pub(crate) mod receiver_load;
pub(crate) mod throttles;
