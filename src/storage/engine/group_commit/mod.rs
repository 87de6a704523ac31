//! SQLite's one writer: transactions that queue up behind each other reach the disk together.
//!
//! Every commit waits for the disk, and nobody else can write meanwhile. So whoever has finished while
//! others wait leaves the transaction to the next of them, up to a limit, and all of them are committed by
//! one write to the disk. Each hears of its commit only then: nothing is reported done that is not on the disk.
//! Each is undone alone, to its savepoint, if it is dropped.
//!
//! A transaction that has nothing to read is handed over whole, and costs one visit to SQLite's thread. As long as
//! all are such, none has a savepoint, for which SQLite would copy every page that it touches: should one
//! of them fail in its midst, all are undone, and written again with one each.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::StorageError;
use super::database_file::DatabaseFile;
use super::error::{undoes_all, undone};
use super::pipeline::{Pipeline, Refused};

/// Transactions that are committed together.
const MOST: usize = 32;

/// How long the first of them waits for others.
const LONGEST: Duration = Duration::from_millis(5);

// A deferred transaction that reads first cannot upgrade once another process has written, however
// long it waits; taking the write lock up front can.
const BEGIN: &str = "BEGIN IMMEDIATE";

const SAVEPOINT: &str = "SAVEPOINT turn";

/// Who waits for a turn at the same time; the next one waits to be let in.
const QUEUE: usize = 1024;

/// What is asked of the writer.
enum Request {
    /// A slot, to read and write in.
    Interactive(oneshot::Sender<Result<WriteSlot, StorageError>>),
    /// That this is written.
    Batch(Pipeline<Sqlite>, Reply),
}

type Reply = oneshot::Sender<Result<(), StorageError>>;

/// The queue of those who want to write.
#[derive(Clone)]
pub(in crate::storage) struct Writer {
    queue: mpsc::Sender<Request>,
    patience: Duration,
}

/// One transaction. Dropping it without [`WriteSlot::commit`] undoes it.
pub(in crate::storage) struct WriteSlot {
    held: Option<Held>,
    is_poisoned: bool,
}

/// The connection as long as it is somebody's turn, and the way back for it.
struct Held {
    connection: PoolConnection<Sqlite>,
    back: oneshot::Sender<(PoolConnection<Sqlite>, Ended)>,
}

enum Ended {
    Commit(Reply),
    Undo,
}

impl Writer {
    /// Writes by a pool of one connection, as long as its file is where it was.
    pub(in crate::storage) fn of(pool: SqlitePool, file: DatabaseFile) -> Self {
        let patience = pool.options().get_acquire_timeout();
        let (queue, queued) = mpsc::channel(QUEUE);
        tokio::spawn(serve(pool, file, queued));
        Self { queue, patience }
    }

    /// Begins a transaction, as soon as it is its turn.
    pub(in crate::storage) async fn begin(&self) -> Result<WriteSlot, StorageError> {
        let (turn, given) = oneshot::channel();
        let given = async {
            self.ask(Request::Interactive(turn)).await?;
            given.await.unwrap_or_else(|_| Err(sqlx::Error::PoolClosed.into()))
        };
        timeout(self.patience, given)
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()))
    }

    /// Writes this in a transaction of its own; returns once it is on the disk.
    pub(in crate::storage) async fn write(
        &self,
        writes: Pipeline<Sqlite>,
    ) -> Result<(), StorageError> {
        let (reply, done) = oneshot::channel();
        let asked = timeout(self.patience, self.ask(Request::Batch(writes, reply)));
        asked.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        done.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    async fn ask(&self, request: Request) -> Result<(), sqlx::Error> {
        self.queue.send(request).await.map_err(|_| sqlx::Error::PoolClosed)
    }
}

impl Request {
    fn refuse(self, error: StorageError) {
        // Whoever is gone needs no answer.
        match self {
            Self::Interactive(asker) => drop(asker.send(Err(error))),
            Self::Batch(_, reply) => drop(reply.send(Err(error))),
        }
    }
}

