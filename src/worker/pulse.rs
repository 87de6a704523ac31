//! The worker's signs of life, for whoever asks whether this process works.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When the worker was last seen to go on.
#[derive(Debug, Default)]
pub struct Pulse {
    /// The beginning of the look for work that is under way.
    looking_since: Mutex<Option<Instant>>,
    /// The last heartbeat that the database took, where there are other replicas.
    beaten_at: Mutex<Option<Instant>>,
}

impl Pulse {
    /// How long the present look for work has taken; `None` while the worker works, or rests.
    pub fn looking_for(&self) -> Option<Duration> {
        self.looking_since.lock().map(|since| since.elapsed())
    }

    /// How long the other replicas have not heard of this one; `None` where there are none.
    pub fn silent_for(&self) -> Option<Duration> {
        self.beaten_at.lock().map(|at| at.elapsed())
    }

    pub(crate) fn looks(&self) {
        *self.looking_since.lock() = Some(Instant::now());
    }

    pub(crate) fn has_looked(&self) {
        *self.looking_since.lock() = None;
    }

    pub(crate) fn has_beaten(&self) {
        *self.beaten_at.lock() = Some(Instant::now());
    }
}
