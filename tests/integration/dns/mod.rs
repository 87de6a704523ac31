//! Solvers, DNS providers and what they answer.

mod caa;
pub(crate) mod faults;
pub(crate) mod propagation;
pub(crate) mod provider_answers;
mod rehearsal;
pub(crate) mod self_check;
pub(crate) mod solvers;
