//! Drives issuers, certificates, orders and deliveries, one durable step at a time.
//!
//! Nothing is remembered between runs but what the database holds: a crash anywhere costs one lease
//! period. No transaction is open while the outside world is being asked. Waiting happens in the
//! database; the pool itself sleeps on a timer to the next row that is due, and does nothing when
//! none is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::ca::Authorities;
use crate::clock::Clock;
use crate::domain::backoff::Jitter;
use crate::domain::failure::{Failure, code};
use crate::domain::order::UnexpectedAnswer;
use crate::heavy::Pool;
use crate::outbound::Sender;
use crate::pki::PkiError;
use crate::secret::{SealError, Sealer};
use crate::solver::Solvers;
use crate::storage::lease::{self, Lease, Machine};
use crate::storage::{Db, Signals, StorageError};
use limits::breaker::Breakers;
use limits::order_gate::Paces;
use limits::poll_interval::Haste;
use limits::refused_requests::Limiters;
use pool::claim::{Look, Work};
use pool::internal_failure::Stumbles;
use pool::quota::Shares;

mod certificate;
mod credentials;
mod delivery;
mod expiry;
mod issuer;
mod limits;
mod order;
mod orphaned_records;
mod pool;
mod revocation;

pub use expiry::look_at_expiry;

/// What every step needs, shared by all.
pub struct Worker {
    /// Where everything is remembered.
    pub db: Db,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Opens account keys, tokens and private keys; seals new ones.
    pub sealer: Arc<Sealer>,
    /// Certificate authorities.
    pub ca: Arc<Authorities>,
    /// Ways to prove control over names.
    pub solvers: Arc<Solvers>,
    /// Posts to webhooks.
    pub outbound: Sender,
    /// How it works.
    pub settings: Settings,
    /// What this process alone keeps in mind.
    pub local: Local,
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
    /// Time from one look for forgotten DNS records to the next.
    pub sweep_interval: Duration,
    /// Rows that are worked on at the same time.
    pub concurrency: usize,
    /// Orders of one issuer among them, at most.
    pub per_issuer: usize,
    /// Rows of one namespace among them, at most.
    pub per_namespace: usize,
    /// Namespace of the secrets that a `ClusterIssuer` refers to.
    pub cluster_namespace: String,
    /// Webhooks that are delivered to at the same time.
    pub delivery_concurrency: usize,
    /// How long what was delivered is remembered.
    pub delivery_retention: time::Duration,
    /// How long events are kept.
    pub event_retention: time::Duration,
}

/// What a process keeps in mind; bounded, and of no consequence when it is lost.
pub struct Local {
    shares: Arc<Shares>,
    /// Places for clean-ups of many orders each.
    clean_ups: Arc<Semaphore>,
    /// Whether something is due that there is no slot for.
    is_crowded: Arc<AtomicBool>,
    paces: Paces,
    haste: Haste,
    breakers: Breakers,
    stumbles: Stumbles,
    /// Keys are made here, beside the threads that take steps.
    heavy: Pool,
    limiters: Limiters,
    /// Looks for forgotten records in a row that a provider put off.
    sweeps_put_off: AtomicU32,
}

impl Local {
    /// Nothing is known yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            shares: Shares::new(settings.per_issuer, settings.per_namespace),
            clean_ups: Arc::new(Semaphore::new(CLEAN_UPS)),
            is_crowded: Arc::default(),
            paces: Paces::new(),
            haste: Haste::new(),
            breakers: Breakers::default(),
            stumbles: Stumbles::default(),
            heavy: Pool::default(),
            limiters: Limiters::new(),
            sweeps_put_off: AtomicU32::new(0),
        }
    }
}

/// Why a step came to nothing.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The database did not do what was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A sealed value could not be opened, or one not be sealed.
    #[error("a secret could not be opened or sealed")]
    Secret(#[from] SealError),
    /// A key or CSR could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Our own bug.
    #[error("a step broke the order machine's contract")]
    Contract(#[from] UnexpectedAnswer),
    /// A background computation died.
    #[error("a computation was cut short")]
    Cut(#[from] tokio::task::JoinError),
    /// Our own bug, too.
    #[error("a step panicked: {0}")]
    Panicked(String),
}

/// A step gives up in time for its lease to be still ours.
const STEP_TIMEOUT: Duration = Duration::from_secs(100);
const _: () = assert!(STEP_TIMEOUT.as_secs() < lease::LEASE.whole_seconds().unsigned_abs());

/// Without anybody else who writes, or without a free slot, a signal is what counts: this look is
/// only there in case the clock was set.
const LONG: Duration = Duration::from_hours(1);

/// Slots that clean-ups may hold.
const CLEAN_UPS: usize = 8;

/// Tries at saving what was done, a second apart where the database is away.
const SAVES: usize = 30;

/// A place in the pool. However its work ends, whoever waits for a place hears of it.
struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    is_crowded: Arc<AtomicBool>,
    signals: Signals,
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.permit.take());
        if self.is_crowded.load(Ordering::SeqCst) {
            self.signals.due().notify_one();
        }
    }
}

