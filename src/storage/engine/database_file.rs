//! The file of a SQLite database, as long as it is open: whether it is still the one at its path.
//!
//! A file that is removed lives on for those who have it open, and takes what they write into the grave with
//! their end. So every turn of the writer begins with a look at its path.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StorageError;

/// The file that was opened.
#[derive(Debug, Clone)]
pub(in crate::storage) struct DatabaseFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl DatabaseFile {
    /// The file at this path, which has just been opened.
    pub(in crate::storage) fn at(path: &Path) -> io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    pub(in crate::storage) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails once another file is at its path, or none.
    pub(in crate::storage) fn check(&self) -> Result<(), StorageError> {
        match self.path.metadata() {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::File(self.path.clone(), error))
            }
            Ok(_) | Err(_) => Err(StorageError::Replaced(self.path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_or_replaced_is_not_the_one_that_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "first").unwrap();
        let opened = DatabaseFile::at(&path).unwrap();
        assert!(opened.check().is_ok());
        std::fs::write(&path, "written to").unwrap();
        assert!(opened.check().is_ok(), "it is the same file");

        std::fs::write(folder.path().join("b.db"), "second").unwrap();
        std::fs::rename(folder.path().join("b.db"), &path).unwrap();
        assert!(matches!(opened.check(), Err(StorageError::Replaced(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(opened.check(), Err(StorageError::Replaced(_))));
    }
}
