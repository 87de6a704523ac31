//! Who waits for what: workers for something due, clients for a resource to change.
//!
//! Within the process these are a [`Notify`] and a broadcast channel. On PostgreSQL the same news
//! travels to the other replicas by `NOTIFY`, right after the commit, and together with that of other
//! commits: within it, each would have to wait for all that tell something. News may get lost, with a
//! connection or its process: workers also have a timer, and clients that wait look again now and then.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{PgPool, Postgres};
use time::OffsetDateTime;
use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

use super::connections::Connections;
use super::known::Knowledge;
use super::{json, millis};

/// The kinds of news.
#[derive(Clone)]
pub struct Signals {
    due: Arc<Notify>,
    /// When workers look without being told, in milliseconds since the epoch.
    next_look: Arc<AtomicI64>,
    deliverable: Arc<Notify>,
    /// By resource, so that hundreds who wait are not woken by everything that happens.
    changed: Arc<[broadcast::Sender<Uuid>]>,
    happened: watch::Sender<()>,
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
pub(super) struct News {
    /// Something is due at this time, in milliseconds since the epoch; 0 is at once.
    pub(super) due: Option<i64>,
    /// Something may be to be delivered.
    pub(super) deliverable: bool,
    /// There is an event, or one that repeated itself.
    pub(super) happened: bool,
    /// API keys are not what they were.
    pub(super) keys: bool,
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
pub(super) fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

/// What one replica tells the others.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Who says so: it knows already.
    from: Uuid,
    #[serde(flatten)]
    news: News,
    changed: Vec<Uuid>,
}

/// Channels for changes; a power of two.
const SHARDS: usize = 64;

/// Changes that a waiter may fall behind. One that falls further behind simply looks again.
const BACKLOG: usize = 64;

const CHANNEL: &str = "certwright";

/// Changes in one note: PostgreSQL takes 8,000 bytes.
const IN_A_NOTE: usize = 150;

/// The news is worth nothing any more by the time that the disk would have it.
const SAY: &str =
    "SELECT set_config('synchronous_commit', 'off', true), pg_notify('certwright', note)
    FROM unnest($1::text[]) AS notes (note)";

impl Signals {
    #[expect(clippy::disallowed_methods, reason = "a name of this process, no time")]
    pub(super) fn new(knowledge: Arc<Knowledge>) -> Self {
        let [due, deliverable] = [(); 2].map(|()| Arc::new(Notify::new()));
        let changed = (0..SHARDS).map(|_| broadcast::channel(BACKLOG).0).collect();
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
            changed,
            happened: watch::Sender::new(()),
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

    /// Hears of the changes of this resource from now on, and of those of some others.
    pub fn changes(&self, resource: Uuid) -> broadcast::Receiver<Uuid> {
        self.shard(resource).subscribe()
    }

    fn shard(&self, resource: Uuid) -> &broadcast::Sender<Uuid> {
        // The last bits of an identifier are random.
        &self.changed[usize::from(resource.as_bytes()[15]) % SHARDS]
    }

    /// Hears that there are events from now on, not which: those are in the database.
    pub fn events(&self) -> watch::Receiver<()> {
        self.happened.subscribe()
    }

    /// Tells whoever waits, here and in the other replicas.
    pub(super) fn tell(&self, news: News, changed: &[Uuid]) {
        self.tell_here(news, changed);
        self.untold.add(news, changed);
    }

    fn tell_here(&self, news: News, changed: &[Uuid]) {
        if news.keys {
            self.knowledge.api_keys.forget();
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
        for resource in changed {
            // Fails only when nobody listens.
            self.shard(*resource).send(*resource).ok();
        }
    }
}

impl Untold {
    fn add(&self, news: News, changed: &[Uuid]) {
        if !self.has_others.load(Ordering::Relaxed)
            || (news == News::default() && changed.is_empty())
        {
            return;
        }
        let mut untold = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        untold.0 = untold.0.and(news);
        untold.1.extend(changed);
        drop(untold);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<String> {
        let (news, changed) =
            std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        let note = |news, changed: &[Uuid]| {
            json(&Note { from: self.name, news, changed: changed.to_vec() })
        };
        let mut notes: Vec<_> =
            changed.chunks(IN_A_NOTE).map(|some| note(News::default(), some)).collect();
        if news != News::default() {
            notes.push(note(news, &[]));
        }
        notes
    }
}

/// Tells the other replicas until the database is closed: what came together while they were told the
/// last time.
pub(super) fn speak(connections: Connections<Postgres>, signals: Signals) {
    signals.untold.has_others.store(true, Ordering::Relaxed);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = connections.closed() => return,
                () = signals.untold.arrived.notified() => {}
            }
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
pub(super) fn listen(pool: PgPool, signals: Signals) {
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
                    Ok(Note { news, changed, .. }) => signals.tell_here(news, &changed),
                    // Another version's words.
                    Err(_) => signals.tell_here(News::ANY, &[]),
                },
                // The connection was made anew.
                None => signals.tell_here(News::ANY, &[]),
            },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no database to wait in just now")]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
