//! How much of the database's means is used.

use std::path::{Path, PathBuf};

use super::db::{Database, Pool};

/// How much of the database's means is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Connections for reading, on PostgreSQL for everything, that are in use.
    pub connections_used: usize,
    pub connections_most: usize,
    /// `None` on PostgreSQL, whose disk is another machine's.
    pub disk: Option<Disk>,
}

/// The files of SQLite, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub database: u64,
    /// The write-ahead log.
    pub wal: u64,
    /// The space that is left where they lie.
    pub free: u64,
}

impl Database {
    /// Measures it. Asks the file system, not the database.
    pub fn load(&self) -> Load {
        let (used, most, disk) = match &self.0.pool {
            Pool::Sqlite { read, file, .. } => {
                (read.load().0, read.load().1, Some(measure(file.path())))
            }
            Pool::Postgres(connections) => (connections.load().0, connections.load().1, None),
        };
        Load { connections_used: used, connections_most: most, disk }
    }
}

/// What cannot be measured is 0: no file is no bytes.
fn measure(file: &Path) -> Disk {
    let bytes = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    // A file that was removed has left room where it lay, and is no full disk.
    let disk = file.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    let free = disk.map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    Disk { database: bytes(file), wal: bytes(&PathBuf::from(wal)), free }
}
