//! Who waits for what: workers for something due, clients for a resource to change.
//!
//! Within the process these are a [`Notify`] and a broadcast channel. On PostgreSQL the same news
//! travels to the other replicas by `NOTIFY`, at commit. Both may get lost when a connection does:
//! workers also have a timer, and clients that wait look again now and then.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

use super::{Inner, StorageError, Tx};

/// The kinds of news.
#[derive(Clone)]
pub struct Signals {
    due: Arc<Notify>,
    deliverable: Arc<Notify>,
    /// By resource, so that hundreds who wait are not woken by everything that happens.
    changed: Arc<[broadcast::Sender<Uuid>]>,
    happened: watch::Sender<()>,
}

/// What a transaction tells those who wait for something to do or to read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// Something may be due.
    pub(super) due: bool,
    /// Something may be to be delivered.
    pub(super) deliverable: bool,
    /// There is an event, or one that repeated itself.
    pub(super) happened: bool,
}

impl News {
    /// When it cannot be told which.
    const ANY: Self = Self { due: true, deliverable: true, happened: true };

    fn from_channel(channel: &str) -> Self {
        Self {
            due: channel == DUE,
            deliverable: channel == DELIVERABLE,
            happened: channel == HAPPENED,
        }
    }
}

/// Channels for changes; a power of two.
const SHARDS: usize = 64;

/// Changes that a waiter may fall behind. One that falls further behind simply looks again.
const BACKLOG: usize = 64;

const DUE: &str = "certwright_due";
const DELIVERABLE: &str = "certwright_deliverable";
const CHANGED: &str = "certwright_changed";
const HAPPENED: &str = "certwright_happened";

impl Signals {
    pub(super) fn new() -> Self {
        let [due, deliverable] = [(); 2].map(|()| Arc::new(Notify::new()));
        let changed = (0..SHARDS).map(|_| broadcast::channel(BACKLOG).0).collect();
        Self { due, deliverable, changed, happened: watch::Sender::new(()) }
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

    /// Hears that there are events from now on, not which: those are in the database.
    pub fn events(&self) -> watch::Receiver<()> {
        self.happened.subscribe()
    }

    pub(super) fn tell(&self, news: News, changed: &[Uuid]) {
        if news.due {
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

/// Puts the news into the transaction, so that it goes out exactly when the rows do.
pub(super) async fn announce(tx: &mut Tx) -> Result<(), StorageError> {
    let Inner::Postgres(connection) = &mut tx.inner else { return Ok(()) };
    let News { due, deliverable, happened } = tx.news;
    for (is_told, channel) in [(due, DUE), (deliverable, DELIVERABLE), (happened, HAPPENED)] {
        if is_told {
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
    listener.listen_all([DUE, DELIVERABLE, CHANGED, HAPPENED]).await?;
    // Whatever was said while nobody listened.
    signals.tell(News::ANY, &[]);
    loop {
        tokio::select! {
            () = pool.close_event() => return Ok(()),
            news = listener.try_recv() => match news? {
                Some(news) if news.channel() == CHANGED => {
                    let changed: Vec<_> = news.payload().parse().into_iter().collect();
                    signals.tell(News::default(), &changed);
                }
                Some(news) => signals.tell(News::from_channel(news.channel()), &[]),
                // The connection was made anew.
                None => signals.tell(News::ANY, &[]),
            },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "there is no database to wait in just now")]
async fn pause() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
