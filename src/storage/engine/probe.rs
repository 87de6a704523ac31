//! What is asked of a database to find out how it does.

use super::db::{Database, Pool};
use super::{Query, Statement, StorageError};

const VERSION: &str = "SELECT max(version) FROM _sqlx_migrations";
const SCHEMA_VERSION: Query =
    Query(Statement { name: "SCHEMA_VERSION", sqlite: VERSION, postgres: VERSION });

impl Database {
    /// The version of the schema as it is now: another program may have changed it meanwhile.
    pub async fn schema_version(&self) -> Result<i64, StorageError> {
        let mut read = self.read().await?;
        let (version,): (Option<i64>,) = super::fetch!(fetch_one, read, SCHEMA_VERSION)?;
        Ok(version.unwrap_or_default())
    }

    /// Fails once SQLite's file is not the one any more that was opened.
    pub fn check_file(&self) -> Result<(), StorageError> {
        match &self.0.pool {
            Pool::Sqlite { file, .. } => file.check(),
            Pool::Postgres(_) => Ok(()),
        }
    }

    /// What SQLite finds wrong with its file, of which it reads all; nothing on PostgreSQL, which looks after
    /// its own.
    pub async fn damage(&self) -> Result<Vec<String>, StorageError> {
        const QUICK_CHECK: &str = "PRAGMA quick_check(5)";
        let Pool::Sqlite { read, .. } = &self.0.pool else { return Ok(vec![]) };
        let mut connection = read.take().await?;
        let found = sqlx::query_as(QUICK_CHECK).fetch_all(connection.connection()?).await;
        let found: Vec<(String,)> = connection.observe(found)?;
        Ok(found.into_iter().map(|(line,)| line).filter(|line| line != "ok").collect())
    }
}
