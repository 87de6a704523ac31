//! Proofs that are about to be shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the orders that will show their proofs within moments: a gather queue waits for them, and no
/// longer.
#[derive(Debug, Clone, Default)]
pub struct Upcoming(Arc<AtomicUsize>);

/// One order on its way to showing its proofs, as long as it is kept.
#[derive(Debug)]
pub struct Expected(Upcoming);

impl Upcoming {
    /// One more.
    pub fn expect(&self) -> Expected {
        self.0.fetch_add(1, Ordering::Relaxed);
        Expected(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
