//! The trace of the present task.

use std::cell::Cell;

use tokio::task_local;

use crate::domain::trace::Trace;

task_local! {
    static CURRENT: Cell<Option<Trace>>;
}

/// The place in a trace that the task's work belongs to just now.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// Does `work` as a part of `trace`; without one it may still come to belong to one, by [`enter`].
pub async fn within<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    CURRENT.scope(Cell::new(trace), work).await
}

/// Does what takes no time as a part of `trace`.
pub fn as_of<T>(trace: Option<Trace>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(Cell::new(trace), work)
}

/// What the task does from here on, as far as the nearest [`within`] reaches, belongs to `trace`.
pub fn enter(trace: Option<Trace>) {
    CURRENT.try_with(|current| current.set(trace)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tasks_work_belongs_to_its_own_trace_only() {
        let [one, other, third] = [(); 3].map(|()| Some(Trace::begin(0.0)));
        assert_eq!(current(), None);

        let side_by_side = tokio::join!(
            within(one, async {
                tokio::task::yield_now().await;
                (current(), as_of(third, current), current())
            }),
            within(None, async {
                enter(other);
                tokio::task::yield_now().await;
                current()
            }),
        );

        assert_eq!(side_by_side, ((one, third, one), other));
        enter(one);
        assert_eq!(current(), None);
    }
}
