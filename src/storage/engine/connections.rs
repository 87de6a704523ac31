//! Connections that go from one user to the next without being asked anything in between.
//!
//! sqlx's pool asks a connection whether it lives whenever it is given back, which costs as much as a
//! small query. Here one whose last statement was answered is kept for whoever comes next. One that is
//! dropped within a transaction rolls back first; one that is dropped within a statement, or has failed,
//! goes back to sqlx's pool, which looks after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Database, Executor, Pool};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// A connection that was used just now is taken to be alive.
const TRUSTED: Duration = Duration::from_secs(1);

/// One that nobody has wanted for so long is given back.
const SPARE: Duration = Duration::from_mins(10);

/// The connections of a pool, all of which are handed out here.
pub(in crate::storage) struct Connections<D: Database>(Arc<Shared<D>>);

struct Shared<D: Database> {
    pool: Pool<D>,
    /// No more than the pool has room for, so that there is a connection for whoever has a place.
    places: Arc<Semaphore>,
    /// The one that was used last comes last, and is used first.
    idle: Mutex<VecDeque<(Instant, PoolConnection<D>)>>,
}

impl<D: Database> Clone for Connections<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Database> Connections<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    /// All that the pool has room for, but for those that somebody else takes from it, for good.
    pub(in crate::storage) fn of(pool: Pool<D>, others: usize) -> Self {
        let room = usize::try_from(pool.options().get_max_connections()).unwrap_or(1);
        let places = Arc::new(Semaphore::new(room.saturating_sub(others)));
        Self(Arc::new(Shared { pool, places, idle: Mutex::default() }))
    }

    /// A connection, as soon as one is free.
    pub(in crate::storage) async fn take(&self) -> Result<Lent<D>, sqlx::Error> {
        let patience = self.0.pool.options().get_acquire_timeout();
        let place = timeout(patience, Arc::clone(&self.0.places).acquire_owned());
        let place = place.await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let connection = loop {
            let known = self.0.idle.lock().pop_back();
            // On the heap, as both are seldom: this is a part of everything that is done with the database.
            let Some((since, mut connection)) = known else {
                break Box::pin(self.0.pool.acquire()).await?;
            };
            if since.elapsed() < TRUSTED || Box::pin(connection.ping()).await.is_ok() {
                break connection;
            }
        };
        let used = Used { connection, is_answered: true, in_transaction: false, _place: place };
        Ok(Lent { used: Some(used), shared: Arc::clone(&self.0) })
    }

    /// Connections that are handed out, and those that there may be.
    pub(in crate::storage) fn load(&self) -> (usize, usize) {
        let most = usize::try_from(self.0.pool.options().get_max_connections()).unwrap_or_default();
        (most.saturating_sub(self.0.places.available_permits()), most)
    }

    /// Ends when they are closed.
    pub(in crate::storage) async fn closed(&self) {
        let closed = self.0.pool.close_event();
        // A pool that is closed before it has the listener, and after it was asked for one, tells nobody.
        if !self.0.pool.is_closed() {
            closed.await;
        }
    }

    /// Closes every connection once its work is done.
    pub(in crate::storage) async fn close(&self) {
        self.0.places.close();
        // From here on none is kept any more; the pool waits for all of them.
        let closed = self.0.pool.close();
        self.0.idle.lock().clear();
        closed.await;
    }
}

impl<D: Database> Shared<D> {
    fn keep(&self, connection: PoolConnection<D>) {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        if self.pool.is_closed() {
            return;
        }
        idle.push_back((now, connection));
        if idle.front().is_some_and(|(since, _)| *since + SPARE < now) {
            idle.pop_front();
        }
    }
}

/// A connection as long as it is used.
pub(in crate::storage) struct Lent<D: Database>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    used: Option<Used<D>>,
    shared: Arc<Shared<D>>,
}

struct Used<D: Database> {
    connection: PoolConnection<D>,
    is_answered: bool,
    in_transaction: bool,
    _place: OwnedSemaphorePermit,
}

impl<D: Database> Lent<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    /// To be asked something; what it answers is to be told to [`Lent::observe`].
    pub(in crate::storage) fn connection(&mut self) -> Result<&mut D::Connection, sqlx::Error> {
        let used = self.used.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        used.is_answered = false;
        Ok(&mut used.connection)
    }

    /// Takes note that a statement was answered, be it by a refusal.
    pub(in crate::storage) fn observe<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let is_answered = match &answer {
            Ok(_) | Err(sqlx::Error::RowNotFound) => true,
            // With these PostgreSQL takes its leave.
            Err(sqlx::Error::Database(error)) => {
                !error.code().is_some_and(|code| code.starts_with("57P") || code == "25P03")
            }
            Err(_) => false,
        };
        if let Some(used) = &mut self.used {
            used.is_answered = is_answered;
        }
        answer
    }

    /// Begins a transaction, which ends with [`Lent::commit`], or undone when this is dropped.
    pub(in crate::storage) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        // Before it is answered, or whoever is gone by then leaves it open to the next.
        self.set_transaction(true);
        self.run("BEGIN").await
    }

    pub(in crate::storage) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.run("COMMIT").await?;
        self.set_transaction(false);
        Ok(())
    }

    pub(in crate::storage) async fn run(
        &mut self,
        statement: &'static str,
    ) -> Result<(), sqlx::Error> {
        let done = self.connection()?.execute(statement).await;
        self.observe(done).map(drop)
    }

    fn set_transaction(&mut self, is_open: bool) {
        if let Some(used) = &mut self.used {
            used.in_transaction = is_open;
        }
    }
}

impl<D: Database> Drop for Lent<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    fn drop(&mut self) {
        let Some(mut used) = self.used.take() else { return };
        match (used.in_transaction, used.is_answered, Handle::try_current()) {
            (false, true, _) => self.shared.keep(used.connection),
            (true, true, Ok(runtime)) => {
                let shared = Arc::clone(&self.shared);
                runtime.spawn(async move {
                    // All of it goes along: nobody gets the place before the connection is there.
                    let Used { mut connection, _place, .. } = used;
                    if connection.execute("ROLLBACK").await.is_ok() {
                        shared.keep(connection);
                    } else {
                        connection.close_on_drop();
                    }
                });
            }
            // What it was asked last may still be under way.
            (true, ..) => used.connection.close_on_drop(),
            (false, false, _) => {}
        }
    }
}
