//! Proving control over names: DNS-01 through a provider, HTTP-01 through our own responder.

mod caa;
mod dns01;
mod http01;
mod registry;
mod upcoming;

use async_trait::async_trait;

pub use self::caa::Age;
pub use self::dns01::{DnsProvider, Ours};
pub use self::registry::{SolverSettings, SolverSetupError, Solvers};
pub use self::upcoming::{Expected, Upcoming};
use crate::domain::challenge::{Observation, Proof, Record};
use crate::domain::failure::Failure;

/// One way to show a proof to the CA.
///
/// Nothing here sleeps for long, retries or remembers: the worker repeats what failed, by the
/// failure's class. Every call may be repeated after a crash.
#[async_trait]
pub trait Solver: Send + Sync {
    /// Shows the proof. Returns the record that was written, where this way writes one.
    async fn present(&self, proof: &Proof) -> Result<Option<Record>, Failure>;

    /// Whether the CA would find the proof if it looked now.
    async fn is_ready(&self, proof: &Proof, record: Option<&Record>) -> Result<Readiness, Failure>;

    /// Takes the proof away again; that it is gone already is success. Without a `record` (a crash
    /// came between writing and remembering) it is looked for by its name and value.
    async fn clean_up(&self, proof: &Proof, record: Option<&Record>) -> Result<(), Failure>;
}

/// Whether a failure means that a DNS provider's API gave no answer.
pub fn is_provider_silent(failure: &Failure) -> bool {
    dns01::cloudflare::is_silent(failure)
}

#[cfg(feature = "failpoints")]
pub(crate) mod fuzzing {
    pub(crate) use super::dns01::cloudflare::fuzzing::check as cloudflare;
    pub(crate) use super::dns01::fuzzing::check as dns;
}

/// The result of looking for a proof from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Everybody who was asked sees the proof.
    Ready,
    /// Somebody does not see it yet.
    NotYet {
        /// One for each server that was asked.
        observed: Vec<Observation>,
    },
}

impl Readiness {
    /// Nobody could be asked, for this reason.
    fn unknown(why: impl Into<String>) -> Self {
        Self::NotYet { observed: vec![Observation::missing("", why)] }
    }
}
