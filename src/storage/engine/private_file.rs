//! The files of a SQLite database: for nobody but their owner, as they hold everything that is not sealed.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What lies beside a database: SQLite's own files, and our lock.
const BESIDE: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];

const OWN: u32 = 0o600;

/// Makes the database's file when it is missing, and takes from others what they may do with those that are
/// there. SQLite makes its other files as that one is.
pub(in crate::storage) fn keep_private(database: &Path) -> io::Result<()> {
    match create_private(database) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    for suffix in BESIDE {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        tighten(&PathBuf::from(path))?;
    }
    Ok(())
}

/// A file that was not there before, for its owner only.
pub(in crate::storage) fn create_private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(OWN).open(path)
}

fn tighten(path: &Path) -> io::Result<()> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mode = metadata.mode() & 0o7777;
    let own = mode & 0o700;
    if !metadata.is_file() || mode == own {
        return Ok(());
    }
    match std::fs::set_permissions(path, Permissions::from_mode(own)) {
        Ok(()) => {
            let (path, mode) = (path.display(), format_args!("{mode:03o}"));
            tracing::warn!(%path, %mode, "others could read this file; its permissions were taken from them");
        }
        // It is somebody else's, or its file system has no permissions: who put it there knows for whom.
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(path = %path.display(), error, "others may read this file, and their permissions cannot be taken away");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn a_new_database_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");

        keep_private(&path).unwrap();

        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_was_open_to_others_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        let beside = folder.path().join("old.db-wal");
        for file in [&path, &beside] {
            std::fs::write(file, "content").unwrap();
            std::fs::set_permissions(file, Permissions::from_mode(0o664)).unwrap();
        }

        keep_private(&path).unwrap();

        assert_eq!((mode(&path), mode(&beside)), (0o600, 0o600));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "content");
    }
}
