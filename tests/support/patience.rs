//! The only time by the clock on the wall that a test may know: how long until it gives up. A machine that is
//! slow, or busy with something else, is no reason for a test to fail.

use std::time::Duration;

/// Much longer than anything takes on whatever machine: what has not come by then does not come.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Has a wait that does not end fail, and not hang.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what} never came"))
}

/// Looks again and again, until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let looked = Box::pin(async {
        loop {
            tick.tick().await;
            if is_so().await {
                return;
            }
        }
    });
    within(what, looked).await;
}
