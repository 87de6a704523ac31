//! The activity of a connection and its deadlines.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;
use super::waiting::Waiting;

/// The state of one connection.
pub(super) struct Activity {
    state: Mutex<State>,
    limits: Limits,
    waiting: Arc<Waiting>,
    dismissal: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answers are not complete.
    under_way: usize,
    /// Those among them of whose answer a part was handed out, and no more was asked for.
    unsent: usize,
    /// A head has to come, or has begun to; otherwise it is between two requests.
    awaits_head: bool,
    /// Several requests at once: bytes that come need not be a head.
    is_multiplexed: bool,
    /// Start of the present wait.
    since: Instant,
    /// Its number in the queue, while it waits for its client.
    number: Option<u64>,
}

impl Activity {
    pub(super) fn new(limits: Limits, waiting: Arc<Waiting>) -> Arc<Self> {
        let dismissal = Arc::new(Notify::new());
        let state = State {
            under_way: 0,
            unsent: 0,
            awaits_head: true,
            is_multiplexed: false,
            since: Instant::now(),
            number: Some(waiting.add(&dismissal)),
        };
        Arc::new(Self { state: Mutex::new(state), limits, waiting, dismissal })
    }

    /// Returns when the connection has to make room for another.
    pub(super) async fn dismissed(&self) {
        self.dismissal.notified().await;
    }

    /// The client's deadline; `None` while the client waits for an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        let time = match (state.under_way, state.unsent) {
            (0, _) if state.awaits_head => self.limits.head,
            (0, _) => self.limits.idle,
            (_, 0) => return None,
            _ => self.limits.untaken,
        };
        Some(state.since + time)
    }

    /// Whether it is between two requests.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.under_way == 0 && !state.awaits_head
    }

    /// Start of the idle time, if nothing is under way.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.under_way == 0).then_some(state.since)
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        let mut state = self.state.lock();
        if state.under_way == 0 && !state.awaits_head && !state.is_multiplexed {
            state.awaits_head = true;
            state.since = Instant::now();
        }
    }

    /// Bytes were taken: an answer may be on its way still when it is complete for us.
    pub(super) fn sent(&self) {
        let mut state = self.state.lock();
        if state.under_way == 0 && !state.awaits_head && !state.is_multiplexed {
            state.since = Instant::now();
        }
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>, is_multiplexed: bool) -> Exchange {
        let mut state = self.state.lock();
        state.under_way += 1;
        state.is_multiplexed = is_multiplexed;
        if let Some(number) = state.number.take() {
            self.waiting.remove(number);
        }
        Exchange { activity: Arc::clone(self), is_unsent: false }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        if let Some(number) = self.state.lock().number {
            self.waiting.remove(number);
        }
    }
}

/// A request and its answer, until the last of it was handed out.
pub(super) struct Exchange {
    activity: Arc<Activity>,
    is_unsent: bool,
}

impl Exchange {
    /// Records that more of the answer is wanted: the part before is on its way.
    pub(super) fn asked(&mut self) {
        if std::mem::take(&mut self.is_unsent) {
            let mut state = self.activity.state.lock();
            state.unsent -= 1;
            state.since = Instant::now();
        }
    }

    /// A part of the answer was handed out.
    pub(super) fn handed_out(&mut self) {
        if !std::mem::replace(&mut self.is_unsent, true) {
            let mut state = self.activity.state.lock();
            state.unsent += 1;
            if state.unsent == 1 {
                state.since = Instant::now();
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.asked();
        let mut state = self.activity.state.lock();
        state.under_way -= 1;
        if state.under_way == 0 {
            state.awaits_head = false;
            state.since = Instant::now();
            state.number = Some(self.activity.waiting.add(&self.activity.dismissal));
        }
    }
}
