//! What statements run on.
//!
//! A transaction begins with its first question: whoever has nothing to ask hands over all of it at the end.

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use super::StorageError;
use super::connections::{Connections, Lent};
use super::group_commit::{Turn, Writer};
use super::pipeline::Later;
use crate::storage::tables::events;
use crate::storage::tables::events::Happened;

/// One unit of work on SQLite.
pub(in crate::storage) struct OnSqlite {
    stage: Stage<Writer, Turn, Lent<Sqlite>>,
    pub(in crate::storage) later: Later<Sqlite>,
}

/// One unit of work on PostgreSQL.
pub(in crate::storage) struct OnPostgres {
    stage: Stage<Connections<Postgres>, Lent<Postgres>, Lent<Postgres>>,
    pub(in crate::storage) later: Later<Postgres>,
    /// Written by one statement with what was put off.
    pub(in crate::storage) happened: Vec<Happened>,
}

/// How far it is.
enum Stage<L, W, R> {
    /// A transaction that nothing was asked in yet.
    Later(L),
    /// A transaction.
    Writes(W),
    /// To read: every statement is a transaction of its own. On either database the beginning and the end
    /// of one cost as much as a small query, and several statements would not see the same anyhow.
    Reads(R),
}

impl OnSqlite {
    pub(in crate::storage) fn begin(writer: Writer) -> Self {
        Self { stage: Stage::Later(writer), later: Later::default() }
    }

    pub(in crate::storage) fn reads(connection: Lent<Sqlite>) -> Self {
        Self { stage: Stage::Reads(connection), later: Later::default() }
    }

    pub(in crate::storage) fn is_later(&self) -> bool {
        matches!(self.stage, Stage::Later(_))
    }

    /// To be asked something; what it answers is to be told to [`Self::heard`].
    pub(in crate::storage) fn ask(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        match &mut self.stage {
            Stage::Later(_) => Err(sqlx::Error::BeginFailed),
            Stage::Writes(turn) => turn.ask(),
            Stage::Reads(connection) => connection.ask(),
        }
    }

    pub(in crate::storage) fn heard<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        match &mut self.stage {
            Stage::Later(_) => answer,
            Stage::Writes(turn) => turn.heard(answer),
            Stage::Reads(connection) => connection.heard(answer),
        }
    }

    /// Begins, unless it has begun, and runs what was put off.
    pub(in crate::storage) async fn catch_up(&mut self) -> Result<(), StorageError> {
        if self.is_later() || !self.later.is_empty() {
            // On the heap: it is a part of nearly everything that is done with the database.
            Box::pin(self.run_later()).await?;
        }
        Ok(())
    }

    async fn run_later(&mut self) -> Result<(), StorageError> {
        if let Stage::Later(writer) = &self.stage {
            self.stage = Stage::Writes(writer.begin().await?);
        }
        let Some(later) = self.later.take() else { return Ok(()) };
        let ran = later.run(None, self.ask()?).await;
        let Some(lost) = self.heard(ran)? else { return Ok(()) };
        if let Stage::Writes(turn) = &mut self.stage {
            turn.spoil();
        }
        Err(StorageError::LeaseLost(lost))
    }

    /// Makes it so, with what was put off.
    pub(in crate::storage) async fn commit(mut self) -> Result<(), StorageError> {
        if let Stage::Later(writer) = &self.stage {
            let Some(later) = self.later.take() else { return Ok(()) };
            return writer.write(later).await;
        }
        self.catch_up().await?;
        match self.stage {
            Stage::Writes(turn) => turn.commit().await,
            Stage::Later(_) | Stage::Reads(_) => Ok(()),
        }
    }
}

impl OnPostgres {
    pub(in crate::storage) fn begin(connections: Connections<Postgres>) -> Self {
        Self::at(Stage::Later(connections))
    }

    pub(in crate::storage) fn reads(connection: Lent<Postgres>) -> Self {
        Self::at(Stage::Reads(connection))
    }

    fn at(stage: Stage<Connections<Postgres>, Lent<Postgres>, Lent<Postgres>>) -> Self {
        Self { stage, later: Later::default(), happened: Vec::new() }
    }

    pub(in crate::storage) fn is_later(&self) -> bool {
        matches!(self.stage, Stage::Later(_))
    }

    /// To be asked something; what it answers is to be told to [`Self::heard`].
    pub(in crate::storage) fn ask(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        match &mut self.stage {
            Stage::Later(_) => Err(sqlx::Error::BeginFailed),
            Stage::Writes(connection) | Stage::Reads(connection) => connection.ask(),
        }
    }

    pub(in crate::storage) fn heard<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        match &mut self.stage {
            Stage::Later(_) => answer,
            Stage::Writes(connection) | Stage::Reads(connection) => connection.heard(answer),
        }
    }

    /// Has `next` put off, too, with what does not come in its way.
    pub(in crate::storage) async fn make_room(&mut self, next: &str) -> Result<(), StorageError> {
        if self.later.must_go_before(next) { self.catch_up().await } else { Ok(()) }
    }

    /// Begins, unless it has begun, and runs what was put off.
    pub(in crate::storage) async fn catch_up(&mut self) -> Result<(), StorageError> {
        if self.is_later() || !(self.later.is_empty() && self.happened.is_empty()) {
            // As on SQLite.
            Box::pin(self.run_later()).await?;
        }
        Ok(())
    }

    async fn run_later(&mut self) -> Result<(), StorageError> {
        if let Stage::Later(connections) = &self.stage {
            let mut connection = connections.take().await?;
            connection.begin().await?;
            self.stage = Stage::Writes(connection);
        }
        let Some(later) = self.put_off()? else { return Ok(()) };
        let ran = later.run(self.ask()?).await;
        self.heard(ran)?.map_or(Ok(()), |lost| Err(StorageError::LeaseLost(lost)))
    }

    /// Makes it so, with what was put off.
    pub(in crate::storage) async fn commit(mut self) -> Result<(), StorageError> {
        if let Stage::Later(connections) = &self.stage {
            let connections = connections.clone();
            let Some(later) = self.put_off()? else { return Ok(()) };
            let mut connection = connections.take().await?;
            let ran = later.run(connection.ask()?).await;
            return connection
                .heard(ran)?
                .map_or(Ok(()), |lost| Err(StorageError::LeaseLost(lost)));
        }
        self.catch_up().await?;
        match self.stage {
            Stage::Writes(mut connection) => Ok(connection.commit().await?),
            Stage::Later(_) | Stage::Reads(_) => Ok(()),
        }
    }

    fn put_off(&mut self) -> Result<Option<Later<Postgres>>, sqlx::Error> {
        events::write(&mut self.later, &std::mem::take(&mut self.happened))?;
        Ok(self.later.take())
    }
}
