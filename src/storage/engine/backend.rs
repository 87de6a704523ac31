//! A unit of work on either database.
//!
//! A transaction begins with its first question: one that asks nothing is handed over whole, on SQLite to the
//! writer, on PostgreSQL as one statement.

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use super::StorageError;
use super::connections::{Connections, Lent};
use super::error::undone;
use super::group_commit::{WriteSlot, Writer};
use super::pipeline::Pipeline;
use super::statement::Touch;

/// A unit of work on SQLite, which queues writes.
pub(in crate::storage) struct OnSqlite {
    stage: Stage<Writer, WriteSlot, Lent<Sqlite>>,
    pub(in crate::storage) pipeline: Pipeline<Sqlite>,
}

/// A unit of work on PostgreSQL, which queues writes.
pub(in crate::storage) struct OnPostgres {
    stage: Stage<Connections<Postgres>, Lent<Postgres>, Lent<Postgres>>,
    pub(in crate::storage) pipeline: Pipeline<Postgres>,
    /// Whether a statement has failed, or a lease was lost: from then on it can only be undone.
    is_poisoned: bool,
}

/// The progress of a unit of work.
enum Stage<L, W, R> {
    /// A transaction in which no statement was run yet.
    NotBegun(L),
    /// A transaction.
    Writes(W),
    /// No transaction: every statement is one by itself. On either database the beginning and the end of a
    /// transaction cost as much as a small query, and its statements might see different states anyhow.
    Reads(R),
}

impl OnSqlite {
    pub(in crate::storage) fn begin(writer: Writer) -> Self {
        Self { stage: Stage::NotBegun(writer), pipeline: Pipeline::default() }
    }

    pub(in crate::storage) fn reads(connection: Lent<Sqlite>) -> Self {
        Self { stage: Stage::Reads(connection), pipeline: Pipeline::default() }
    }

    pub(in crate::storage) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::NotBegun(_))
    }

    /// The connection, for a statement whose answer is to be told to [`Self::observe`].
    pub(in crate::storage) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        match &mut self.stage {
            Stage::NotBegun(_) => Err(sqlx::Error::BeginFailed),
            Stage::Writes(slot) => slot.connection(),
            Stage::Reads(connection) => connection.connection(),
        }
    }

    pub(in crate::storage) fn observe<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        match &mut self.stage {
            Stage::NotBegun(_) => answer,
            Stage::Writes(slot) => slot.observe(answer),
            Stage::Reads(connection) => connection.observe(answer),
        }
    }

    /// Begins, unless it has begun, and runs the queued writes.
    pub(in crate::storage) async fn flush(&mut self) -> Result<(), StorageError> {
        if !self.has_begun() || !self.pipeline.is_empty() {
            // On the heap: this future is a part of nearly every other one.
            Box::pin(self.run_queued()).await?;
        }
        Ok(())
    }

    async fn run_queued(&mut self) -> Result<(), StorageError> {
        if let Stage::NotBegun(writer) = &self.stage {
            self.stage = Stage::Writes(writer.begin().await?);
        }
        let Some(queued) = self.pipeline.take() else { return Ok(()) };
        let ran = queued.run(None, self.connection()?).await.map_err(|refused| refused.error);
        let Some(lost) = self.observe(ran)? else { return Ok(()) };
        if let Stage::Writes(slot) = &mut self.stage {
            slot.poison();
        }
        Err(StorageError::LeaseLost(lost))
    }

    /// Commits, with the queued writes.
    pub(in crate::storage) async fn commit(mut self) -> Result<(), StorageError> {
        if let Stage::NotBegun(writer) = &self.stage {
            let Some(queued) = self.pipeline.take() else { return Ok(()) };
            return writer.write(queued).await;
        }
        self.flush().await?;
        match self.stage {
            Stage::Writes(slot) => slot.commit().await,
            Stage::NotBegun(_) | Stage::Reads(_) => Ok(()),
        }
    }
}

impl OnPostgres {
    pub(super) fn begin(connections: Connections<Postgres>) -> Self {
        Self::at(Stage::NotBegun(connections))
    }

    pub(super) fn reads(connection: Lent<Postgres>) -> Self {
        Self::at(Stage::Reads(connection))
    }

    fn at(stage: Stage<Connections<Postgres>, Lent<Postgres>, Lent<Postgres>>) -> Self {
        Self { stage, pipeline: Pipeline::default(), is_poisoned: false }
    }

    pub(in crate::storage) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::NotBegun(_))
    }

    /// The connection, for a statement whose answer is to be told to [`Self::observe`].
    pub(in crate::storage) fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match &mut self.stage {
            Stage::NotBegun(_) => Err(sqlx::Error::BeginFailed),
            Stage::Writes(connection) | Stage::Reads(connection) => connection.connection(),
        }
    }

    pub(in crate::storage) fn observe<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        match &mut self.stage {
            Stage::NotBegun(_) => answer,
            Stage::Writes(connection) => {
                // PostgreSQL undoes a transaction in which a statement has failed, and answers its `COMMIT`
                // without an error.
                self.is_poisoned |= !matches!(answer, Ok(_) | Err(sqlx::Error::RowNotFound));
                connection.observe(answer)
            }
            Stage::Reads(connection) => connection.observe(answer),
        }
    }

    /// Runs the queued writes, unless a statement that touches this may be joined with them.
    pub(in crate::storage) async fn make_room(
        &mut self,
        touches: &[Touch],
    ) -> Result<(), StorageError> {
        if self.pipeline.must_run_before(touches) { self.flush().await } else { Ok(()) }
    }

    /// Begins, unless it has begun, and runs the queued writes.
    pub(in crate::storage) async fn flush(&mut self) -> Result<(), StorageError> {
        if !self.has_begun() || !self.pipeline.is_empty() {
            // On the heap, as on SQLite.
            Box::pin(self.run_queued()).await?;
        }
        Ok(())
    }

    async fn run_queued(&mut self) -> Result<(), StorageError> {
        if let Stage::NotBegun(connections) = &self.stage {
            let mut connection = connections.take().await?;
            connection.begin().await?;
            self.stage = Stage::Writes(connection);
        }
        let Some(queued) = self.pipeline.take() else { return Ok(()) };
        let ran = queued.run(self.connection()?).await;
        let Some(lost) = self.observe(ran)? else { return Ok(()) };
        self.is_poisoned = true;
        Err(StorageError::LeaseLost(lost))
    }

    /// Commits, with the queued writes: alone they are one statement, which is a transaction by itself.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        if let Stage::NotBegun(connections) = &self.stage {
            let Some(queued) = self.pipeline.take() else { return Ok(()) };
            let mut connection = connections.take().await?;
            let ran = queued.run(connection.connection()?).await;
            return connection
                .observe(ran)?
                .map_or(Ok(()), |lost| Err(StorageError::LeaseLost(lost)));
        }
        self.flush().await?;
        if self.is_poisoned {
            return Err(undone().into());
        }
        match self.stage {
            Stage::Writes(mut connection) => Ok(connection.commit().await?),
            Stage::NotBegun(_) | Stage::Reads(_) => Ok(()),
        }
    }
}
