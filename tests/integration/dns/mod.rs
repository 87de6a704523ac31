//! Solvers, DNS providers and what they answer.

pub(crate) mod faults;
pub(crate) mod propagation;
pub(crate) mod provider_answers;
pub(crate) mod self_check;
pub(crate) mod solvers;
