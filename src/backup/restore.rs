//! Restores a backup.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::format_description::well_known::Rfc3339;

use super::file::{FileError, Manifest, Reader};
use super::{BackupError, LEFT_OUT, Progress, check};
use crate::bootstrap;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::storage::{Db, StorageError, Tx, copy, event_stream, lease, pause};

/// Rows, and bytes of them, that are added by one statement.
const ROWS_TOGETHER: u64 = 1_000;
const BYTES_TOGETHER: usize = 1 << 20;

/// Makes the configured database, which has to be empty, of a backup: all of it, or nothing. It is paused from then on.
pub async fn restore(
    config: &Config,
    path: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let unusable = |source| BackupError::File { path: path.to_owned(), source };
    // To its end, before anything is made of it.
    let manifest = check(path)?;
    let file = Reader::open(path).map_err(unusable)?;
    if let Some(check) = &manifest.master_key_check {
        let check = STANDARD.decode(check);
        let check = check.map_err(|error| unusable(FileError::Damaged(error.to_string())))?;
        bootstrap::opens(config, check).map_err(BackupError::MasterKey)?;
    }
    bootstrap::data_dir(config)?;
    let url = config.database_url.expose();
    // A database that has another version is somebody's. Where there is none yet, opening it says what is wrong.
    if let Ok(version) = Db::version(url).await {
        if manifest.schema > version.to {
            let (found, known) = (manifest.schema, version.to);
            return Err(BackupError::NewerSchema { found, known });
        }
        if ![0, manifest.schema].contains(&version.from) {
            return Err(BackupError::NotEmpty);
        }
    }
    let db = Db::connect_at(url, manifest.schema).await?;
    let restored = async {
        let _alone = db.sole_use()?;
        fill(&db, file, path, progress).await
    };
    let restored = restored.await;
    db.close().await;
    restored?;
    take_over(url).await?;
    Ok(manifest)
}

/// Adds all rows in one transaction, with the pause.
async fn fill(
    db: &Db,
    mut file: Reader<BufReader<File>>,
    path: &Path,
    progress: Progress<'_>,
) -> Result<(), BackupError> {
    let unusable = |source| BackupError::File { path: path.to_owned(), source };
    let manifest = file.manifest().clone();
    if db.migrated().to != manifest.schema {
        let (found, known) = (manifest.schema, db.migrated().to);
        return Err(BackupError::NewerSchema { found, known });
    }
    let mut tx = db.begin();
    let tables = copy::tables(&mut tx).await?;
    for table in &tables {
        if copy::count(&mut tx, table).await? > 0 {
            return Err(BackupError::NotEmpty);
        }
    }
    let is_missing = |table: &&copy::Table| {
        !LEFT_OUT.contains(&&*table.name)
            && manifest.tables.iter().all(|given| given.name != table.name)
    };
    if let Some(table) = tables.iter().find(is_missing) {
        return Err(BackupError::Misfit { table: table.name.clone() });
    }
    let (mut batch, mut row, mut done) = (Batch::default(), String::new(), 0);
    for given in &manifest.tables {
        let misfit = || BackupError::Misfit { table: given.name.clone() };
        let table = tables.iter().find(|table| table.name == given.name).ok_or_else(misfit)?;
        if table.columns().iter().any(|column| !given.columns.contains(column)) {
            return Err(misfit());
        }
        let insertion = table.insertion();
        for left in (0..given.rows).rev() {
            file.row(&mut row).map_err(unusable)?;
            batch.add(&row);
            if left == 0 || batch.is_full() {
                done += batch.insert(&mut tx, &insertion).await?.ok_or_else(misfit)?;
                progress(done, &manifest);
            }
        }
    }
    file.end().map_err(unusable)?;
    event_stream::follow_restored(&mut tx).await?;
    pause::set(&mut tx, &reason(&manifest)).await?;
    Ok(tx.commit().await?)
}

fn reason(manifest: &Manifest) -> String {
    let at = manifest.created_at.format(&Rfc3339).unwrap_or_default();
    format!(
        "restored from the backup of {at}, and the instance that it was made from may still be at work"
    )
}

/// Brings the schema up to date, and makes due what was under way when the backup was made.
async fn take_over(url: &str) -> Result<(), StorageError> {
    let db = Db::connect(url).await?;
    let now = db.clock().await?.unwrap_or_else(|| SystemClock.now());
    let mut tx = db.begin();
    lease::give_back(&mut tx, None, now).await?;
    tx.commit().await?;
    db.close().await;
    Ok(())
}

/// Rows that are added together, as a JSON array.
#[derive(Default)]
struct Batch {
    array: String,
    rows: u64,
}

impl Batch {
    fn add(&mut self, row: &str) {
        self.array.push(if self.rows == 0 { '[' } else { ',' });
        self.array.push_str(row);
        self.rows += 1;
    }

    fn is_full(&self) -> bool {
        self.rows >= ROWS_TOGETHER || self.array.len() >= BYTES_TOGETHER
    }

    /// Adds the rows, and is empty then. `None` if not every one was added.
    async fn insert(
        &mut self,
        tx: &mut Tx,
        insertion: &copy::Insertion,
    ) -> Result<Option<u64>, StorageError> {
        self.array.push(']');
        let added = copy::insert(tx, insertion, &self.array).await?;
        let rows = std::mem::take(&mut self.rows);
        self.array.clear();
        Ok((added == rows).then_some(rows))
    }
}
