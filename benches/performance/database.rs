//! Databases as in production: everything that was committed is on the disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

use super::support::postgres;
use super::support::process::Server;

const SCRIPT: &str = r#"
initialize
exec $unprivileged "$bin/postgres" -D "$data" -k "$data" -h '' -N 300
"#;

/// What certificates are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// An empty database; what holds it ends with this value.
pub struct Database {
    pub url: String,
    _folder: Option<TempDir>,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// An empty one.
    pub async fn empty(self) -> Database {
        match self {
            Self::Sqlite => sqlite(),
            Self::Postgres => postgres().await,
        }
    }
}

/// In a file of its own.
pub fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/certwright.db", folder.path().display());
    Database { url, _folder: Some(folder) }
}

/// In one PostgreSQL for the whole measurement, which does `fsync`.
pub async fn postgres() -> Database {
    static CLUSTER: OnceCell<(Url, Server, PathBuf)> = OnceCell::const_new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    let (url, ..) = CLUSTER.get_or_init(|| postgres::launch(SCRIPT, "QUIT")).await;
    let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut url = url.clone();
    url.set_path(&name);
    Database { url: url.into(), _folder: None }
}
