//! The two databases, a fresh one for each test.

use certwright::storage::Db;

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
    (folder, Db::connect(&url).await.unwrap())
}

pub async fn postgres() -> Db {
    Db::connect(&super::postgres::fresh_database().await).await.unwrap()
}
