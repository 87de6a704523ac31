//! One process at a time on a SQLite database.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::private_file::create_private;

/// No other process serves from the database as long as this is kept. The kernel ends it with the
/// process, however that ends: whoever has it next knows that its former self is dead.
#[derive(Debug)]
pub struct SoleUse {
    /// Holds the lock; `None` where the file system has none.
    file: Option<File>,
}

impl SoleUse {
    /// Locks a file beside the database; the database itself has SQLite's own locks.
    pub(in crate::storage) fn of(database: &Path) -> Result<Self, StorageError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let unusable = |error| StorageError::Lock(path.clone(), error);
        let file = match create_private(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                File::options().write(true).open(&path)
            }
            made => made,
        };
        let file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse(path)),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                Ok(Self { file: None })
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// Whether it is certain that nobody else is there.
    pub fn is_certain(&self) -> bool {
        self.file.is_some()
    }
}
