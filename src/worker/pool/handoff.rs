//! Begins on what this process adds, as far as there is room: nobody has to look for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::quota::Share;
use crate::storage::fair::Lane;
use crate::storage::handoff::HandedOff;
use crate::storage::lease::Machine;
use crate::worker::{Slot, Worker};

impl Worker {
    /// From now on what this process adds is handed over, as far as there is room, until it is closed.
    pub(in crate::worker) fn open_handover(
        self: &Arc<Self>,
        permits: &Arc<Semaphore>,
    ) -> UnboundedReceiver<HandedOff> {
        let (worker, permits) = (Arc::downgrade(self), Arc::clone(permits));
        self.db.handoff().open(&self.settings.name, move |namespace| {
            let place = worker.upgrade()?.place(&permits, namespace)?;
            Some(Box::new(place))
        })
    }

    /// Begins on what is handed over.
    pub(in crate::worker) async fn take_handed(
        self: Arc<Self>,
        mut handed: UnboundedReceiver<HandedOff>,
        tasks: TaskTracker,
    ) {
        while let Some(handed) = handed.recv().await {
            let worker = Arc::clone(&self);
            match handed {
                // It is given back with all that this process holds, and taken up again.
                HandedOff::Certificate(..) if self.stop.is_cancelled() => {}
                HandedOff::Certificate(certificate, lease, place) => {
                    drop(tasks.spawn(async move {
                        let step = Box::pin(worker.begin(*certificate, lease));
                        worker.see_through(&lease, step).await;
                        drop(place);
                    }))
                }
                HandedOff::Unknown(machine, id) => {
                    drop(tasks.spawn(async move { worker.release(machine, id).await }));
                }
            }
        }
    }

    /// A slot and its share for a certificate of this namespace, unless there is somebody who waits for one.
    fn place(&self, permits: &Arc<Semaphore>, namespace: &str) -> Option<(Slot, Share)> {
        if self.stop.is_cancelled() || self.local.is_crowded.load(Ordering::SeqCst) {
            return None;
        }
        let namespace = namespace.to_owned();
        let lane = Lane { machine: Machine::Certificate, issuer: None, namespace };
        if self.room(&lane, permits.available_permits()) == 0 {
            return None;
        }
        let permit: OwnedSemaphorePermit = Arc::clone(permits).try_acquire_owned().ok()?;
        Some((self.slot(permit), self.local.shares.take(&lane)))
    }
}
