//! Makes a backup.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::NamedTempFile;

use super::file::{FORMAT, Manifest, TableRows, Writer};
use super::{BackupError, LEFT_OUT, Progress, check};
use crate::bootstrap;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::storage::{Db, Read, copy};

/// Progress is told each time that so many rows are done.
const TOLD_EVERY: u64 = 1_000;

/// Writes one state of the configured database into a new file, which takes its name only once it is complete, was read
/// again, and is on the disk. The service may go on meanwhile.
pub async fn create(
    config: &Config,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let url = config.database_url.expose();
    let version = Db::version(url).await?;
    if version.from != version.to {
        return Err(BackupError::OtherProgram(version));
    }
    let db = Db::connect(url).await?;
    let made = into_file(&db, version.to, path, progress).await;
    db.close().await;
    made
}

async fn into_file(
    db: &Db,
    schema: i64,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let unwritable = |source| BackupError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // Nobody else may read it.
    let mut file = NamedTempFile::new_in(folder).map_err(unwritable)?;
    let mut read = db.snapshot().await?;
    let mut tables = copy::tables(&mut read).await?;
    tables.retain(|table| !LEFT_OUT.contains(&&*table.name));
    let manifest = manifest(db, &mut read, schema, &tables).await?;
    let mut lines =
        Writer::begin(io::BufWriter::new(file.as_file_mut()), &manifest).map_err(unwritable)?;
    let mut done = 0;
    for table in &tables {
        copy::rows(&mut read, table, |row| {
            lines.row(row).map_err(unwritable)?;
            done += 1;
            if done % TOLD_EVERY == 0 {
                progress(done, &manifest);
            }
            Ok::<_, BackupError>(())
        })
        .await?;
    }
    drop(read);
    let written = lines.end().and_then(|file| file.into_inner().map_err(io::Error::from));
    written.and_then(|file| file.sync_all()).map_err(unwritable)?;
    progress(done, &manifest);
    check(file.path())?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BackupError::Exists(path.to_owned()));
        }
        Err(error) => return Err(unwritable(error.error)),
    }
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(manifest)
}

async fn manifest(
    db: &Db,
    read: &mut Read,
    schema: i64,
    tables: &[copy::Table],
) -> Result<Manifest, BackupError> {
    let mut counted = Vec::with_capacity(tables.len());
    for table in tables {
        let rows = copy::count(read, table).await?;
        counted.push(TableRows { name: table.name.clone(), columns: table.columns(), rows });
    }
    let check = bootstrap::master_key_check(read).await?;
    Ok(Manifest {
        certwright_backup: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        database: db.dialect().to_owned(),
        created_at: SystemClock.now(),
        master_key_check: check.map(|check| STANDARD.encode(check)),
        tables: counted,
    })
}
