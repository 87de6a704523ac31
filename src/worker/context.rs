//! The context that every step works in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::limits::Limits;
use super::pulse::Pulse;
use crate::ca::Authorities;
use crate::clock::Clock;
use crate::heavy::Pool;
use crate::outbound::Sender;
use crate::secret::Sealer;
use crate::solver::Solvers;
use crate::storage::Db;
use crate::storage::lease::{self, Machine};

/// A step gives up after this long, while its lease is still ours.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(100);
const _: () = assert!(STEP_TIMEOUT.as_secs() < lease::LEASE.whole_seconds().unsigned_abs());

/// Tries at saving a result, a second apart where the database is away.
pub(crate) const SAVES: usize = 30;

/// Everything that a step needs, shared by all steps.
pub struct Context {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    /// Opens account keys, tokens and private keys; seals new ones.
    pub sealer: Arc<Sealer>,
    pub ca: Arc<Authorities>,
    pub solvers: Arc<Solvers>,
    /// Posts to webhooks.
    pub outbound: Sender,
    pub settings: Settings,
    /// Limits on what is asked of CAs and DNS providers.
    pub limits: Limits,
    /// Makes RSA keys, beside the threads that take steps.
    pub heavy: Pool,
    /// Says that the worker lives.
    pub pulse: Arc<Pulse>,
    /// Cancelled when the service stops: steps that are under way are finished, no more are begun.
    pub stop: CancellationToken,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Stands in `leased_by`; no other process has or had it.
    pub name: String,
    /// Whether other replicas may work on the same database.
    pub shared: bool,
    /// Whether it is certain that there are none.
    pub alone: bool,
    /// A replica that has been silent for so long is taken for dead by the others.
    pub lease: Duration,
    /// Time from one search for orphaned DNS records to the next.
    pub sweep_interval: Duration,
    /// Rows that are worked on at the same time.
    pub concurrency: usize,
    /// Namespace of the secrets that a `ClusterIssuer` refers to.
    pub cluster_namespace: String,
    /// Webhooks that are delivered to at the same time.
    pub delivery_concurrency: usize,
    /// How long finished deliveries are kept.
    pub delivery_retention: time::Duration,
    /// How long those are kept that failed for good.
    pub dead_delivery_retention: time::Duration,
    /// How long a request waits for approval.
    pub approval_timeout: time::Duration,
    /// How long events are kept.
    pub event_retention: time::Duration,
    /// How long orders are kept that are over, with what belongs to them.
    pub order_retention: time::Duration,
}

impl Context {
    /// Gives up the lease of a row whose step came to nothing because the database was away. What
    /// cannot be written within a while is found out when the lease runs out.
    pub(crate) async fn release(&self, machine: Machine, id: Uuid) {
        for _ in 0..SAVES {
            pause().await;
            let released = async {
                let mut tx = self.db.begin();
                lease::release(&mut tx, machine, id, &self.settings.name, self.clock.now()).await?;
                tx.commit().await
            };
            if released.await.is_ok() || self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Waits for a signal, the time, or the end of the service.
    pub(crate) async fn rest(&self, pause: Duration, signal: &Notify) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // Either way it is time to look again.
            _ = tokio::time::timeout(pause, signal.notified()) => {}
        }
    }
}

/// Waits a second for the database.
#[expect(clippy::disallowed_methods, reason = "it is the database that is waited for")]
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
