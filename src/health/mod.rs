//! Whether this instance can work.
//!
//! An instance is ready unless it has trouble of its own: its database, disk, schema, master key, listeners or
//! worker. What is wrong outside, with a CA or with the clock, is shown beside it and takes nobody out of service:
//! another instance would meet the same.
//!
//! One look at a time, and at most one every few seconds: whoever asks meanwhile has the last one's result.

mod checks;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::future::Cache;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::ca::Authorities;
use crate::clock::Clock;
use crate::domain::issuer::Issuer;
use crate::domain::skew::Skew;
use crate::secret::Sealer;
use crate::server::Accepting;
use crate::storage::Db;
use crate::worker::Pulse;
use checks::Verdict;

/// A result is shown for so long.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// The service looks by itself as often, so that the log says what is wrong though nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What is looked at; copies share the results.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    subjects: Subjects,
    listeners: OnceLock<Vec<Accepting>>,
    last: Cache<(), Arc<Report>>,
    /// Since when each check has gone as it goes.
    since: Mutex<HashMap<&'static str, (bool, OffsetDateTime)>>,
}

/// The parts of an instance that may have trouble.
pub struct Subjects {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub sealer: Arc<Sealer>,
    pub pulse: Arc<Pulse>,
    /// A replica that was not heard for so long is taken for dead.
    pub lease: Duration,
    pub authorities: Arc<Authorities>,
}

/// The result of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// Whether the instance is not ready because of it.
    pub blocks: bool,
    /// What is wrong, and what to do; for anybody to see, so that it names nothing of this machine.
    pub why: Option<String>,
    /// How long it has been as it is; as far back as this process remembers.
    pub since: OffsetDateTime,
}

impl Report {
    /// Whether the instance can work.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| !check.blocks)
    }
}

impl Health {
    pub fn new(subjects: Subjects) -> Self {
        Self::fresh_for(subjects, FRESH_FOR)
    }

    /// Shows results for another time.
    pub fn fresh_for(subjects: Subjects, time: Duration) -> Self {
        let last = Cache::builder().max_capacity(1).time_to_live(time).build();
        Self(Arc::new(Inner {
            subjects,
            listeners: OnceLock::new(),
            last,
            since: Mutex::default(),
        }))
    }

    /// These listeners are looked at, too.
    pub fn watch_listeners(&self, listeners: Vec<Accepting>) {
        self.0.listeners.set(listeners).ok();
    }

    /// The result of a look that was made just now.
    pub async fn report(&self) -> Arc<Report> {
        self.0.last.get_with((), async { Arc::new(self.look().await) }).await
    }

    /// How far our clock is ahead of that of an issuer's CA, as far as this instance has seen it of late.
    pub fn skew_with(&self, issuer: &Issuer) -> Option<Skew> {
        let Subjects { authorities, clock, .. } = &self.0.subjects;
        authorities.of(issuer.kind).skew_with(&issuer.acme.server, clock.now())
    }

    /// Looks now and then, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.report() => {}
            }
        }
    }

    async fn look(&self) -> Report {
        let listeners = self.0.listeners.get().map(Vec::as_slice).unwrap_or_default();
        let verdicts = checks::all(&self.0.subjects, listeners).await;
        let now = self.0.subjects.clock.now();
        let mut since = self.0.since.lock();
        let checks = verdicts.into_iter().map(|(name, verdict)| {
            let (ok, blocks, why) = match verdict {
                Verdict::Well => (true, false, None),
                Verdict::Remark(why) => (false, false, Some(why)),
                Verdict::Trouble(why) => (false, true, Some(why)),
            };
            let known = since.entry(name).or_insert((true, now));
            if known.0 != ok {
                *known = (ok, now);
                if let Some(why) = &why {
                    let ready = !blocks;
                    tracing::warn!(
                        check = name,
                        ready,
                        why,
                        "something is wrong with this instance"
                    );
                } else {
                    tracing::info!(check = name, "it is well again");
                }
            }
            Check { name, ok, blocks, why, since: known.1 }
        });
        Report { checks: checks.collect() }
    }
}
