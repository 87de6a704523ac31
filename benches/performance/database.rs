//! Databases as in production: everything that was committed is on the disk.

use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

use super::support::postgres;
use super::support::process::Server;

/// An empty database; what holds it ends with this value.
pub struct Database {
    pub url: String,
    _folder: Option<TempDir>,
}

/// In a file of its own.
pub fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/certwright.db", folder.path().display());
    Database { url, _folder: Some(folder) }
}

/// In one PostgreSQL for the whole measurement, which does `fsync`.
pub async fn postgres() -> Database {
    static CLUSTER: OnceCell<(Url, Server)> = OnceCell::const_new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    let (url, _) = CLUSTER.get_or_init(|| postgres::server("")).await;
    let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(url.as_str()).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let mut url = url.clone();
    url.set_path(&name);
    Database { url: url.into(), _folder: None }
}
