//! Why the database could not do what was asked.

use std::path::PathBuf;

use sqlx::error::ErrorKind;
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
    /// The migrations could not be applied.
    #[error("the migrations could not be applied")]
    Migrate(#[from] sqlx::migrate::MigrateError),
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
    /// A column whose values cannot be copied into another database.
    #[error("the type of the column {0} is not one that a backup knows")]
    UnknownType(String),
    /// Something with this identity is there already.
    #[error("it exists already")]
    Conflict,
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        let busy = match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => {
                if database.is_unique_violation() {
                    return Self::Conflict;
                }
                database.code().is_some_and(|code| is_transient(&code))
            }
            _ => false,
        };
        if busy { Self::Unavailable(error) } else { Self::Database(error) }
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

/// SQLite busy, locked, full or unable to read; PostgreSQL's serialization failures, deadlocks,
/// shutdowns, lost connections and lack of room for another one.
fn is_transient(code: &str) -> bool {
    const POSTGRES: [&str; 8] =
        ["40001", "40P01", "57P01", "57P02", "57P03", "57P05", "25P03", "53300"];
    match code.parse::<u32>() {
        // The lowest byte is the primary code, the rest says more.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6 | 10 | 13),
        _ => POSTGRES.contains(&code) || code.starts_with("08"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_transient;

    #[test]
    fn what_may_work_in_a_moment_is_told_from_what_will_not() {
        // SQLite busy (and for a snapshot), locked, out of room, unable to read.
        for code in ["5", "261", "517", "6", "262", "13", "10", "266"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["40001", "40P01", "57P01", "57P03", "25P03", "08006", "08003", "53300"] {
            assert!(is_transient(code), "{code}");
        }
        // A constraint, a wrong statement, no such file, a syntax error.
        for code in ["19", "787", "1", "14", "23505", "42601", "42P01", "28P01"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
