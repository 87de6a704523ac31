//! Work that keeps a core busy, in a small pool beside the threads that answer requests.
//!
//! While somebody's keys are made or manifests are read, health checks, challenges and the steps of
//! others go on. Callers and the worker have a pool each: neither waits for the other. A pool takes no
//! more than it has cores for, and what waits is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use uuid::Uuid;

/// Places in a pool, for running and waiting work.
const MOST: usize = 64;
/// Places of one caller.
const MOST_OF_ONE: usize = 16;
/// Longest wait for a core.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pool; clones share it.
#[derive(Debug, Clone)]
pub struct Pool {
    cores: Arc<Semaphore>,
    rooms: Arc<Semaphore>,
    callers: Arc<Mutex<HashMap<Uuid, usize>>>,
}

/// Why work was not done.
#[derive(Debug, Error)]
pub enum Undone {
    #[error("there is more heavy work than can be done now")]
    Busy,
    #[error("a computation was cut short")]
    Died(#[from] JoinError),
}

impl Default for Pool {
    /// Half of the cores: the other half is for those who wait for nothing heavy.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        Self::of(cores.max(1))
    }
}

impl Pool {
    /// A pool that does so much at the same time.
    pub fn of(cores: usize) -> Self {
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            rooms: Arc::new(Semaphore::new(MOST)),
            callers: Arc::default(),
        }
    }

    /// Does it once there is a core for it, however long that takes: for steps, whose number is
    /// bounded by itself.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let core = Arc::clone(&self.cores).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            // Held for as long as it takes, also where nobody waits for it any more.
            let _core = core;
            work()
        })
        .await
    }

    /// Does it for a caller; refused where too much waits already, or for too long.
    pub async fn run_for<T: Send + 'static>(
        &self,
        caller: Uuid,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let room = Arc::clone(&self.rooms).try_acquire_owned().map_err(|_| Undone::Busy)?;
        let share = Share::take(&self.callers, caller).ok_or(Undone::Busy)?;
        let core = tokio::time::timeout(PATIENCE, Arc::clone(&self.cores).acquire_owned());
        let core = core.await.map_err(|_| Undone::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _held = (core, room, share);
            work()
        });
        Ok(done.await?)
    }
}

/// One of the places that a caller may have.
struct Share {
    callers: Arc<Mutex<HashMap<Uuid, usize>>>,
    caller: Uuid,
}

impl Share {
    fn take(callers: &Arc<Mutex<HashMap<Uuid, usize>>>, caller: Uuid) -> Option<Self> {
        let mut known = callers.lock();
        let held = known.entry(caller).or_default();
        if *held >= MOST_OF_ONE {
            return None;
        }
        *held += 1;
        drop(known);
        Some(Self { callers: Arc::clone(callers), caller })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut known = self.callers.lock();
        if let Some(held) = known.get_mut(&self.caller) {
            *held -= 1;
            if *held == 0 {
                known.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    #[tokio::test]
    async fn no_more_is_done_at_once_than_there_are_cores() {
        let pool = Pool::of(2);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..20).map(|_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            pool.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for done in futures_util::future::join_all(work).await {
            done.unwrap();
        }

        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn one_caller_leaves_room_for_others_and_all_are_bounded() {
        let pool = Pool::of(1);
        let (go, wait) = mpsc::channel::<()>();
        let held = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || wait.recv()).await }
        });
        while pool.cores.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut waiting = Vec::new();
        for caller in 1..=4 {
            for _ in 0..MOST_OF_ONE {
                let mut one = Box::pin(pool.run_for(Uuid::from_u128(caller), || ()));
                assert!((&mut one).now_or_never().is_none(), "it waits for the core");
                waiting.push(one);
            }
            if caller == 1 {
                assert!(matches!(pool.run_for(ONE, || ()).await, Err(Undone::Busy)));
            }
        }
        let late = Uuid::from_u128(5);
        assert!(matches!(pool.run_for(late, || ()).await, Err(Undone::Busy)), "all are bounded");

        go.send(()).unwrap();
        held.await.unwrap().unwrap().unwrap();
        for one in waiting {
            one.await.unwrap();
        }
        pool.run_for(OTHER, || ()).await.unwrap();
        assert!(pool.callers.lock().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_places_back() {
        let pool = Pool::of(1);
        for _ in 0..MOST {
            let died = pool.run_for(ONE, || assert!(std::env::args().count() > 1_000_000)).await;
            assert!(matches!(died, Err(Undone::Died(_))));
        }
        assert_eq!(pool.run_for(ONE, || 7).await.unwrap(), 7);
    }
}
