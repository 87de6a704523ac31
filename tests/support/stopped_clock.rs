//! Tokio's clock, which moves only when it is told to.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::patience::PATIENCE;

/// For tests on one thread. Every timer waits for [`Self::advance`], whatever comes through sockets
/// meanwhile. Only a test that hangs sees its guards against that go off all the same.
pub struct StoppedClock {
    _held: Sender<()>,
}

impl StoppedClock {
    pub fn stop() -> Self {
        let (held, until) = channel();
        // A clock that is paused jumps to the next timer when all tasks wait, unless something blocks.
        tokio::task::spawn_blocking(move || until.recv_timeout(PATIENCE).ok());
        tokio::time::pause();
        Self { _held: held }
    }

    /// Has what waits for that long go on.
    pub async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}
