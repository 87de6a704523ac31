//! Direct hand-off of rows to the worker of the process that adds them.
//!
//! Otherwise a worker would look for a new certificate, claim it and read it a moment later, in the same process
//! as a rule. Where the worker has a slot free, the row is added with that worker's lease on it, and handed over
//! with the commit. Where the outcome of the commit is unknown, the worker lets go of the row.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::lease::{Lease, Machine};
use crate::domain::certificate::Certificate;
use crate::storage::engine::tx::Hook;
use crate::storage::engine::{StorageError, Tx};

/// The way from whoever adds rows to the worker of this process, if there is one that takes them.
#[derive(Clone, Default)]
pub struct Handoff(Arc<Mutex<Option<Intake>>>);

/// A worker that takes rows.
#[derive(Clone)]
struct Intake {
    owner: Arc<str>,
    offer: Arc<Offer>,
    queue: mpsc::UnboundedSender<HandedOff>,
}

/// Finds a free slot for a row of this namespace.
type Offer = dyn Fn(&str) -> Option<Slot> + Send + Sync;

/// A slot of the worker's, as long as it is kept; only the worker knows what it is made of.
pub type Slot = Box<dyn std::any::Any + Send>;

/// What reaches the worker.
pub enum HandedOff {
    /// A certificate that was committed, to be begun on in this slot.
    Certificate(Box<Certificate>, Lease, Slot),
    /// A row that may have been committed, or not.
    Unknown(Machine, Uuid),
}

/// A slot that is reserved for a row.
pub(in crate::storage) struct Reservation {
    intake: Intake,
    slot: Slot,
}

/// The rows that a transaction hands off.
#[derive(Default)]
struct Pending {
    handoff: Handoff,
    rows: Vec<(Reservation, Box<Certificate>)>,
    is_committing: bool,
}

impl Handoff {
    /// From now on a worker of this name takes rows, until [`Self::close`]. There are never more in the queue
    /// than the worker has slots.
    pub fn open(
        &self,
        owner: &str,
        offer: impl Fn(&str) -> Option<Slot> + Send + Sync + 'static,
    ) -> mpsc::UnboundedReceiver<HandedOff> {
        let (queue, handed_off) = mpsc::unbounded_channel();
        let intake = Intake { owner: owner.into(), offer: Arc::new(offer), queue };
        *self.0.lock() = Some(intake);
        handed_off
    }

    /// No more rows are taken.
    pub fn close(&self) {
        self.0.lock().take();
    }

    /// Has the rows of this transaction handed off here.
    pub(in crate::storage) fn attach(&self, tx: &mut Tx) {
        tx.hook::<Pending>().handoff = self.clone();
    }
}

/// Reserves a slot for a row of this namespace, if there is one.
pub(in crate::storage) fn reserve(tx: &mut Tx, namespace: &str) -> Option<Reservation> {
    let handoff = &tx.hook::<Pending>().handoff;
    let intake = handoff.0.lock().clone()?;
    let slot = (intake.offer)(namespace)?;
    Some(Reservation { intake, slot })
}

/// Hands a certificate off when this transaction is committed.
pub(in crate::storage) fn hand_off(
    tx: &mut Tx,
    reservation: Reservation,
    certificate: Certificate,
) {
    tx.hook::<Pending>().rows.push((reservation, Box::new(certificate)));
}

impl Reservation {
    /// Who is going to hold the row.
    pub(in crate::storage) fn owner(&self) -> &str {
        &self.intake.owner
    }
}

impl Hook for Pending {
    fn before_commit<'t>(&'t mut self, _: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>> {
        self.is_committing = true;
        ready(Ok(())).boxed()
    }

    fn committed(mut self: Box<Self>) {
        for (Reservation { intake, slot }, certificate) in self.rows.drain(..) {
            let id = certificate.id.0;
            let lease = Lease { machine: Machine::Certificate, id, token: 0 };
            // A worker that is gone has given back all that it held.
            intake.queue.send(HandedOff::Certificate(certificate, lease, slot)).ok();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_committing {
            return;
        }
        for (Reservation { intake, .. }, certificate) in self.rows.drain(..) {
            let id = certificate.id.0;
            intake.queue.send(HandedOff::Unknown(Machine::Certificate, id)).ok();
        }
    }
}
