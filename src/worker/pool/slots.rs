//! The slots of the pool: how many there are, who waits for one, and what is kept for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::storage::Signals;
use crate::storage::fair::Flow;
use crate::worker::limits::{Quota, Share};

/// Slots that clean-ups of many orders each may hold.
const CLEAN_UPS: usize = 8;

/// This part of the pool (an eighth) is for namespaces that hold nothing of it.
const FOR_NEWCOMERS: usize = 8;

pub(super) struct Slots {
    concurrency: usize,
    free: Arc<Semaphore>,
    for_clean_ups: Arc<Semaphore>,
    /// Whether something may be due that there is no slot for.
    is_crowded: Arc<AtomicBool>,
    signals: Signals,
}

/// A slot that is held. When it comes free, a pool that waits for one hears of it.
pub(super) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    is_crowded: Arc<AtomicBool>,
    signals: Signals,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The permit first: whoever is woken finds it free.
        drop(self.permit.take());
        if self.is_crowded.load(Ordering::SeqCst) {
            self.signals.due().notify_one();
        }
    }
}

impl Slots {
    pub(super) fn new(concurrency: usize, signals: Signals) -> Self {
        let [free, for_clean_ups] = [concurrency, CLEAN_UPS].map(|n| Arc::new(Semaphore::new(n)));
        Self { concurrency, free, for_clean_ups, is_crowded: Arc::default(), signals }
    }

    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Waits for a slot.
    pub(super) async fn take(&self) -> Slot {
        self.held(Arc::clone(&self.free).acquire_owned().await.ok())
    }

    /// A slot that clean-ups may hold, beside the one that every piece of work takes.
    pub(super) fn take_for_clean_up(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.for_clean_ups).try_acquire_owned().ok()
    }

    pub(super) fn clean_ups_are_full(&self) -> bool {
        self.for_clean_ups.available_permits() == 0
    }

    /// From now on a slot that comes free is a signal, and none is reserved.
    pub(super) fn work_may_wait(&self) {
        self.is_crowded.store(true, Ordering::SeqCst);
    }

    /// Nothing is due that was not claimed.
    pub(super) fn no_work_waits(&self) {
        self.is_crowded.store(false, Ordering::SeqCst);
    }

    /// A slot and its share for a row of this flow, unless something else waits for one.
    pub(super) fn reserve(&self, quota: &Arc<Quota>, flow: &Flow) -> Option<(Share, Slot)> {
        if self.is_crowded.load(Ordering::SeqCst) || self.room(quota, flow, self.free()) == 0 {
            return None;
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some((quota.take(flow), self.held(Some(permit))))
    }

    /// How many rows of a flow may be taken, of so many free slots. The last part of the pool is for
    /// namespaces that hold nothing: their first row need not wait for a step of another namespace's.
    pub(super) fn room(&self, quota: &Quota, flow: &Flow, free: usize) -> usize {
        let for_all = free.saturating_sub(self.concurrency / FOR_NEWCOMERS);
        let most = match quota.held(&flow.namespace) {
            0 => for_all.max(1).min(free),
            _ => for_all,
        };
        quota.room(flow).min(most)
    }

    /// Whether so many free slots are all for newcomers.
    pub(super) fn are_for_newcomers(&self, free: usize) -> bool {
        free <= self.concurrency / FOR_NEWCOMERS
    }

    fn held(&self, permit: Option<OwnedSemaphorePermit>) -> Slot {
        let (is_crowded, signals) = (Arc::clone(&self.is_crowded), self.signals.clone());
        Slot { permit, is_crowded, signals }
    }
}
