//! DNS-01: a TXT record that a provider writes (RFC 8555, section 8.4).

pub(super) mod cloudflare;
pub(super) mod propagation;

use std::sync::Arc;

use async_trait::async_trait;

use self::cloudflare::Cloudflare;
use self::propagation::Dns;
use super::{Readiness, Solver};
use crate::domain::challenge::{Observation, Proof, Record};
use crate::domain::failure::Failure;
use crate::domain::issuer::{CnameStrategy, PropagationMode};
use crate::domain::name::comparable;

/// Proves by TXT records.
///
/// The extra delay and the timeout of `propagation` are not looked at here: whoever schedules the
/// steps waits.
pub struct Dns01 {
    /// Who writes the record.
    pub provider: Arc<Cloudflare>,
    /// Who is asked about it.
    pub dns: Arc<Dns>,
    /// Whether a CNAME says where it is written.
    pub strategy: CnameStrategy,
    /// Whose view counts.
    pub propagation: PropagationMode,
}

impl Dns01 {
    async fn place(&self, proof: &Proof) -> Result<String, Failure> {
        match self.strategy {
            CnameStrategy::None => Ok(proof.txt_name()),
            CnameStrategy::Follow => self.dns.canonical(&proof.txt_name()).await,
        }
    }
}

#[async_trait]
impl Solver for Dns01 {
    async fn present(&self, proof: &Proof) -> Result<Option<Record>, Failure> {
        let name = self.place(proof).await?;
        self.provider.create(&name, &proof.txt_value(), proof.challenge).await.map(Some)
    }

    async fn is_ready(&self, proof: &Proof, record: Option<&Record>) -> Result<Readiness, Failure> {
        if self.propagation == PropagationMode::None {
            return Ok(Readiness::Ready);
        }
        // CAs follow CNAMEs whatever the strategy, so the look does too.
        let name = match self.dns.canonical(&proof.txt_name()).await {
            Ok(name) => name,
            Err(failure) => return Ok(Readiness::unknown(failure.to_string())),
        };
        let seen = self.dns.look_for_txt(&name, &proof.txt_value(), self.propagation).await;
        match (seen, record) {
            (Readiness::NotYet { mut observed }, Some(record))
                if comparable(&record.name) != name =>
            {
                let elsewhere = format!(
                    "the record stands at {}, but {} leads to {name}",
                    record.name,
                    proof.txt_name()
                );
                observed.insert(0, Observation::missing("", elsewhere));
                Ok(Readiness::NotYet { observed })
            }
            (seen, _) => Ok(seen),
        }
    }

    async fn clean_up(&self, proof: &Proof, record: Option<&Record>) -> Result<(), Failure> {
        if let Some(record) = record {
            return self.provider.delete(record).await;
        }
        let name = self.place(proof).await?;
        self.provider.delete_by_value(&name, &proof.txt_value()).await
    }
}
