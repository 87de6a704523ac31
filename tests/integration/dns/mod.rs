//! Solvers, DNS providers and what they answer.

pub(crate) mod faults;
pub(crate) mod provider_answers;
pub(crate) mod solvers;
