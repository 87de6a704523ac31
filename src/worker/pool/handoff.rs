//! Begins on certificates that this process adds, as far as there is room: the pool need not look for
//! them.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::task::TaskTracker;

use super::Worker;
use super::slots::Slot;
use crate::storage::fair::Flow;
use crate::storage::handoff::HandedOff;
use crate::storage::lease::Machine;
use crate::worker::limits::Share;
use crate::worker::steps;

/// From now on what this process adds is handed over, as far as there is room, until it is closed.
pub(super) fn open(worker: &Arc<Worker>) -> UnboundedReceiver<HandedOff> {
    let weak = Arc::downgrade(worker);
    let ctx = &worker.context;
    ctx.db.handoff().open(&ctx.settings.name, move |namespace| {
        Some(Box::new(reserve(&*weak.upgrade()?, namespace)?))
    })
}

/// Takes the first step of what is handed over.
pub(super) async fn run(
    worker: Arc<Worker>,
    mut handed: UnboundedReceiver<HandedOff>,
    tasks: TaskTracker,
) {
    while let Some(handed) = handed.recv().await {
        let worker = Arc::clone(&worker);
        match handed {
            // It is given back with all that this process holds, and taken up again.
            HandedOff::Certificate(..) if worker.context.stop.is_cancelled() => {}
            HandedOff::Certificate(certificate, lease, reserved) => drop(tasks.spawn(async move {
                let step = Box::pin(steps::begin(&worker.context, *certificate, lease));
                worker.see_through(&lease, step).await;
                drop(reserved);
            })),
            HandedOff::Unknown(machine, id) => {
                drop(tasks.spawn(async move { worker.context.release(machine, id).await }));
            }
        }
    }
}

/// A share and a slot for a certificate of this namespace. The share is given back first: whoever is woken by the
/// free slot finds room in its flow.
fn reserve(worker: &Worker, namespace: &str) -> Option<(Share, Slot)> {
    if worker.context.stop.is_cancelled() {
        return None;
    }
    let namespace = namespace.to_owned();
    let flow = Flow { machine: Machine::Certificate, issuer: None, namespace };
    worker.slots.reserve(&worker.context.limits.quota, &flow)
}
