//! Who waits for what: workers for something due, clients for a resource to come to rest.
//!
//! Within the process these are a [`Notify`] and a channel for each resource that is waited for. On PostgreSQL the same news
//! travels to the other replicas by `NOTIFY`, right after the commit, and together with that of other
//! commits: within it, each would have to wait for all that tell something. News may get lost, with a
//! connection or its process: workers also have a timer, and clients that wait look again now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{PgPool, Postgres};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::connections::Connections;
use super::{json, millis};
use crate::storage::cache::Knowledge;

/// The kinds of news.
#[derive(Clone)]
pub struct Signals {
    due: Arc<Notify>,
    /// When workers look without being told, in milliseconds since the epoch.
    next_look: Arc<AtomicI64>,
    deliverable: Arc<Notify>,
    waiters: Arc<Waiters>,
    happened: watch::Sender<()>,
    keys: watch::Sender<()>,
    knowledge: Arc<Knowledge>,
    /// What the other replicas have to be told yet.
    untold: Arc<Untold>,
}

/// News of this process on their way to the others, where there may be some.
struct Untold {
    name: Uuid,
    has_others: AtomicBool,
    news: Mutex<(News, Vec<Uuid>)>,
    arrived: Notify,
}

/// What a transaction tells those who wait for something to do or to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct News {
    /// Something is due at this time, in milliseconds since the epoch; 0 is at once.
    pub(in crate::storage) due: Option<i64>,
    /// Something may be to be delivered.
    pub(in crate::storage) deliverable: bool,
    /// There is an event, or one that repeated itself.
    pub(in crate::storage) happened: bool,
    /// API keys are not what they were.
    pub(in crate::storage) keys: bool,
}

impl News {
    /// When it cannot be told which.
    const ANY: Self = Self { due: Some(0), deliverable: true, happened: true, keys: true };

    fn and(self, other: Self) -> Self {
        Self {
            due: earlier(self.due, other.due),
            deliverable: self.deliverable | other.deliverable,
            happened: self.happened | other.happened,
            keys: self.keys | other.keys,
        }
    }
}

/// The earlier of two times, as far as they are given.
pub(in crate::storage) fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

/// What one replica tells the others.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Who says so: it knows already.
    from: Uuid,
    #[serde(flatten)]
    news: News,
    settled: Vec<Uuid>,
}

const CHANNEL: &str = "certwright";

/// Resources in one note: PostgreSQL takes 8,000 bytes.
const IN_A_NOTE: usize = 150;

/// The news is worth nothing any more by the time that the disk would have it.
const SAY: &str =
    "SELECT set_config('synchronous_commit', 'off', true), pg_notify('certwright', note)
    FROM unnest($1::text[]) AS notes (note)";

impl Signals {
    #[expect(clippy::disallowed_methods, reason = "a name of this process, no time")]
    pub(in crate::storage) fn new(knowledge: Arc<Knowledge>) -> Self {
        let [due, deliverable] = [(); 2].map(|()| Arc::new(Notify::new()));
        let untold = Untold {
            name: Uuid::now_v7(),
            has_others: AtomicBool::new(false),
            news: Mutex::default(),
            arrived: Notify::new(),
        };
        Self {
            due,
            next_look: Arc::new(AtomicI64::new(i64::MAX)),
            deliverable,
            waiters: Arc::default(),
            happened: watch::Sender::new(()),
            keys: watch::Sender::new(()),
            knowledge,
            untold: Arc::new(untold),
        }
    }

    /// Wakes when something may be due.
    pub fn due(&self) -> &Notify {
        &self.due
    }

    /// Whoever waits for [`Self::due`] looks by itself at this time, and need not be told of what is due
    /// later; `None` while it is not known.
    pub fn looks_at(&self, next: Option<OffsetDateTime>) {
        self.next_look.store(next.map_or(i64::MAX, millis), Ordering::SeqCst);
    }

    /// Wakes when something may be to be delivered.
    pub fn deliverable(&self) -> &Notify {
        &self.deliverable
    }

    /// Hears from now on when this resource comes to rest.
    pub fn wait_for(&self, resource: Uuid) -> Waiter {
        let news = self.waiters.all().entry(resource).or_default().subscribe();
        Waiter { resource, news, waiters: Arc::clone(&self.waiters) }
    }

    /// Hears that there are events from now on, not which: those are in the database.
    pub fn events(&self) -> watch::Receiver<()> {
        self.happened.subscribe()
    }

