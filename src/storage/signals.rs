//! Who waits for what: workers for something due, clients for a resource to change.
//!
//! Within the process these are a [`Notify`] and a broadcast channel. On PostgreSQL the same news
//! travels to the other replicas by `NOTIFY`, at commit. Both may get lost when a connection does:
//! workers also have a timer, and clients that wait look again now and then.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use super::{Inner, StorageError, Tx};

/// The kinds of news.
#[derive(Clone)]
pub struct Signals {
    due: Arc<Notify>,
    deliverable: Arc<Notify>,
    /// By resource, so that hundreds who wait are not woken by everything that happens.
    changed: Arc<[broadcast::Sender<Uuid>]>,
}

/// Channels for changes; a power of two.
const SHARDS: usize = 64;

/// Changes that a waiter may fall behind. One that falls further behind simply looks again.
const BACKLOG: usize = 64;

const DUE: &str = "certwright_due";
const DELIVERABLE: &str = "certwright_deliverable";
const CHANGED: &str = "certwright_changed";

impl Signals {
    pub(super) fn new() -> Self {
        let [due, deliverable] = [(); 2].map(|()| Arc::new(Notify::new()));
        let changed = (0..SHARDS).map(|_| broadcast::channel(BACKLOG).0).collect();
        Self { due, deliverable, changed }
    }

    /// Wakes when something may be due.
    pub fn due(&self) -> &Notify {
        &self.due
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

    pub(super) fn tell(&self, wakes: bool, delivers: bool, changed: &[Uuid]) {
        if wakes {
            self.due.notify_one();
        }
        if delivers {
            self.deliverable.notify_one();
        }
        for resource in changed {
            // Fails only when nobody listens.
            self.shard(*resource).send(*resource).ok();
        }
    }
}

/// Puts the news into the transaction, so that it goes out exactly when the rows do.
pub(super) async fn announce(tx: &mut Tx) -> Result<(), StorageError> {
    let Inner::Postgres(connection) = &mut tx.inner else { return Ok(()) };
    for channel in [(tx.wakes, DUE), (tx.delivers, DELIVERABLE)] {
        if let (true, channel) = channel {
            sqlx::query("SELECT pg_notify($1, '')")
                .bind(channel)
                .execute(&mut **connection)
                .await?;
        }
    }
    for resource in &tx.changed {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(CHANGED)
            .bind(resource.to_string())
            .execute(&mut **connection)
            .await?;
    }
    Ok(())
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
    listener.listen_all([DUE, DELIVERABLE, CHANGED]).await?;
    // Whatever was said while nobody listened.
    signals.tell(true, true, &[]);
    loop {
        tokio::select! {
            () = pool.close_event() => return Ok(()),
            news = listener.try_recv() => match news? {
                Some(news) if news.channel() == CHANGED => {
                    let changed: Vec<_> = news.payload().parse().into_iter().collect();
                    signals.tell(false, false, &changed);
                }
                Some(news) if news.channel() == DELIVERABLE => signals.tell(false, true, &[]),
                Some(_) => signals.tell(true, false, &[]),
                // The connection was made anew.
                None => signals.tell(true, true, &[]),
            },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no database to wait in just now")]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
