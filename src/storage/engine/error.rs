//! Why the database could not do what was asked.

use std::path::PathBuf;

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::MigrateError;
use thiserror::Error;
use uuid::Uuid;

/// Why the database could not do what was asked.
#[derive(Debug, Error)]
pub enum StorageError {
    /// It refused or failed.
    #[error("the database refused or failed")]
    Database(#[source] sqlx::Error),
    /// It is busy or away; the same may work in a moment.
    #[error("the database is busy or away")]
    Unavailable(#[source] sqlx::Error),
    /// There is no room for what was to be written.
    #[error(
        "the disk is full: make room where the database lies, and everything goes on by itself"
    )]
    Full(#[source] sqlx::Error),
    /// What stands in the file of a SQLite database is no database, or contradicts itself.
    #[error(
        "the database's file is damaged: stop the service, keep a copy of the file with its `-wal`, and put a \
         backup in its place"
    )]
    Damaged(#[source] sqlx::Error),
    /// The file of a SQLite database was removed, or another one put in its place, while it was open.
    #[error(
        "{} was removed or replaced while the service has it open, so that nothing is written any more: stop \
         the service, put the file back with its `-wal`, or a backup, and start it again",
        .0.display()
    )]
    Replaced(PathBuf),
    /// PostgreSQL lets nobody in.
    #[error(
        "there is no connection to PostgreSQL at {server}; see that it runs there and that `database.url` says so"
    )]
    NoServer {
        /// Host or socket, and port.
        server: String,
        #[source]
        source: sqlx::Error,
    },
    /// The migrations could not be applied.
    #[error("the migrations could not be applied")]
    Migrate(#[source] MigrateError),
    /// A newer program has migrated the database.
    #[error(
        "the database has version {found} of the schema and this program knows {known} at most: \
         install the newer certwright again"
    )]
    NewerSchema {
        /// The version that the database has.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The migrations that the database has are not those of this program.
    #[error(
        "version {0} of the database's schema was not made by the migrations of this program: of the \
         versions before they were squashed, only the last (14) is taken over. Run `certwright migrate` of \
         commit 26f6eca on it first"
    )]
    UnknownSchema(i64),
    /// A row that this version did not write.
    #[error("`{table}` row {id} cannot be understood: {problem}")]
    Corrupt {
        /// Where it is.
        table: &'static str,
        /// Which it is.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another worker, or a client's change, came in between; what was computed is void.
    #[error("the lease on {0} was lost")]
    LeaseLost(Uuid),
    /// Another process serves from this SQLite database.
    #[error(
        "another certwright serves from this database ({} is locked): SQLite has one at a time, \
         several share a PostgreSQL",
        .0.display()
    )]
    InUse(PathBuf),
    /// The file that says who serves from a SQLite database cannot be used.
    #[error("{} cannot be locked", .0.display())]
    Lock(PathBuf, #[source] std::io::Error),
    /// The file of a SQLite database cannot be used.
    #[error("{} cannot be used", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// Rows with a MAC cannot be used without the master key.
    #[error(
        "the database was opened without the master key, which API keys and policies are signed with"
    )]
    NoMacKey,
    /// A row that grants something and that the service did not write.
    #[error(
        "`{table}` row {id} was changed in the database by somebody else than the service: delete it and create it again"
    )]
    NotAuthentic {
        /// Where it is.
        table: &'static str,
        /// Which it is.
        id: Uuid,
    },
    /// A column whose values cannot be copied into another database.
    #[error("the type of the column {0} is not one that a backup knows")]
    UnknownType(String),
    /// Something with this identity is there already.
    #[error("it exists already")]
    Conflict,
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(error)
            }
            sqlx::Error::Database(database) if database.is_unique_violation() => Self::Conflict,
            sqlx::Error::Database(database) => match database.code().as_deref().map(kind) {
                Some(Kind::Transient) => Self::Unavailable(error),
                Some(Kind::Full) => Self::Full(error),
                Some(Kind::Damaged) => Self::Damaged(error),
                Some(Kind::Other) | None => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

impl From<MigrateError> for StorageError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)
                if is_of_the_file(&cause) =>
            {
                cause.into()
            }
            error => Self::Migrate(error),
        }
    }
}

