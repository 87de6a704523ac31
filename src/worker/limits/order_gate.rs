//! A gate for the new orders of each account, sized like a congestion window (AIMD with a ceiling of
//! two): one at a time at first, two once the CA has taken one, and one again once it has said "later".
//!
//! So a limit costs one refused request, not one for each order that was waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The ceiling. More would bring hardly more orders through, but more refusals when a limit is met.
const MOST: usize = 2;

/// Bounds the memory. An account that is evicted begins with one again.
const MOST_ACCOUNTS: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// An order holds its slot of the pool for so long at the gate; after that it waits in the database.
const WAIT: Duration = Duration::from_secs(5);

/// The gate of every account, as this process knows it.
pub(super) struct OrderGates(Cache<String, Arc<Gate>>);

struct Gate {
    permits: Arc<Semaphore>,
    size: Mutex<Size>,
}

struct Size {
    /// Permits that exist, held or not.
    present: usize,
    wanted: usize,
}

/// One new order's pass; it lasts until the CA has taken the order, or its refusal is stored.
pub(super) struct Pass {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl OrderGates {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_ACCOUNTS).time_to_idle(IDLE).build())
    }

    /// Waits for a pass, but not for long.
    pub(super) async fn pass(&self, account: &str) -> Option<Pass> {
        let gate = self.0.get_with_by_ref(account, || {
            let size = Mutex::new(Size { present: 1, wanted: 1 });
            Arc::new(Gate { permits: Arc::new(Semaphore::new(1)), size })
        });
        let permit = Arc::clone(&gate.permits).acquire_owned();
        let permit = tokio::time::timeout(WAIT, permit).await.ok()?.ok()?;
        Some(Pass { gate, permit: Some(permit) })
    }
}

impl Pass {
    /// The CA took the order: opens the gate to the ceiling.
    pub(super) fn succeeded(&self) {
        let mut size = self.gate.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.wanted = MOST;
        let more = size.wanted.saturating_sub(size.present);
        self.gate.permits.add_permits(more);
        size.present += more;
    }

    /// The CA said "later": narrows the gate to one.
    pub(super) fn refused(&self) {
        let mut size = self.gate.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.wanted = 1;
        size.present -= self.gate.permits.forget_permits(size.present - 1);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut size = self.gate.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size.present > size.wanted
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            size.present -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_goes_first_then_more_and_after_a_refusal_one_again() {
        let gates = OrderGates::new();
        let free =
            |gates: &OrderGates| gates.0.get("a").map(|gate| gate.permits.available_permits());

        let first = gates.pass("a").await.unwrap();
        assert_eq!(free(&gates), Some(0), "it goes alone");
        first.succeeded();
        drop(first);
        assert_eq!(free(&gates), Some(2));
        let both = [gates.pass("a").await.unwrap(), gates.pass("a").await.unwrap()];
        both.iter().for_each(Pass::succeeded);
        assert_eq!(free(&gates), Some(0), "there are no more than two");
        both[0].refused();
        drop(both);
        assert_eq!(free(&gates), Some(1));
        let next = gates.pass("a").await.unwrap();
        assert_eq!(free(&gates), Some(0));
        next.succeeded();
        drop(next);
        assert_eq!(free(&gates), Some(2));
    }
}
