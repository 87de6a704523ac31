//! A gate for the new orders of each account: as many are under way as its window (`order_window`) has room
//! for, and the others wait for their turn.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::order_window::{NewOrders, Sent, Window};

/// Bounds the memory. An account that is evicted begins as at the start, a namespace with another line.
const MOST_ACCOUNTS: u64 = 1_000;
const MOST_NAMESPACES: u64 = 1_000;
const IDLE: Duration = Duration::from_mins(10);

/// An order holds its slot of the pool for so long at the gate; after that it waits in the database.
const WAIT: Duration = Duration::from_secs(5);

/// The gate of every account, as this process knows it.
pub(super) struct OrderGates {
    bounds: NewOrders,
    gates: Cache<String, Arc<Gate>>,
}

/// Its permits are given in the order in which they were asked for; of each namespace one order at a time asks, and the
/// others stand in line behind it. So the namespaces take turns, however many orders one of them has.
struct Gate {
    permits: Arc<Semaphore>,
    lines: Cache<String, Arc<Semaphore>>,
    state: Mutex<State>,
}

struct State {
    window: Window,
    /// Permits that exist, held or not.
    present: usize,
}

/// One new order's pass; it lasts until the CA has taken the order, or its refusal is stored.
pub(super) struct Pass {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
    sent: Sent,
    since: Instant,
}

impl OrderGates {
    pub(super) fn new(bounds: NewOrders) -> Self {
        let gates = Cache::builder().max_capacity(MOST_ACCOUNTS).time_to_idle(IDLE).build();
        Self { bounds, gates }
    }

    /// Waits for a pass, but not for long.
    pub(super) async fn pass(
        &self,
        account: &str,
        namespace: &str,
        now: OffsetDateTime,
    ) -> Option<Pass> {
        let gate = self.gates.get_with_by_ref(account, || Arc::new(Gate::new(self.bounds, now)));
        let line = gate.lines.get_with_by_ref(namespace, || Arc::new(Semaphore::new(1)));
        let permit = async {
            let _first_in_line = line.acquire().await;
            Arc::clone(&gate.permits).acquire_owned().await
        };
        let permit = tokio::time::timeout(WAIT, permit).await.ok()?.ok()?;
        let sent = gate.change(|window| window.sent(now));
        Some(Pass { gate, permit: Some(permit), sent, since: Instant::now() })
    }
}

impl Gate {
    fn new(bounds: NewOrders, now: OffsetDateTime) -> Self {
        let window = Window::new(bounds, now);
        let present = window.size();
        let state = Mutex::new(State { window, present });
        let lines = Cache::builder().max_capacity(MOST_NAMESPACES).time_to_idle(IDLE).build();
        Self { permits: Arc::new(Semaphore::new(present)), lines, state }
    }

    /// Changes the window, and makes as many permits of it as it wants then, but for those that are held.
    fn change<T>(&self, change: impl FnOnce(&mut Window) -> T) -> T {
        let mut state = self.state.lock();
        let changed = change(&mut state.window);
        let wanted = state.window.size();
        let more = wanted.saturating_sub(state.present);
        self.permits.add_permits(more);
        state.present += more;
        state.present -= self.permits.forget_permits(state.present - wanted);
        changed
    }
}

impl Pass {
    /// The CA took the order.
    pub(super) fn taken(&self, now: OffsetDateTime) {
        let took = self.since.elapsed();
        self.gate.change(|window| window.taken(self.sent, took, now));
    }

    /// The CA wants no order before `until`, or has not answered this one.
    pub(super) fn refused(&self, now: OffsetDateTime, until: OffsetDateTime) {
        self.gate.change(|window| window.refused(self.sent, now, until));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.window.ended();
        if state.present > state.window.size()
            && let Some(permit) = self.permit.take()
        {
            // Given back, it would be handed to whoever waits.
            permit.forget();
            state.present -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_the_window_has_room_for() {
        let gates = OrderGates::new(NewOrders { start: 1, ceiling: 2 });
        let pass = || gates.pass("a", "team", NOON);

        let first = pass().await.unwrap();
        assert!(pass().await.is_none(), "it goes alone");
        assert!(gates.pass("b", "team", NOON).await.is_some(), "and holds up no other account");
        first.taken(NOON);
        drop(first);
        let both = [pass().await.unwrap(), pass().await.unwrap()];
        for pass in &both {
            pass.taken(NOON);
        }
        assert!(pass().await.is_none(), "there are no more than two");
        both[0].refused(NOON, NOON);
        drop(both);
        let next = pass().await.unwrap();
        assert!(pass().await.is_none(), "one finds out");
        next.taken(NOON);
        drop(next);
        assert!(pass().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_longest_passes_first() {
        let gates = OrderGates::new(NewOrders { start: 1, ceiling: 1 });
        let held = gates.pass("a", "team", NOON).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(gates.pass("a", "team", NOON))).collect();
        for waits in &mut waiting {
            assert!(futures_util::poll!(waits).is_pending());
        }

        drop(held);

        let passed: Vec<_> = [
            futures_util::poll!(&mut waiting[2]).is_ready(),
            futures_util::poll!(&mut waiting[1]).is_ready(),
            futures_util::poll!(&mut waiting[0]).is_ready(),
        ]
        .into();
        assert_eq!(passed, [false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_however_many_orders_one_has() {
        let gates = OrderGates::new(NewOrders { start: 1, ceiling: 1 });
        let held = gates.pass("a", "hot", NOON).await.unwrap();
        let turns = Mutex::new(Vec::new());
        let orders = ["hot"; 20].into_iter().chain(["calm", "other", "calm"]);
        let all = futures_util::future::join_all(orders.map(|namespace| {
            let (gates, turns) = (&gates, &turns);
            async move {
                let _pass = gates.pass("a", namespace, NOON).await.unwrap();
                turns.lock().push(namespace);
            }
        }));

        tokio::join!(all, async { drop(held) });

        assert_eq!(turns.lock()[..6], ["hot", "calm", "other", "hot", "calm", "hot"]);
    }
}
