//! A database: opened, brought up to date, closed.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, Postgres, SqlSafeStr as _,
    Sqlite, SqlitePool,
};
use time::OffsetDateTime;

use super::backend::{OnPostgres, OnSqlite};
use super::connections::Connections;
use super::database_file::DatabaseFile;
use super::group_commit::Writer;
use super::migrate::{Migrated, POSTGRES, SQLITE};
use super::read::{Backend, Read};
use super::row_mac::RowMacs;
use super::{Query, Signals, SoleUse, Statement, StorageError, Tx, moment, notify, private_file};
use crate::secret::Sealer;

/// A database, open and migrated; copies are cheap.
#[derive(Clone)]
pub struct Database(pub(in crate::storage) Arc<Opened>);

pub(in crate::storage) struct Opened {
    pub(in crate::storage) pool: Pool,
    pub(in crate::storage) signals: Signals,
    pub(in crate::storage) row_macs: RowMacs,
    migrated: Migrated,
}

pub(in crate::storage) enum Pool {
    /// SQLite has one writer at a time anyway: one connection for it, so that writers queue here,
    /// fairly, instead of failing with `SQLITE_BUSY` there; readers see a snapshot beside it.
    Sqlite {
        read: Connections<Sqlite>,
        write: SqlitePool,
        writer: Writer,
        file: DatabaseFile,
    },
    Postgres(Connections<Postgres>),
}

/// Texts that a connection keeps prepared: all that are listed, and the joint ones that are frequent.
const STATEMENTS: usize = 500;

/// The write-ahead log is cut to this many bytes once its content is in the database: a reader that stayed long,
/// or a large transaction, does not leave it long for ever.
const WAL_KEPT: u32 = 16 << 20;

/// Within a transaction nobody ever waits for anything but the database.
const END_IDLE: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// SQLite shows a transaction one state anyhow.
const ONE_STATE: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Whoever takes rows may wait for a disk between two of them.
const NEVER_IDLE: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";

/// Connects once, and says where to and why not.
async fn reach(options: &PgConnectOptions) -> Result<PgConnection, StorageError> {
    const WITHIN: Duration = Duration::from_secs(5);
    let connected = tokio::time::timeout(WITHIN, options.connect()).await;
    let connected = connected.unwrap_or_else(|_| {
        let problem = format!("no answer within {} s", WITHIN.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, problem)))
    });
    connected.map_err(|error| {
        let host = options.get_socket().map(|path| path.display().to_string());
        let host = host.unwrap_or_else(|| options.get_host().to_owned());
        StorageError::NoServer { server: format!("{host}:{}", options.get_port()), source: error }
    })
}

