//! Notifications: who is woken by a commit, in this process and in the other replicas.
//!
//! Within the process these are a [`Notify`] and a channel for each resource that a client waits for. On
//! PostgreSQL the same notification travels to the other replicas by `NOTIFY`, right after the commit and
//! together with those of other commits: within it, each commit would wait for all others that notify. A
//! notification may get lost with a connection or its process, so workers also have a timer, and clients that
//! wait look again now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{PgPool, Postgres};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::connections::Connections;
use super::{json, millis};
use crate::telemetry::LogLimit;

/// Where changes are heard of.
#[derive(Clone)]
pub struct Signals {
    due: Arc<Notify>,
    /// When workers look without being notified, in milliseconds since the epoch.
    next_look: Arc<AtomicI64>,
    deliverable: Arc<Notify>,
    waiters: Arc<Waiters>,
    events: watch::Sender<()>,
    /// Of each table that is cached, a version that every change raises.
    versions: Arc<Mutex<HashMap<&'static str, watch::Sender<u64>>>>,
    outgoing: Arc<Outgoing>,
}

/// What this process has to tell the other replicas yet, where there may be some.
struct Outgoing {
    name: Uuid,
    has_others: AtomicBool,
    notification: Mutex<Notification>,
    arrived: Notify,
}

/// What a transaction brings about for those who wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Notification {
    /// Something is due at this time, in milliseconds since the epoch; 0 is at once.
    pub(in crate::storage) due: Option<i64>,
    /// Something may be to be delivered.
    pub(in crate::storage) deliverable: bool,
    /// There is an event, or one that repeated itself.
    pub(in crate::storage) events: bool,
    /// These tables changed, of which another replica may have cached rows.
    pub(in crate::storage) written: Vec<String>,
    /// These resources have settled.
    pub(in crate::storage) settled: Vec<Uuid>,
}

impl Notification {
    /// All of it, when nobody knows what was missed.
    fn any() -> Self {
        Self { due: Some(0), deliverable: true, events: true, ..Self::default() }
    }

    fn merge(&mut self, other: Self) {
        self.due = earlier(self.due, other.due);
        self.deliverable |= other.deliverable;
        self.events |= other.events;
        self.written.extend(other.written);
        self.settled.extend(other.settled);
    }
}

/// The earlier of two times, as far as they are given.
pub(super) fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

/// What one replica tells the others.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    from: Uuid,
    #[serde(flatten)]
    notification: Notification,
}

const CHANNEL: &str = "certwright";

/// Resources in one message: PostgreSQL takes 8,000 bytes.
const IN_A_MESSAGE: usize = 150;

// It is worth nothing any more by the time that the disk would have it.
const PUBLISH: &str =
    "SELECT set_config('synchronous_commit', 'off', true), pg_notify('certwright', message)
    FROM unnest($1::text[]) AS messages (message)";

