//! Databases and backups of earlier versions, as those left them (tests/fixtures/schemas, by the last migration of each):
//! they are taken over, and what was sealed in them opens.

use std::path::Path;

use certwright::backup;
use certwright::config::{self, Config};
use certwright::storage::{Db, pause};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::issuance::{assert_key_signs_for, download};
use crate::support::databases;
use crate::support::former_schema;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

/// What the fixtures were sealed with; nothing else ever was.
const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Beside what the dumps hold: they are given identifiers.
const THROTTLES: &str = r#"INSERT INTO throttles (key, scope, held_until, why) VALUES
    ('one', 'account', 4000000000000, '{"class": "throttle", "code": "acme_rate_limited", "title": "", "detail": "too many orders"}'),
    ('two', 'endpoint', 4000000000000, '{"class": "throttle", "code": "acme_rate_limited", "title": "", "detail": "too busy"}')"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_schema_holds_is_served_and_renewed_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    let options: SqliteConnectOptions = url.parse().unwrap();
    let options = options.create_if_missing(true).foreign_keys(false);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let dump = include_str!("../../fixtures/schemas/0001.sqlite.sql");
    sqlx::raw_sql(AssertSqlSafe(dump)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    former_schema::execute(&url, &[THROTTLES]).await;

    assert_taken_over(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_schema_holds_is_served_and_renewed_on_postgres() {
    let url = fresh_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let dump = include_str!("../../fixtures/schemas/0001.postgres.sql");
    sqlx::raw_sql(AssertSqlSafe(dump)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    former_schema::execute(&url, &[THROTTLES]).await;

    assert_taken_over(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_an_earlier_schema_is_served_and_renewed_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    restore_former(&url).await;
    assert_taken_over(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_an_earlier_schema_is_served_and_renewed_on_postgres() {
    let url = fresh_database().await;
    restore_former(&url).await;
    assert_taken_over(&url).await;
}

/// Restores what an earlier program has backed up, and lets it go on.
async fn restore_former(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().display().to_string();
    let given = [("database.url", url), ("data_dir", &data_dir), ("master_key", MASTER_KEY)];
    let given = given.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = Config::parse(&config::read(None, [], &given).unwrap()).unwrap();
    let file = Path::new("tests/fixtures/schemas/0012.backup.gz");

    let manifest = backup::restore(&config, file, &mut |_, _| {}).await.unwrap();

    assert_eq!(manifest.schema, 12);
    let version = Db::version(url).await.unwrap();
    assert_eq!((version.from, version.to), (former_schema::newest(), former_schema::newest()));
    let db = Db::connect(url).await.unwrap();
    let mut tx = db.begin();
    assert!(pause::lift(&mut tx).await.unwrap(), "it was paused");
    tx.commit().await.unwrap();
    db.close().await;
}

async fn assert_taken_over(database: &str) {
    // The secrets of ClusterIssuers were in a namespace of that name.
    let settings = [("master_key", MASTER_KEY), ("cluster_resource_namespace", "credentials")];
    let site = Site::configured(database, &settings).await;
    let found = site.get("/certificates").await.body;
    let certificate = &found["items"][0];
    let path = format!("/certificates/{}", certificate["id"].as_str().unwrap());
    assert_eq!(certificate["status"]["revision"], 1, "{found:#}");
    assert!(!certificate["admittedBy"]["upgrade"].is_null(), "{found:#}");
    let chain = download(&site, certificate, "fullchain.pem").await;
    assert_key_signs_for(&download(&site, certificate, "privkey.pem").await, &chain);

    let throttles = site.get("/throttles").await.body;
    let [one, two] = throttles["items"].as_array().unwrap().as_slice() else {
        panic!("{throttles:#}")
    };
    assert!(one["id"].is_string() && one["id"] != two["id"], "{throttles:#}");
    assert!(throttles.to_string().contains("too many orders"), "{throttles:#}");

    // Its CA is gone; the account's key and the provider's token are those of before.
    let issuer = site.get("/issuers/by-name/former").await.body;
    let mut acme = issuer["acme"].clone();
    acme["server"] = site.pebble.directory_url().into();
    acme["caBundle"] = site.pebble.ca_bundle().into();
    acme["solvers"] = json!([site.dns_solver()]);
    let replaced = json!({"kind": "ClusterIssuer", "name": "former", "acme": acme});
    site.put("/issuers/by-name/former", &replaced).await.expect_status(200);
    site.ready("former").await;
    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let is_renewed =
        |now: &Value| now["status"]["phase"] == "Ready" && now["status"]["revision"] == 2;
    let renewed = site.until(&path, is_renewed).await;
    let next = download(&site, &renewed, "fullchain.pem").await;
    assert_ne!(next, chain);
    assert_key_signs_for(&download(&site, &renewed, "privkey.pem").await, &next);
}
