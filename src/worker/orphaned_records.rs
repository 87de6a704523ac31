//! Takes away DNS records that nobody needs or remembers.
//!
//! Every order cleans up after itself, also after a crash. A record can stay behind all the same: its
//! clean-up was given up, the database was restored from a backup, an answer came after the end. So
//! every zone of every token that an issuer names is looked through for records that bear this
//! installation's mark, and those go whose challenge is over or unknown. Nothing else is touched.

use std::collections::HashSet;

use futures_util::future::join_all;
use time::OffsetDateTime;

use super::order::session::Trouble;
use super::{STEP_TIMEOUT, Worker, WorkerError};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::ChallengeId;
use crate::domain::issuer;
use crate::domain::issuer::Issuer;
use crate::storage::lease;
use crate::storage::lease::Lease;
use crate::storage::{Page, Scope, StorageError, challenges, issuers};

/// Issuers that are looked at together.
const ISSUERS: u32 = 50;

/// Records that are taken away side by side: what fits into one call.
const REMOVED_TOGETHER: usize = 200;

/// What a sweep has come to.
#[derive(Default)]
pub(in crate::worker) struct Sweep {
    /// Zones that were looked through.
    zones: HashSet<String>,
    removed: usize,
    /// A provider asked to be left alone until then.
    pub(in crate::worker) retry_at: Option<OffsetDateTime>,
}

impl Worker {
    /// Looks for forgotten records and takes them away.
    pub(in crate::worker) async fn sweep_dns(&self, lease: &Lease) -> Result<Sweep, WorkerError> {
        let sweep = self.look_everywhere(lease).await?;
        if sweep.removed > 0 {
            tracing::warn!(
                records = sweep.removed,
                zones = sweep.zones.len(),
                "took away TXT records that were left behind"
            );
        }
        Ok(sweep)
    }

    /// Looks through what every issuer's tokens can see, each zone once.
    async fn look_everywhere(&self, lease: &Lease) -> Result<Sweep, WorkerError> {
        let mut sweep = Sweep::default();
        let mut after = None;
        loop {
            let page = Page { limit: ISSUERS, after, descending: false };
            let mut tx = self.db.read().await?;
            let wanted = issuers::Wanted::default();
            let found = issuers::list(&mut tx, &Scope::Everything, &wanted, page).await?;
            drop(tx);
            let (here, more) = found.split_at(found.len().min(ISSUERS as usize));
            for (issuer, cloudflare) in here.iter().flat_map(providers) {
                if self.stop.is_cancelled() {
                    return Ok(sweep);
                }
                let mut tx = self.db.begin();
                lease::extend(&mut tx, lease, self.clock.now()).await?;
                tx.commit().await?;
                let looked = self.sweep_with(issuer, cloudflare, &mut sweep);
                match tokio::time::timeout(STEP_TIMEOUT, looked).await {
                    Ok(Ok(())) => {}
                    Ok(Err(Trouble::Broken(WorkerError::Storage(error)))) => {
                        return Err(error.into());
                    }
                    Ok(Err(Trouble::Broken(error))) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            issuer = issuer.name,
                            "cannot look for forgotten records"
                        );
                    }
                    Ok(Err(Trouble::Failed(failure))) => sweep.note(&failure, issuer),
                    Err(_) => tracing::warn!(
                        issuer = issuer.name,
                        "the look for forgotten records took too long; the next one goes on"
                    ),
                }
            }
            let (false, Some(last)) = (more.is_empty(), here.last()) else { return Ok(sweep) };
            after = Some(last.id.0);
        }
    }

    async fn sweep_with(
        &self,
        issuer: &Issuer,
        cloudflare: &issuer::Cloudflare,
        sweep: &mut Sweep,
    ) -> Result<(), Trouble> {
        let token = self.credential(issuer, &cloudflare.api_token_secret_ref).await?;
        let provider = self.solvers.cloudflare(issuer.kind, cloudflare, &token)?;
        for zone in provider.zones().await? {
            if sweep.zones.contains(&zone) {
                continue;
            }
            let mut left = Vec::new();
            for ours in provider.ours(&zone).await? {
                if !self.is_needed(ours.challenge).await? {
                    left.push(ours.record);
                }
            }
            for some in left.chunks(REMOVED_TOGETHER) {
                for removed in join_all(some.iter().map(|record| provider.delete(record))).await {
                    removed?;
                    sweep.removed += 1;
                }
            }
            sweep.zones.insert(zone);
        }
        Ok(())
    }

    async fn is_needed(&self, challenge: ChallengeId) -> Result<bool, StorageError> {
        let mut tx = self.db.read().await?;
        challenges::needs_proof(&mut tx, challenge).await
    }
}

impl Sweep {
    /// What one token could not do must not keep the others from it.
    fn note(&mut self, failure: &Failure, issuer: &Issuer) {
        if let (Class::Throttle, Some(at)) = (failure.class, failure.retry_at) {
            self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at)));
        }
        tracing::info!(issuer = issuer.name, %failure, "cannot look for forgotten records now");
    }
}

/// The DNS credentials of an issuer.
fn providers(issuer: &Issuer) -> impl Iterator<Item = (&Issuer, &issuer::Cloudflare)> {
    issuer
        .acme
        .solvers
        .iter()
        .filter_map(|solver| solver.dns01.as_ref()?.cloudflare.as_ref())
        .map(move |cloudflare| (issuer, cloudflare))
}
