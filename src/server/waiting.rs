//! The connections of a listener that wait for their clients, in the order in which they began to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Those that may be closed when somebody else comes.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    /// A caller waits for a connection that can be closed.
    is_full: bool,
    connections: BTreeMap<u64, Arc<Notify>>,
}

impl Waiting {
    /// Puts a connection at the end; it is told by `dismissal`. Says under which number.
    pub(super) fn add(&self, dismissal: &Arc<Notify>) -> u64 {
        let mut queue = self.0.lock();
        let number = queue.next;
        queue.next += 1;
        if std::mem::take(&mut queue.is_full) {
            dismissal.notify_one();
            return number;
        }
        queue.connections.insert(number, Arc::clone(dismissal));
        number
    }

    /// Takes out one that does not wait any more.
    pub(super) fn remove(&self, number: u64) {
        self.0.lock().connections.remove(&number);
    }

    /// Tells the one that has waited longest to leave; where none waits, the next that begins to.
    pub(super) fn dismiss_one(&self) {
        let mut queue = self.0.lock();
        match queue.connections.pop_first() {
            Some((_, connection)) => connection.notify_one(),
            None => queue.is_full = true,
        }
    }

    /// There is room again, whoever made it.
    pub(super) fn has_room(&self) {
        self.0.lock().is_full = false;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_has_waited_longest_leaves_first() {
        let waiting = Waiting::default();
        let all: Vec<Arc<Notify>> = (0..3).map(|_| Arc::default()).collect();
        let numbers: Vec<_> = all.iter().map(|one| waiting.add(one)).collect();
        // It has had a request since.
        waiting.remove(numbers[0]);
        waiting.add(&all[0]);

        waiting.dismiss_one();
        waiting.dismiss_one();

        let told: Vec<_> = all.iter().map(|one| one.notified().now_or_never().is_some()).collect();
        assert_eq!(told, [false, true, true]);
    }

    #[test]
    fn where_nobody_waits_the_next_one_leaves() {
        let waiting = Waiting::default();
        let [one, other]: [Arc<Notify>; 2] = Default::default();

        waiting.dismiss_one();
        waiting.has_room();
        waiting.add(&one);
        waiting.dismiss_one();
        waiting.dismiss_one();
        waiting.add(&other);

        assert!(one.notified().now_or_never().is_some());
        assert!(other.notified().now_or_never().is_some());
    }
}
