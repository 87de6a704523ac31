//! What statements run on.

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use super::connections::Lent;
use super::writer::Turn;

/// One unit of work on SQLite.
pub(super) enum OnSqlite {
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
            Self::Writes(turn) => turn.ask(),
            Self::Reads(connection) => connection.ask(),
        }
    }

    pub(super) fn heard<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match self {
            Self::Writes(turn) => turn.heard(answer),
            Self::Reads(connection) => connection.heard(answer),
        }
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Writes(turn) => turn.commit().await,
            Self::Reads(_) => Ok(()),
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
