//! What statements run on.

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use super::StorageError;
use super::connections::Lent;
use super::later::Later;
use super::writer::{Turn, Writer};

/// One unit of work on SQLite.
pub(super) enum OnSqlite {
    /// A transaction that nothing was asked in yet: whoever has nothing to ask hands over all of it.
    Later(Writer),
    /// A transaction.
    Writes(Turn),
    /// To read: every statement is a transaction of its own. On either database the beginning and the end
    /// of one cost as much as a small query, and several statements would not see the same anyhow.
    Reads(Lent<Sqlite>),
}

/// One unit of work on PostgreSQL.
pub(super) enum OnPostgres {
    /// A transaction.
    Writes(Lent<Postgres>),
    /// Statements of their own, as on SQLite.
    Reads(Lent<Postgres>),
}

impl OnSqlite {
    /// To be asked something; what it answers is to be told to [`Self::heard`].
    pub(super) fn ask(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        match self {
            Self::Later(_) => Err(sqlx::Error::BeginFailed),
            Self::Writes(turn) => turn.ask(),
            Self::Reads(connection) => connection.ask(),
        }
    }

    pub(super) fn heard<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match self {
            Self::Later(_) => answer,
            Self::Writes(turn) => turn.heard(answer),
            Self::Reads(connection) => connection.heard(answer),
        }
    }

    /// Begins, unless it has begun, and runs what was put off.
    pub(super) async fn catch_up(&mut self, later: Option<Later>) -> Result<(), StorageError> {
        if let Self::Later(writer) = self {
            *self = Self::Writes(writer.begin().await?);
        }
        let Some(later) = later else { return Ok(()) };
        let ran = later.run(self.ask()?).await;
        match (self.heard(ran)?, self) {
            (None, _) => Ok(()),
            (Some(lost), Self::Writes(turn)) => {
                turn.spoil();
                Err(StorageError::LeaseLost(lost))
            }
            (Some(lost), _) => Err(StorageError::LeaseLost(lost)),
        }
    }

    /// Makes it so, with what was put off.
    pub(super) async fn commit(mut self, later: Option<Later>) -> Result<(), StorageError> {
        match (&self, later) {
            (Self::Later(writer), Some(later)) => return writer.write(later).await,
            (Self::Later(_), None) => return Ok(()),
            (_, later) => self.catch_up(later).await?,
        }
        match self {
            Self::Writes(turn) => turn.commit().await,
            Self::Later(_) | Self::Reads(_) => Ok(()),
        }
    }
}

impl OnPostgres {
    pub(super) async fn begin(mut connection: Lent<Postgres>) -> Result<Self, sqlx::Error> {
        connection.begin().await?;
        Ok(Self::Writes(connection))
    }

    fn connection(&mut self) -> &mut Lent<Postgres> {
        match self {
            Self::Writes(connection) | Self::Reads(connection) => connection,
        }
    }

    /// To be asked something; what it answers is to be told to [`Self::heard`].
    pub(super) fn ask(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection().ask()
    }

    pub(super) fn heard<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.connection().heard(answer)
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Writes(mut connection) => connection.commit().await,
            Self::Reads(_) => Ok(()),
        }
    }
}
