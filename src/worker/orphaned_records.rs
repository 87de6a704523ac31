//! Removes orphaned records: TXT records of ours that no challenge needs any more.
//!
//! Every order cleans up after itself, also after a crash. A record can stay behind all the same: its
//! clean-up was given up, the database was restored from a backup, an answer came after the end. So
//! sweep lists the records that bear this installation's mark, in every zone of every credential that
//! an issuer names, and removes those whose challenge is over or unknown. It touches nothing else.

use std::collections::HashSet;

use futures_util::future::join_all;
use time::OffsetDateTime;

use super::context::{Context, STEP_TIMEOUT};
use super::credentials::dns_credential;
use super::error::{Trouble, WorkerError};
use crate::domain::failure::{Class, Failure};
use crate::domain::issuer::{DnsProvider, Issuer};
use crate::storage::lease::{self, Lease};
use crate::storage::{Page, Scope, challenges, issuers};

/// Issuers that are read together.
const ISSUERS: u32 = 50;

/// Records that are removed side by side: as many as fit into one call.
const REMOVED_TOGETHER: usize = 200;

/// The result of a sweep.
#[derive(Default)]
pub(crate) struct Sweep {
    /// Zones that were swept.
    zones: HashSet<String>,
    removed: usize,
    /// A provider asked to be left alone until then.
    pub(crate) retry_at: Option<OffsetDateTime>,
}

/// Searches for orphaned records and removes them.
pub(crate) async fn sweep(ctx: &Context, lease: &Lease) -> Result<Sweep, WorkerError> {
    let sweep = sweep_everywhere(ctx, lease).await?;
    if sweep.removed > 0 {
        tracing::warn!(
            records = sweep.removed,
            zones = sweep.zones.len(),
            "took away TXT records that were left behind"
        );
    }
    Ok(sweep)
}

/// Sweeps everything that the issuers' credentials can see, each zone once.
async fn sweep_everywhere(ctx: &Context, lease: &Lease) -> Result<Sweep, WorkerError> {
    let mut sweep = Sweep::default();
    let mut after = None;
    loop {
        let page = Page { after, ..Page::first(ISSUERS) };
        let mut tx = ctx.db.read().await?;
        let wanted = issuers::Wanted::default();
        let found = issuers::list(&mut tx, &Scope::Everything, &wanted, page).await?.rows;
        drop(tx);
        let (here, more) = found.split_at(found.len().min(ISSUERS as usize));
        for (issuer, provider) in here.iter().flat_map(providers) {
            if ctx.stop.is_cancelled() {
                return Ok(sweep);
            }
            let mut tx = ctx.db.begin();
            lease::extend(&mut tx, lease, ctx.clock.now()).await?;
            tx.commit().await?;
            let looked = sweep_provider(ctx, issuer, provider, &mut sweep);
            match tokio::time::timeout(STEP_TIMEOUT, looked).await {
                Ok(Ok(())) => {}
                Ok(Err(Trouble::Broken(WorkerError::Storage(error)))) => {
                    return Err(error.into());
                }
                Ok(Err(Trouble::Broken(error))) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        issuer = issuer.name,
                        "cannot look for orphaned records"
                    );
                }
                Ok(Err(Trouble::Failed(failure))) => sweep.note(&failure, issuer),
                Err(_) => tracing::warn!(
                    issuer = issuer.name,
                    "the search for orphaned records took too long; the next one goes on"
                ),
            }
        }
        let (false, Some(last)) = (more.is_empty(), here.last()) else { return Ok(sweep) };
        after = Some(last.id.0);
    }
}

async fn sweep_provider(
    ctx: &Context,
    issuer: &Issuer,
    provider: DnsProvider<'_>,
    sweep: &mut Sweep,
) -> Result<(), Trouble> {
    let secret = dns_credential(ctx, issuer, provider).await?;
    let provider = ctx.solvers.dns_provider(issuer.kind, provider, &secret)?;
    for zone in provider.zones().await? {
        if sweep.zones.contains(&zone) {
            continue;
        }
        let mut left = Vec::new();
        for ours in provider.ours(&zone).await? {
            if !challenges::needs_proof(&mut ctx.db.read().await?, ours.challenge).await? {
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

impl Sweep {
    /// Notes a failure. One credential's failure must not keep the sweep from the others.
    fn note(&mut self, failure: &Failure, issuer: &Issuer) {
        if let (Class::Throttle, Some(at)) = (failure.class, failure.retry_at) {
            self.retry_at = Some(self.retry_at.map_or(at, |known| known.min(at)));
        }
        tracing::info!(issuer = issuer.name, %failure, "cannot look for orphaned records now");
    }
}

/// The DNS providers that an issuer's solvers write through.
fn providers(issuer: &Issuer) -> impl Iterator<Item = (&Issuer, DnsProvider<'_>)> {
    let solvers = issuer.acme.solvers.iter();
    let providers = solvers.filter_map(|solver| solver.dns01.as_ref()?.provider());
    providers.map(move |provider| (issuer, provider))
}
