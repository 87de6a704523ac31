//! The two databases, a fresh one for each test.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwright::secret::{Sealer, Secret};
use certwright::storage::Db;

/// The one master key of all databases of tests, so that several may be opened on one.
pub static SEALER: LazyLock<Arc<Sealer>> =
    LazyLock::new(|| Arc::new(Sealer::from_text(&Secret::new(STANDARD.encode([7; 32]))).unwrap()));

/// Expands each test once per database.
macro_rules! on_both_databases {
    ($(async fn $name:ident($db:ident: Db) $body:block)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let (_folder, $db) = $crate::support::databases::sqlite().await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let $db = $crate::support::databases::postgres().await;
                $body
            })*
        }
    };
}
pub(crate) use on_both_databases;

pub fn sqlite_url() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/certwright.db", folder.path().display());
    (folder, url)
}

pub async fn sqlite() -> (tempfile::TempDir, Db) {
    let (folder, url) = sqlite_url();
    (folder, open(&url).await)
}

pub async fn postgres() -> Db {
    open(&super::postgres::fresh_database().await).await
}

/// Opens a database as the service does.
pub async fn open(url: &str) -> Db {
    let db = Db::connect(url).await.unwrap();
    db.authenticate_rows(Arc::clone(&SEALER));
    db
}