impl WriteSlot {
    /// To be asked something; what it answers is to be reply to [`WriteSlot::observe`].
    pub(in crate::storage) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let held = self.held.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        Ok(&mut held.connection)
    }

    /// Takes note of a refusal that may have undone more than its statement: SQLite gives up the whole
    /// transaction when the disk is full or fails.
    pub(in crate::storage) fn observe<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.is_poisoned |= answer.as_ref().is_err_and(undoes_all);
        answer
    }

    /// From here on it can only be undone.
    pub(in crate::storage) fn poison(&mut self) {
        self.is_poisoned = true;
    }

    /// Returns once it is on the disk.
    pub(in crate::storage) async fn commit(mut self) -> Result<(), StorageError> {
        if self.is_poisoned {
            return Err(undone().into());
        }
        let (reply, done) = oneshot::channel();
        self.end(Ended::Commit(reply));
        done.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    fn end(&mut self, ended: Ended) {
        if let Some(Held { connection, back }) = self.held.take() {
            // Where nobody takes it back, the database was closed.
            back.send((connection, ended)).ok();
        }
    }
}

impl Drop for WriteSlot {
    fn drop(&mut self) {
        self.end(Ended::Undo);
    }
}

/// Gives one after the other its turn, until the pool is closed or nobody can want one any more.
async fn serve(pool: SqlitePool, file: DatabaseFile, incoming: mpsc::Receiver<Request>) {
    let mut queue = Queue { first: VecDeque::new(), incoming };
    let mut idle = None;
    let mut closed = pin!(pool.close_event());
    // A pool that is closed before it has the listener, and after it was asked for one, tells nobody.
    if pool.is_closed() {
        return;
    }
    loop {
        let first = tokio::select! {
            request = queue.next() => request,
            () = &mut closed => None,
        };
        let Some(first) = first else { return };
        if let Err(error) = file.check() {
            first.refuse(error);
            continue;
        }
        let connection = match idle.take() {
            Some(connection) => connection,
            None => match pool.acquire().await {
                Ok(connection) => connection,
                Err(error) => {
                    first.refuse(error.into());
                    continue;
                }
            },
        };
        idle = match first {
            Request::Batch(writes, reply) if queue.first.is_empty() => {
                commit_batches(connection, &file, (writes, reply), &mut queue).await
            }
            first => commit_with_savepoints(connection, &file, first, &mut queue).await,
        };
    }
}

/// Those who wait to write.
struct Queue {
    /// Whose turn it was before.
    first: VecDeque<Request>,
    incoming: mpsc::Receiver<Request>,
}

impl Queue {
    async fn next(&mut self) -> Option<Request> {
        match self.first.pop_front() {
            Some(request) => Some(request),
            None => self.incoming.recv().await,
        }
    }

    fn try_next(&mut self) -> Option<Request> {
        self.first.pop_front().or_else(|| self.incoming.try_recv().ok())
    }
}

/// One commit for those who wait by now and have nothing to read. Gives the connection back, unless it failed.
async fn commit_batches(
    mut connection: PoolConnection<Sqlite>,
    file: &DatabaseFile,
    first: (Pipeline<Sqlite>, Reply),
    queue: &mut Queue,
) -> Option<PoolConnection<Sqlite>> {
    let began = Instant::now();
    let mut members = Vec::new();
    let mut next = Some(first);
    while let Some((writes, reply)) = next.take() {
        let opening = members.is_empty().then_some(BEGIN);
        let failure = match writes.run(opening, &mut connection).await {
            Ok(None) => None,
            Ok(Some(lost)) => Some(StorageError::LeaseLost(lost)),
            // A name that is taken, as a rule. The others go on as if it had not been there.
            Err(refused) if refused.changed_nothing && !members.is_empty() => {
                reply.send(Err(refused.error.into())).ok();
                next = next_batch(queue, members.len(), began);
                continue;
            }
            Err(refused) => Some(refused.error.into()),
        };
        if let Some(failure) = failure {
            if members.is_empty() {
                reply.send(Err(failure)).ok();
            } else {
                // Once more, now that it is known that they need something to fall back to.
                members.push((writes, reply));
                let again =
                    members.into_iter().map(|(writes, reply)| Request::Batch(writes, reply));
                queue.first.extend(again);
            }
            let undone = run(&mut connection, "ROLLBACK").await;
            return if undone.is_ok() { Some(connection) } else { give_up(connection) };
        }
        members.push((writes, reply));
        next = next_batch(queue, members.len(), began);
    }
    commit(connection, file, members.into_iter().map(|(_, reply)| reply).collect()).await
}

