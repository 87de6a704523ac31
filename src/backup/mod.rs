//! Backups: everything that the database holds, in one file that either database can be made of.
//!
//! A backup is one state of the database, taken beside a service that goes on. What is sealed stays sealed, so that the
//! file is of use only together with the master key. What it is restored into is paused at first: the
//! instance that it was made from may still be at work, and what both do is done twice.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::bootstrap::BootstrapError;
use crate::storage::{Migrated, StorageError};

mod create;
mod file;
mod restore;

pub use create::create;
pub use file::{FileError, Manifest, TableRows};
pub use restore::restore;

/// Who is at work is no part of a backup: it is true of a database for seconds only.
pub const LEFT_OUT: &[&str] = &["workers"];

/// Told again and again: how many rows are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64, &Manifest);

/// Why there is no backup, or none was restored.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error("the backup {} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: FileError,
    },
    #[error("{} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there already: choose another name, or remove it first", .0.display())]
    Exists(PathBuf),
    #[error(
        "the database's schema has version {}, and this program backs up version {}: take the backup by the program \
         that serves from the database, or run `certwright migrate` first", .0.from, .0.to
    )]
    OtherProgram(Migrated),
    #[error(
        "the database to restore into is not empty: give another one as `database.url`; nothing was changed in it"
    )]
    NotEmpty,
    #[error(
        "the backup was made by a newer certwright (schema {found}, this program knows {known} at most): install that \
         one, or a later one"
    )]
    NewerSchema { found: i64, known: i64 },
    #[error(
        "the secrets in the backup can be opened only by the master key of the installation that it was made from; \
         nothing was restored"
    )]
    MasterKey(#[source] BootstrapError),
    #[error("nothing was restored: the rows of `{table}` do not fit the database")]
    Misfit { table: String },
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Reads a backup to its end, and says what it is. A file that is damaged is an error.
pub fn check(path: &Path) -> Result<Manifest, BackupError> {
    let unusable = |source| BackupError::File { path: path.to_owned(), source };
    let mut file = file::Reader::open(path).map_err(unusable)?;
    let mut row = String::new();
    for _ in 0..file.manifest().rows() {
        file.row(&mut row).map_err(unusable)?;
    }
    file.end().map_err(unusable)
}