impl Database {
    /// Opens the database and brings its schema up to date, or to a version.
    pub async fn connect(url: &str, version: Option<i64>) -> Result<Self, StorageError> {
        let signals = Signals::new();
        let (pool, migrated) = if url.starts_with("postgres") {
            let options = PgConnectOptions::from_str(url)?
                .application_name("certwright")
                .statement_cache_capacity(STATEMENTS);
            // The pool tries again and again, and says at last only that it took too long.
            reach(&options).await?.close().await.ok();
            let pool = PgPoolOptions::new()
                .max_connections(16)
                .acquire_timeout(Duration::from_secs(5))
                // A replica that is stopped within a transaction must not keep the others from taking over.
                .after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(END_IDLE).await.map(drop) })
                })
                .connect_with(options)
                .await?;
            let migrated = POSTGRES.migrate(&mut *pool.acquire().await?, version).await?;
            notify::listen(pool.clone(), signals.clone());
            let connections = Connections::of(pool, 1);
            notify::publish(connections.clone(), signals.clone());
            (Pool::Postgres(connections), migrated)
        } else {
            let options = SqliteConnectOptions::from_str(url)?
                .create_if_missing(true)
                .statement_cache_capacity(STATEMENTS)
                .foreign_keys(true)
                .journal_mode(SqliteJournalMode::Wal)
                // NORMAL may lose the last commits when the power fails; an order URL is worth an fsync.
                .synchronous(SqliteSynchronous::Full)
                // Savepoints would open and remove a file each.
                .pragma("temp_store", "MEMORY")
                .pragma("journal_size_limit", WAL_KEPT.to_string())
                .busy_timeout(Duration::from_secs(10));
            let file = options.get_filename().to_owned();
            private_file::keep_private(&file)
                .map_err(|error| StorageError::File(file.clone(), error))?;
            let write = SqlitePoolOptions::new()
                .max_connections(1)
                .test_before_acquire(false)
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(options.clone())
                .await?;
            let migrated = SQLITE.migrate(&mut *write.acquire().await?, version).await?;
            let read = SqlitePoolOptions::new()
                .max_connections(4)
                .test_before_acquire(false)
                .acquire_timeout(Duration::from_secs(30))
                .connect_with(options.create_if_missing(false).pragma("query_only", "ON"))
                .await?;
            let file = DatabaseFile::at(&file).map_err(|error| StorageError::File(file, error))?;
            let writer = Writer::of(write.clone(), file.clone());
            (Pool::Sqlite { read: Connections::of(read, 0), write, writer, file }, migrated)
        };
        Ok(Self(Arc::new(Opened { pool, signals, row_macs: RowMacs::default(), migrated })))
    }

    /// The version of a database's schema (`from`) and the one that this program needs (`to`),
    /// without changing or making anything. A database that is still to be taken over counts as empty.
    pub async fn version(url: &str) -> Result<Migrated, StorageError> {
        if url.starts_with("postgres") {
            let mut connection = reach(&PgConnectOptions::from_str(url)?).await?;
            return POSTGRES.compare(&mut connection).await;
        }
        let options = SqliteConnectOptions::from_str(url)?.create_if_missing(false).read_only(true);
        SQLITE.compare(&mut options.connect().await?).await
    }

    /// The file of a SQLite database; `None` for PostgreSQL.
    pub fn file(url: &str) -> Option<PathBuf> {
        let options = SqliteConnectOptions::from_str(url).ok()?;
        Some(options.get_filename().to_owned())
    }

    /// Begins a transaction; the database hears of it with its first question, or the commit.
    pub fn begin(&self) -> Tx {
        let on = match &self.0.pool {
            Pool::Sqlite { writer, .. } => Backend::Sqlite(OnSqlite::begin(writer.clone())),
            Pool::Postgres(pool) => Backend::Postgres(OnPostgres::begin(pool.clone())),
        };
        Tx::new(Read { on, db: Arc::clone(&self.0) })
    }

    /// Asks without a transaction, and so without queueing behind writers.
    pub async fn read(&self) -> Result<Read, StorageError> {
        let on = match &self.0.pool {
            Pool::Sqlite { read, .. } => Backend::Sqlite(OnSqlite::reads(read.take().await?)),
            Pool::Postgres(pool) => Backend::Postgres(OnPostgres::reads(pool.take().await?)),
        };
        Ok(Read { on, db: Arc::clone(&self.0) })
    }

    /// Asks one state of the database for as long as this is kept, beside whoever writes meanwhile.
    pub async fn snapshot(&self) -> Result<Read, StorageError> {
        let on = match &self.0.pool {
            Pool::Sqlite { read, .. } => {
                let mut connection = read.take().await?;
                connection.begin().await?;
                Backend::Sqlite(OnSqlite::reads(connection))
            }
            Pool::Postgres(pool) => {
                let mut connection = pool.take().await?;
                connection.begin().await?;
                connection.run(ONE_STATE).await?;
                connection.run(NEVER_IDLE).await?;
                Backend::Postgres(OnPostgres::reads(connection))
            }
        };
        Ok(Read { on, db: Arc::clone(&self.0) })
    }

    /// The time by the database's clock, where that is another machine's.
    pub async fn clock(&self) -> Result<Option<OffsetDateTime>, StorageError> {
        const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        match &self.0.pool {
            Pool::Sqlite { .. } => Ok(None),
            Pool::Postgres(pool) => {
                let (now,): (i64,) =
                    sqlx::query_as(NOW).fetch_one(pool.take().await?.connection()?).await?;
                Ok(Some(moment(now)))
            }
        }
    }

    /// On SQLite, makes sure that no other process serves from the same file, as long as the
    /// answer is kept.
    pub fn sole_use(&self) -> Result<Option<SoleUse>, StorageError> {
        match &self.0.pool {
            Pool::Sqlite { file, .. } => SoleUse::of(file.path()).map(Some),
            Pool::Postgres(_) => Ok(None),
        }
    }

    /// Signs rows that grant something with this sealer, and refuses those that were not.
    pub fn authenticate_rows(&self, sealer: Arc<Sealer>) {
        self.0.row_macs.set(sealer);
    }

    /// Where changes are heard of.
    pub fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// What opening the database did to its schema.
    pub fn migrated(&self) -> Migrated {
        self.0.migrated
    }

    /// Whether other processes may use it, too.
    pub(in crate::storage) fn is_shared(&self) -> bool {
        matches!(self.0.pool, Pool::Postgres(_))
    }

    /// `sqlite` or `postgres`.
    pub fn dialect(&self) -> &'static str {
        match self.0.pool {
            Pool::Sqlite { .. } => "sqlite",
            Pool::Postgres(_) => "postgres",
        }
    }

    /// Has the database check a statement against the schema, without running it.
    pub async fn prepare(&self, statement: Statement) -> Result<(), StorageError> {
        match self.read().await?.on {
            Backend::Sqlite(mut unit) => {
                unit.connection()?.prepare(statement.sqlite.into_sql_str()).await?;
            }
            Backend::Postgres(mut unit) => {
                unit.connection()?.prepare(statement.postgres.into_sql_str()).await?;
            }
        }
        Ok(())
    }

    /// The tables with their columns, each with whether it may be NULL; to compare the two schemas.
    pub async fn schema(&self) -> Result<Vec<(String, String, bool)>, StorageError> {
        const SCHEMA: Query = Query(Statement {
            name: "SCHEMA",
            sqlite: "SELECT m.name, c.name, c.\"notnull\" = 0
                FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite%'
                ORDER BY 1, 2",
            postgres: "SELECT table_name::text, column_name::text, is_nullable = 'YES'
                FROM information_schema.columns
                WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' ORDER BY 1, 2",
        });
        let mut read = self.read().await?;
        Ok(super::fetch!(fetch_all, read, SCHEMA)?)
    }

    /// Pairs of tables, of which rows of the second are deleted with rows of the first.
    pub async fn cascades(&self) -> Result<Vec<(String, String)>, StorageError> {
        const CASCADES: Query = Query(Statement {
            name: "CASCADES",
            sqlite: "SELECT f.\"table\", m.name FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f
                WHERE m.type = 'table' AND f.on_delete = 'CASCADE'",
            postgres: "SELECT confrelid::regclass::text, conrelid::regclass::text
                FROM pg_constraint WHERE contype = 'f' AND confdeltype = 'c'",
        });
        let mut read = self.read().await?;
        Ok(super::fetch!(fetch_all, read, CASCADES)?)
    }

    /// Closes every connection once its work is done.
    pub async fn close(&self) {
        match &self.0.pool {
            Pool::Sqlite { read, write, .. } => {
                read.close().await;
                write.close().await;
            }
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}