/// Whoever else waits with nothing to read, if there is room beside so many.
fn next_batch(
    queue: &mut Queue,
    members: usize,
    began: Instant,
) -> Option<(Pipeline<Sqlite>, Reply)> {
    if members >= MOST || began.elapsed() >= LONGEST {
        return None;
    }
    match queue.incoming.try_recv() {
        Ok(Request::Batch(writes, reply)) => Some((writes, reply)),
        Ok(turn) => {
            queue.first.push_back(turn);
            None
        }
        Err(_) => None,
    }
}

/// One commit for whoever waits by now. Gives the connection back, unless it failed.
async fn commit_with_savepoints(
    mut connection: PoolConnection<Sqlite>,
    file: &DatabaseFile,
    first: Request,
    queue: &mut Queue,
) -> Option<PoolConnection<Sqlite>> {
    let began = Instant::now();
    if let Err(error) = run(&mut connection, BEGIN).await {
        first.refuse(error.into());
        return give_up(connection);
    }
    let mut members = Vec::new();
    let mut next = Some(first);
    while let Some(request) = next.take() {
        let ended = match request {
            Request::Interactive(asker) => {
                if !members.is_empty()
                    && let Err(error) = run(&mut connection, SAVEPOINT).await
                {
                    let error = error.into();
                    fail(members, &error);
                    asker.send(Err(error)).ok();
                    return give_up(connection);
                }
                let ended;
                (connection, ended) = lend(connection, asker).await?;
                ended
            }
            Request::Batch(writes, reply) => {
                match writes.run(Some(SAVEPOINT), &mut connection).await {
                    Ok(None) => Ended::Commit(reply),
                    Ok(Some(lost)) => {
                        reply.send(Err(StorageError::LeaseLost(lost))).ok();
                        Ended::Undo
                    }
                    Err(Refused { error, .. }) => {
                        let all = undoes_all(&error);
                        let error = error.into();
                        if all {
                            fail(members, &error);
                            reply.send(Err(error)).ok();
                            return give_up(connection);
                        }
                        reply.send(Err(error)).ok();
                        Ended::Undo
                    }
                }
            }
        };
        match ended {
            Ended::Commit(reply) => members.push(reply),
            Ended::Undo if members.is_empty() => {
                let undone = run(&mut connection, "ROLLBACK").await;
                return if undone.is_ok() { Some(connection) } else { give_up(connection) };
            }
            Ended::Undo => {
                if let Err(error) = run(&mut connection, "ROLLBACK TO turn").await {
                    fail(members, &error.into());
                    return give_up(connection);
                }
            }
        }
        if members.len() < MOST && began.elapsed() < LONGEST {
            next = queue.try_next();
        }
    }
    commit(connection, file, members).await
}

/// Tells all of them what came of it. Who joined the turn late asked after its first look at the file.
async fn commit(
    mut connection: PoolConnection<Sqlite>,
    file: &DatabaseFile,
    mut members: Vec<Reply>,
) -> Option<PoolConnection<Sqlite>> {
    let done = match file.check() {
        Ok(()) => run(&mut connection, "COMMIT").await.map_err(StorageError::from),
        Err(gone) => Err(gone),
    };
    if let Err(error) = done {
        let last = members.pop();
        fail(members, &error);
        // Who is alone hears the cause as it is.
        if let Some(reply) = last {
            reply.send(Err(error)).ok();
        }
        return give_up(connection);
    }
    for reply in members {
        reply.send(Ok(())).ok();
    }
    Some(connection)
}

/// Tells all of them why nothing of it is on the disk.
fn fail(members: Vec<Reply>, error: &StorageError) {
    for reply in members {
        reply.send(Err(error.for_another())).ok();
    }
}

async fn run(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(drop)
}

/// The connection goes by value, so that nobody else can use it meanwhile, and comes back however the
/// turn ends: an asker that is gone drops it at once.
async fn lend(
    connection: PoolConnection<Sqlite>,
    asker: oneshot::Sender<Result<WriteSlot, StorageError>>,
) -> Option<(PoolConnection<Sqlite>, Ended)> {
    let (back, returned) = oneshot::channel();
    drop(asker.send(Ok(WriteSlot { held: Some(Held { connection, back }), is_poisoned: false })));
    returned.await.ok()
}

/// Whatever the transaction holds is undone with its connection; a new one is opened for the next.
fn give_up(mut connection: PoolConnection<Sqlite>) -> Option<PoolConnection<Sqlite>> {
    connection.close_on_drop();
    None
}

#[cfg(test)]
mod tests;
