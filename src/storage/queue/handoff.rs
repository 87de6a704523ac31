//! Rows that the process which adds them begins on at once.
//!
//! A certificate that is wanted now would be looked for, claimed and read again a moment later, by the same
//! process as a rule. Where a worker has a place free, the row is added with that worker's lease on it, and
//! handed over with the commit. Should anything come in between, the worker lets go of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::lease::{Lease, Machine};
use crate::domain::certificate::Certificate;

/// The way from whoever adds rows to the worker of this process, if one takes them.
#[derive(Default)]
pub struct Handover(Mutex<Option<Intake>>);

/// What a worker that takes rows has told of itself.
#[derive(Clone)]
struct Intake {
    owner: Arc<str>,
    offer: Arc<Offer>,
    queue: mpsc::UnboundedSender<Handed>,
}

/// Finds a free place for a row of this namespace.
type Offer = dyn Fn(&str) -> Option<Place> + Send + Sync;

/// A place of the worker's, as long as it is kept; only the worker knows what it is made of.
pub type Place = Box<dyn std::any::Any + Send>;

/// What reaches the worker.
pub enum Handed {
    /// To be begun on, in this place.
    Certificate(Box<Certificate>, Lease, Place),
    /// It may have been added, or not: nobody heard.
    Unheard(Machine, Uuid),
}

/// A place that was promised to a row.
pub(in crate::storage) struct Promised {
    intake: Intake,
    place: Place,
}

/// Rows on their way, from before the commit until its answer.
pub(in crate::storage) struct OnTheWay {
    rows: Vec<(Promised, Box<Certificate>)>,
}

impl Handover {
    /// From now on rows are taken by a worker of this name, until [`Self::close`]. There are never more in
    /// the queue than there are places.
    pub fn open(
        &self,
        owner: &str,
        offer: impl Fn(&str) -> Option<Place> + Send + Sync + 'static,
    ) -> mpsc::UnboundedReceiver<Handed> {
        let (queue, handed) = mpsc::unbounded_channel();
        let intake = Intake { owner: owner.into(), offer: Arc::new(offer), queue };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(intake);
        handed
    }

    /// No more rows are taken.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A place for a row of this namespace, if there is one.
    pub(in crate::storage) fn place(&self, namespace: &str) -> Option<Promised> {
        let intake = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let place = (intake.offer)(namespace)?;
        Some(Promised { intake, place })
    }
}

impl Promised {
    /// Who is going to hold the row.
    pub(in crate::storage) fn owner(&self) -> &str {
        &self.intake.owner
    }
}

impl OnTheWay {
    pub(in crate::storage) fn new(rows: Vec<(Promised, Box<Certificate>)>) -> Self {
        Self { rows }
    }

    /// They are there: the worker begins.
    pub(in crate::storage) fn arrived(mut self) {
        for (Promised { intake, place }, certificate) in self.rows.drain(..) {
            let id = certificate.id.0;
            let lease = Lease { machine: Machine::Certificate, id, token: 0 };
            // A worker that is gone has given back all that it held.
            intake.queue.send(Handed::Certificate(certificate, lease, place)).ok();
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        for (Promised { intake, .. }, certificate) in self.rows.drain(..) {
            let id = certificate.id.0;
            intake.queue.send(Handed::Unheard(Machine::Certificate, id)).ok();
        }
    }
}