/// Whether the database's file, or its disk, is the cause, and not what was asked.
fn is_of_the_file(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref().map(kind), Some(Kind::Full | Kind::Damaged))
}

impl StorageError {
    /// The failure of a commit, for another transaction that was in it. The errors of sqlx cannot be cloned; of a refusal
    /// that is about one of them alone, another one only hears that it was not done.
    pub(super) fn for_another(&self) -> Self {
        let copy = |error: &sqlx::Error| sqlx::Error::Io(std::io::Error::other(error.to_string()));
        match self {
            Self::Full(error) => Self::Full(copy(error)),
            Self::Damaged(error) => Self::Damaged(copy(error)),
            Self::Replaced(path) => Self::Replaced(path.clone()),
            Self::Database(error) | Self::Unavailable(error) => Self::Unavailable(copy(error)),
            other => Self::Unavailable(sqlx::Error::Io(std::io::Error::other(other.to_string()))),
        }
    }

    /// Whether the same may work later, with nothing done to the request: what was computed is worth keeping.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_) | Self::Replaced(_))
    }
}

/// The error of a commit after a failure within its transaction.
pub(super) fn undone() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other("the transaction was undone by a failure within it"))
}

/// Whether a refusal may have undone more than its statement.
pub(super) fn undoes_all(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::RowNotFound => false,
        sqlx::Error::Database(error) => matches!(error.kind(), ErrorKind::Other),
        _ => true,
    }
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The same may work in a moment.
    Transient,
    Full,
    Damaged,
    Other,
}

/// By SQLite's result code or PostgreSQL's SQLSTATE.
///
/// Transient are: busy, locked or unable to read or write; serialization failures, deadlocks, shutdowns, lost
/// connections, lack of room for another one, and a standby that is not promoted yet.
fn kind(code: &str) -> Kind {
    const POSTGRES: [&str; 9] =
        ["40001", "40P01", "57P01", "57P02", "57P03", "57P05", "25P03", "53300", "25006"];
    /// Its shared memory is a file, which SQLite cannot make longer.
    const NO_SHARED_MEMORY: u32 = 4874;
    match code.parse::<u32>() {
        Ok(NO_SHARED_MEMORY) => Kind::Full,
        // The lowest byte is the primary code, the rest says more.
        Ok(number) if code.len() < 5 => match number & 0xff {
            5 | 6 | 10 => Kind::Transient,
            13 => Kind::Full,
            11 | 26 => Kind::Damaged,
            _ => Kind::Other,
        },
        _ if code == "53100" => Kind::Full,
        _ if POSTGRES.contains(&code) || code.starts_with("08") => Kind::Transient,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, StorageError, kind};

    #[test]
    fn whoever_was_in_a_failed_commit_hears_of_what_concerns_all_and_else_to_come_again() {
        let cause = || sqlx::Error::Protocol("why".to_owned());
        assert!(matches!(StorageError::Full(cause()).for_another(), StorageError::Full(_)));
        assert!(matches!(StorageError::Damaged(cause()).for_another(), StorageError::Damaged(_)));
        for own in [StorageError::Database(cause()), StorageError::Conflict] {
            assert!(matches!(own.for_another(), StorageError::Unavailable(_)));
        }
    }

    #[test]
    fn what_may_work_in_a_moment_is_told_from_what_will_not() {
        // SQLite busy (and for a snapshot), locked, unable to read.
        for code in ["5", "261", "517", "6", "262", "10", "266"] {
            assert_eq!(kind(code), Kind::Transient, "{code}");
        }
        for code in
            ["40001", "40P01", "57P01", "57P03", "25P03", "08006", "08003", "53300", "25006"]
        {
            assert_eq!(kind(code), Kind::Transient, "{code}");
        }
        // A constraint, a wrong statement, no such file, a syntax error.
        for code in ["19", "787", "1", "14", "23505", "42601", "42P01", "28P01"] {
            assert_eq!(kind(code), Kind::Other, "{code}");
        }
    }

    #[test]
    fn a_full_disk_and_a_damaged_file_are_told_by_their_codes() {
        for code in ["13", "4874", "53100"] {
            assert_eq!(kind(code), Kind::Full, "{code}");
        }
        for code in ["11", "267", "26"] {
            assert_eq!(kind(code), Kind::Damaged, "{code}");
        }
    }
}
