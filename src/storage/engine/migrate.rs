//! The schema: made, brought up to date and compared with the one that this program needs.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, Migrator};

use super::StorageError;

/// What opening the database did to its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version that was found; 0 for an empty database.
    pub from: i64,
    /// The version that it has now.
    pub to: i64,
    /// Whether it has, or had, the migrations of before they were squashed, which were counted by themselves.
    pub is_former: bool,
}

/// The migrations of one kind of database.
pub(super) struct Schema {
    migrator: Migrator,
    /// The first migration for a database that has all migrations of before they were squashed.
    take_over: &'static str,
    /// The first half of the SHA-256 of those migrations' checksums, one after the other.
    before_squash: u128,
}

pub(super) static SQLITE: Schema = Schema {
    migrator: sqlx::migrate!("migrations/sqlite"),
    take_over: include_str!("../../../migrations/take_over/sqlite.sql"),
    before_squash: 0x66cf_677c_188b_4d24_7db5_06f7_6417_e44a,
};

pub(super) static POSTGRES: Schema = Schema {
    migrator: sqlx::migrate!("migrations/postgres"),
    take_over: include_str!("../../../migrations/take_over/postgres.sql"),
    before_squash: 0x0b04_7b06_2632_0e0c_ff58_a17d_5ac2_bbcc,
};

impl Schema {
    /// Brings the schema up to date, or to a version, with other replicas kept waiting meanwhile. One that is
    /// beyond that version stays as it is.
    pub(super) async fn migrate<C: Migrate>(
        &self,
        on: &mut C,
        version: Option<i64>,
    ) -> Result<Migrated, StorageError> {
        // PostgreSQL counts how often a session takes the lock, which `run_direct` does once more.
        on.lock().await?;
        on.ensure_migrations_table(&self.migrator.table_name).await?;
        let applied = on.list_applied_migrations(&self.migrator.table_name).await?;
        // Each is a transaction of its own: a run that is cut off is taken up where it stopped.
        let from = newest(&applied);
        let to = match version {
            // Versions of before the squash count for nothing.
            Some(version) if !self.is_before_squash(&applied) => version.max(from),
            Some(version) => version,
            None => self.newest(),
        };
        for migration in self.missing(&applied)?.into_iter().filter(|one| one.version <= to) {
            failpoint!("between_migrations");
            on.apply(&self.migrator.table_name, &migration).await?;
        }
        self.migrator.run_direct(Some(to), on, false).await?;
        on.unlock().await?;
        Ok(Migrated { from, to, is_former: self.is_before_squash(&applied) })
    }

    /// The version that a database has and the one that this program needs. A database that is
    /// still to be taken over counts as empty.
    pub(super) async fn compare<C: Migrate>(&self, on: &mut C) -> Result<Migrated, StorageError> {
        let applied = match on.list_applied_migrations(&self.migrator.table_name).await {
            // An empty database has no table to list.
            Err(error) if names_no_table(&error) => Vec::new(),
            applied => applied?,
        };
        let to = self.newest();
        match self.missing(&applied) {
            Err(error @ StorageError::UnknownSchema(_)) => Err(error),
            Ok(_) if self.is_before_squash(&applied) => {
                Ok(Migrated { from: 0, to, is_former: true })
            }
            _ => Ok(Migrated { from: newest(&applied), to, is_former: false }),
        }
    }

    /// The migrations that a database with these ones still needs.
    fn missing(&self, applied: &[AppliedMigration]) -> Result<Vec<Migration>, StorageError> {
        if self.is_before_squash(applied) {
            let mut all: Vec<_> = self.migrator.iter().cloned().collect();
            // It is noted as the first one, in its own transaction.
            all[0].sql = self.take_over.into_sql_str();
            return Ok(all);
        }
        let (found, known) = (newest(applied), self.newest());
        let mut shared = self.migrator.iter().zip(applied);
        if !shared.all(|(ours, theirs)| ours.checksum == theirs.checksum) {
            return Err(StorageError::UnknownSchema(found));
        }
        if found > known {
            return Err(StorageError::NewerSchema { found, known });
        }
        Ok(self.migrator.iter().filter(|one| one.version > found).cloned().collect())
    }

    fn is_before_squash(&self, applied: &[AppliedMigration]) -> bool {
        let checksums: Vec<_> =
            applied.iter().flat_map(|one| one.checksum.iter().copied()).collect();
        let hash = digest(&SHA256, &checksums);
        hash.as_ref().starts_with(&self.before_squash.to_be_bytes())
    }

    fn newest(&self) -> i64 {
        self.migrator.iter().map(|one| one.version).max().unwrap_or_default()
    }
}

/// Whether a table is not there, in the words of either database.
fn names_no_table(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}

fn newest(applied: &[AppliedMigration]) -> i64 {
    applied.iter().map(|one| one.version).max().unwrap_or_default()
}