    /// Hears from now on when API keys are not what they were: an answer that takes long is for a key that holds.
    pub fn keys(&self) -> watch::Receiver<()> {
        self.keys.subscribe()
    }

    /// Tells whoever waits, here and in the other replicas.
    pub(in crate::storage) fn tell(&self, news: News, settled: &[Uuid]) {
        self.tell_here(news, settled);
        self.untold.add(news, settled);
    }

    fn tell_here(&self, news: News, settled: &[Uuid]) {
        if news.keys {
            self.knowledge.api_keys.forget();
            self.keys.send_replace(());
        }
        if news.due.is_some_and(|at| at < self.next_look.load(Ordering::SeqCst)) {
            self.due.notify_one();
        }
        if news.deliverable {
            self.deliverable.notify_one();
        }
        if news.happened {
            self.happened.send_replace(());
        }
        self.waiters.wake(settled);
    }
}

/// Who waits for which resource to come to rest: each is woken by that one only.
#[derive(Default)]
struct Waiters(Mutex<HashMap<Uuid, watch::Sender<()>>>);

/// Somebody who waits for a resource.
pub struct Waiter {
    resource: Uuid,
    news: watch::Receiver<()>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, settled: &[Uuid]) {
        if settled.is_empty() {
            return;
        }
        let all = self.all();
        for resource in settled {
            if let Some(waiters) = all.get(resource) {
                waiters.send_replace(());
            }
        }
    }
}

impl Waiter {
    /// Returns when there is news that was not waited for yet.
    pub async fn news(&mut self) {
        // The other end is kept as long as this one.
        self.news.changed().await.ok();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut all = self.waiters.all();
        if all.get(&self.resource).is_some_and(|waiters| waiters.receiver_count() <= 1) {
            all.remove(&self.resource);
        }
    }
}

impl Untold {
    fn add(&self, news: News, settled: &[Uuid]) {
        if !self.has_others.load(Ordering::Relaxed)
            || (news == News::default() && settled.is_empty())
        {
            return;
        }
        let mut untold = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        untold.0 = untold.0.and(news);
        untold.1.extend(settled);
        drop(untold);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<String> {
        let (news, settled) =
            std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        let note = |news, settled: &[Uuid]| {
            json(&Note { from: self.name, news, settled: settled.to_vec() })
        };
        let mut notes: Vec<_> =
            settled.chunks(IN_A_NOTE).map(|some| note(News::default(), some)).collect();
        if news != News::default() {
            notes.push(note(news, &[]));
        }
        notes
    }
}

/// Tells the other replicas until the database is closed: what came together while they were told the
/// last time.
pub(in crate::storage) fn speak(connections: Connections<Postgres>, signals: Signals) {
    signals.untold.has_others.store(true, Ordering::Relaxed);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = connections.closed() => return,
                () = signals.untold.arrived.notified() => {}
            }
            // More comes together meanwhile, and a hundred notes in a second are enough for anybody.
            breathe().await;
            if let Err(error) = say(&connections, signals.untold.take()).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the other replicas could not be told; they look by themselves"
                );
            }
        }
    });
}

async fn say(connections: &Connections<Postgres>, notes: Vec<String>) -> Result<(), sqlx::Error> {
    let mut connection = connections.take().await?;
    let said = sqlx::query(SAY).bind(notes).execute(connection.ask()?).await;
    connection.heard(said).map(drop)
}

/// Hears the other replicas' news until the pool is closed.
pub(in crate::storage) fn listen(pool: PgPool, signals: Signals) {
    tokio::spawn(async move {
        while !pool.is_closed() {
            if let Err(error) = listen_once(&pool, &signals).await
                && !pool.is_closed()
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lost the notifications of the database; polling until they are back"
                );
            }
            pause().await;
        }
    });
}

async fn listen_once(pool: &PgPool, signals: &Signals) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    // Whatever was said while nobody listened.
    signals.tell_here(News::ANY, &[]);
    loop {
        tokio::select! {
            () = pool.close_event() => return Ok(()),
            news = listener.try_recv() => match news? {
                Some(said) => match serde_json::from_str(said.payload()) {
                    Ok(Note { from, .. }) if from == signals.untold.name => {}
                    Ok(Note { news, settled, .. }) => signals.tell_here(news, &settled),
                    // Another version's words.
                    Err(_) => signals.tell_here(News::ANY, &[]),
                },
                // The connection was made anew.
                None => signals.tell_here(News::ANY, &[]),
            },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing that a crash may lose")]
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[expect(clippy::disallowed_methods, reason = "there is no database to wait in just now")]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