impl Signals {
    #[expect(clippy::disallowed_methods, reason = "a name of this process, no time")]
    pub(in crate::storage) fn new() -> Self {
        let [due, deliverable] = [(); 2].map(|()| Arc::new(Notify::new()));
        let outgoing = Outgoing {
            name: Uuid::now_v7(),
            has_others: AtomicBool::new(false),
            notification: Mutex::default(),
            arrived: Notify::new(),
        };
        Self {
            due,
            next_look: Arc::new(AtomicI64::new(i64::MAX)),
            deliverable,
            waiters: Arc::default(),
            events: watch::Sender::new(()),
            versions: Arc::default(),
            outgoing: Arc::new(outgoing),
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
        let settled = self.waiters.0.lock().entry(resource).or_default().subscribe();
        Waiter { resource, settled, waiters: Arc::clone(&self.waiters) }
    }

    /// Hears that there are events from now on, not which: those are in the database.
    pub fn events(&self) -> watch::Receiver<()> {
        self.events.subscribe()
    }

    /// The version of a table that is cached here from now on: every change raises it.
    pub(in crate::storage) fn version_of(&self, table: &'static str) -> watch::Receiver<u64> {
        self.versions.lock().entry(table).or_default().subscribe()
    }

    /// Whether one of these tables is cached here.
    pub(super) fn caches_any(&self, tables: &[&'static str]) -> bool {
        let versions = self.versions.lock();
        tables.iter().any(|table| versions.contains_key(table))
    }

    /// Invalidates what is cached of these tables, and returns those that are.
    pub(super) fn invalidate<T: AsRef<str>>(&self, tables: &[T]) -> Vec<String> {
        let versions = self.versions.lock();
        let cached = tables.iter().map(AsRef::as_ref).filter(|table| match versions.get(table) {
            Some(version) => {
                version.send_modify(|version| *version += 1);
                true
            }
            None => false,
        });
        cached.map(str::to_owned).collect()
    }

    /// Notifies whoever waits, here and in the other replicas.
    pub(super) fn publish(&self, notification: Notification) {
        self.wake(&notification);
        self.outgoing.add(notification);
    }

    fn wake(&self, notification: &Notification) {
        if notification.due.is_some_and(|at| at < self.next_look.load(Ordering::SeqCst)) {
            self.due.notify_one();
        }
        if notification.deliverable {
            self.deliverable.notify_one();
        }
        if notification.events {
            self.events.send_replace(());
        }
        self.waiters.wake(&notification.settled);
    }

    /// Takes it for possible that everything changed.
    fn receive_any(&self) {
        for version in self.versions.lock().values() {
            version.send_modify(|version| *version += 1);
        }
        self.wake(&Notification::any());
    }

    /// Takes a notification of another replica.
    fn receive(&self, notification: &Notification) {
        self.invalidate(&notification.written);
        self.wake(notification);
    }
}

/// Who waits for which resource to come to rest: each is woken by that one only.
#[derive(Default)]
struct Waiters(Mutex<HashMap<Uuid, watch::Sender<()>>>);

/// Somebody who waits for a resource.
pub struct Waiter {
    resource: Uuid,
    settled: watch::Receiver<()>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    fn wake(&self, settled: &[Uuid]) {
        if settled.is_empty() {
            return;
        }
        let all = self.0.lock();
        for resource in settled {
            if let Some(waiters) = all.get(resource) {
                waiters.send_replace(());
            }
        }
    }
}

impl Waiter {
    /// Returns when the resource has settled since the last call.
    pub async fn settled(&mut self) {
        // The other end is kept as long as this one.
        self.settled.changed().await.ok();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut all = self.waiters.0.lock();
        if all.get(&self.resource).is_some_and(|waiters| waiters.receiver_count() <= 1) {
            all.remove(&self.resource);
        }
    }
}

impl Outgoing {
    fn add(&self, notification: Notification) {
        if !self.has_others.load(Ordering::Relaxed) || notification == Notification::default() {
            return;
        }
        self.notification.lock().merge(notification);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<String> {
        let mut all = std::mem::take(&mut *self.notification.lock());
        let settled = std::mem::take(&mut all.settled);
        let message = |notification| json(&Message { from: self.name, notification });
        let with = |some: &[Uuid]| Notification { settled: some.to_vec(), ..Default::default() };
        let mut messages: Vec<_> =
            settled.chunks(IN_A_MESSAGE).map(|some| message(with(some))).collect();
        if all != Notification::default() {
            messages.push(message(all));
        }
        messages
    }
}

/// Notifies the other replicas until the database is closed, each time of all that came together meanwhile.
pub(super) fn publish(connections: Connections<Postgres>, signals: Signals) {
    signals.outgoing.has_others.store(true, Ordering::Relaxed);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = connections.closed() => return,
                () = signals.outgoing.arrived.notified() => {}
            }
            // More comes together meanwhile, and a hundred messages in a second are enough for anybody.
            breathe().await;
            if let Err(error) = send(&connections, signals.outgoing.take()).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the other replicas could not be notified; they look by themselves"
                );
            }
        }
    });
}

async fn send(
    connections: &Connections<Postgres>,
    messages: Vec<String>,
) -> Result<(), sqlx::Error> {
    let mut connection = connections.take().await?;
    let sent = sqlx::query(PUBLISH).bind(messages).execute(connection.connection()?).await;
    connection.observe(sent).map(drop)
}

/// Listens to the other replicas until the pool is closed.
pub(super) fn listen(pool: PgPool, signals: Signals) {
    let limit = LogLimit::new();
    tokio::spawn(async move {
        while !pool.is_closed() {
            if let Err(error) = listen_once(&pool, &signals).await
                && !pool.is_closed()
                && let Some(left_out) = limit.pass()
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    left_out,
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
    // Whatever was sent while nobody listened.
    signals.receive_any();
    loop {
        tokio::select! {
            () = pool.close_event() => return Ok(()),
            message = listener.try_recv() => match message? {
                Some(message) => match serde_json::from_str(message.payload()) {
                    Ok(Message { from, .. }) if from == signals.outgoing.name => {}
                    Ok(Message { notification, .. }) => signals.receive(&notification),
                    // It is another version's.
                    Err(_) => signals.receive_any(),
                },
                // The connection was made anew.
                None => signals.receive_any(),
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
