//! How many new orders of one account are under way at the same time: one at first, two once the CA has
//! taken one, and one again once it has said "later".
//!
//! So a limit costs one refused request, not one for each order that was waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More would bring hardly more orders through, but more refusals when a limit is met.
const MOST: usize = 2;

/// Accounts that are kept in mind. One that is forgotten begins with one again.
const MOST_ACCOUNTS: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// So long a slot is held for others' answers; after that the order waits in the database.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pace of every account, as this process knows it.
pub(in crate::worker) struct Paces(Cache<String, Arc<Pace>>);

struct Pace {
    turns: Arc<Semaphore>,
    size: Mutex<Size>,
}

struct Size {
    /// Permits that there are, held or not.
    present: usize,
    wanted: usize,
}

/// One new order's turn; it lasts until the CA has taken it, or its refusal is stored.
pub(in crate::worker) struct Turn {
    pace: Arc<Pace>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Paces {
    pub(in crate::worker) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_ACCOUNTS).time_to_idle(IDLE).build())
    }

    /// Waits for a turn, but not for long.
    pub(in crate::worker) async fn turn(&self, account: &str) -> Option<Turn> {
        let pace = self.0.get_with_by_ref(account, || {
            let size = Mutex::new(Size { present: 1, wanted: 1 });
            Arc::new(Pace { turns: Arc::new(Semaphore::new(1)), size })
        });
        let permit = Arc::clone(&pace.turns).acquire_owned();
        let permit = tokio::time::timeout(PATIENCE, permit).await.ok()?.ok()?;
        Some(Turn { pace, permit: Some(permit) })
    }
}

impl Turn {
    /// The CA took the order: more may go out at the same time.
    pub(in crate::worker) fn went_well(&self) {
        let mut size = self.pace.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.wanted = MOST;
        let more = size.wanted.saturating_sub(size.present);
        self.pace.turns.add_permits(more);
        size.present += more;
    }

    /// The CA wants fewer: the next one goes alone.
    pub(in crate::worker) fn was_refused(&self) {
        let mut size = self.pace.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.wanted = 1;
        size.present -= self.pace.turns.forget_permits(size.present - 1);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut size = self.pace.size.lock().unwrap_or_else(PoisonError::into_inner);
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
        let paces = Paces::new();
        let free = |paces: &Paces| paces.0.get("a").map(|pace| pace.turns.available_permits());

        let first = paces.turn("a").await.unwrap();
        assert_eq!(free(&paces), Some(0), "it goes alone");
        first.went_well();
        drop(first);
        assert_eq!(free(&paces), Some(2));
        let both = [paces.turn("a").await.unwrap(), paces.turn("a").await.unwrap()];
        both.iter().for_each(Turn::went_well);
        assert_eq!(free(&paces), Some(0), "there are no more than two");
        both[0].was_refused();
        drop(both);
        assert_eq!(free(&paces), Some(1));
        let next = paces.turn("a").await.unwrap();
        assert_eq!(free(&paces), Some(0));
        next.went_well();
        drop(next);
        assert_eq!(free(&paces), Some(2));
    }
}