impl Worker {
    /// Works until it is stopped, then finishes the steps that are under way.
    pub async fn run(self: Arc<Self>) {
        let permits = Arc::new(Semaphore::new(self.settings.concurrency));
        let tasks = TaskTracker::new();
        self.show_up().await;
        self.schedule_housekeeping().await;
        let seen = self
            .settings
            .shared
            .then(|| AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).stay_seen())));
        let (signals, is_crowded) = (self.db.signals(), &self.local.is_crowded);
        let handed = self.open_handover(&permits);
        tasks.spawn(Arc::clone(&self).take_handed(handed, tasks.clone()));
        while !self.stop.is_cancelled() {
            // Until it is known better, everything that changes is worth another look.
            signals.looks_at(None);
            is_crowded.store(true, Ordering::SeqCst);
            let free = permits.available_permits();
            if free == 0 {
                self.rest(LONG).await;
                continue;
            }
            let found = match self.look(free).await {
                Ok(Look::Found(found)) => found,
                Ok(Look::Nothing(next)) => {
                    is_crowded.store(false, Ordering::SeqCst);
                    signals.looks_at(next);
                    self.rest(self.until(next)).await;
                    continue;
                }
                Ok(Look::Crowded) => {
                    let pause = match self.next_claimable(free).await {
                        Ok(next) => self.until(next),
                        Err(_) => Duration::from_secs(1),
                    };
                    self.rest(pause).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look for work; trying again in a second"
                    );
                    self.rest(Duration::from_secs(1)).await;
                    continue;
                }
            };
            for work in found {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let worker = Arc::clone(&self);
                let slot = self.slot(permit);
                tasks.spawn(async move {
                    Box::pin(worker.carry(work)).await;
                    drop(slot);
                });
            }
        }
        self.db.handoff().close();
        tasks.close();
        tasks.wait().await;
        drop(seen);
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        let (signals, is_crowded) = (self.db.signals().clone(), Arc::clone(&self.local.is_crowded));
        Slot { permit: Some(permit), is_crowded, signals }
    }

    /// Until something may be due: a signal, the time, or the end.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // Either way it is time to look again.
            _ = tokio::time::timeout(pause, self.db.signals().due().notified()) => {}
        }
    }

    /// Does what was claimed, and then gives back its part in the pool.
    async fn carry(&self, work: Work) {
        match work {
            Work::Row(lease, _share) => self.work(lease).await,
            Work::CleanUps(over, _place) => self.clean_up_all(over).await,
        }
    }

    async fn work(&self, lease: Lease) {
        let step = Box::pin(async {
            match lease.machine {
                Machine::Issuer => self.issuer(lease).await,
                Machine::Certificate => self.certificate(lease).await,
                Machine::Order => self.order(lease).await,
                Machine::Expiry => look_at_expiry(&self.db, lease, self.clock.now()).await,
                Machine::Revocation => self.revocation(lease).await,
                Machine::Task => self.housekeeping(lease).await,
                Machine::Delivery => self.deliver(lease).await,
            }
        });
        self.see_through(&lease, step).await;
    }
}

impl Worker {
    /// Lets go of a row whose step came to nothing because the database was away. What cannot be
    /// said to the database within a while, it finds out when the lease runs out.
    async fn release(&self, machine: Machine, id: uuid::Uuid) {
        for _ in 0..30 {
            pause().await;
            let released = async {
                let mut tx = self.db.begin();
                let (owner, now) = (&self.settings.name, self.clock.now());
                lease::release(&mut tx, machine, id, owner, now).await?;
                tx.commit().await
            };
            if released.await.is_ok() || self.stop.is_cancelled() {
                return;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it is the database that is waited for")]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// A secret of ours that cannot be opened: only the right master key helps.
fn unreadable(error: &SealError) -> Failure {
    Failure::of(code::SECRET_UNREADABLE, error.to_string())
}

/// A new chance, for whatever would otherwise happen at the same moment.
fn jitter() -> Jitter {
    let mut bytes = [0_u8; 4];
    // Without randomness there is no spreading, which is no reason to stop.
    aws_lc_rs::rand::fill(&mut bytes).ok();
    Jitter::new(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}
