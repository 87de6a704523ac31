//! A backup that is taken in the middle of the work, and restored into the other database.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::issuance::assert_key_signs_for;
use crate::support::databases;
use crate::support::installation::{Database, Installation, is_ready, items};
use crate::support::patience::until;
use crate::support::postgres;

/// Certificates, more of them than are worked on at once.
const COUNT: usize = 24;

#[tokio::test]
async fn a_backup_under_load_is_taken_up_by_postgres_where_it_was_and_nothing_is_issued_twice() {
    taken_up(Database::Sqlite, &postgres::fresh_database().await).await;
}

#[tokio::test]
async fn a_backup_under_load_is_taken_up_by_sqlite_where_it_was_and_nothing_is_issued_twice() {
    let (_folder, url) = databases::sqlite_url();
    taken_up(Database::Postgres, &url).await;
}

async fn taken_up(from: Database, to: &str) {
    let mut site = Installation::on(from).await;
    site.set("WORKER_CONCURRENCY", "4");
    let program = site.start().await;
    site.set_up(&program).await;
    let names: Vec<_> = (0..COUNT).map(|n| format!("b{n}")).collect();
    let asked = join_all(names.iter().map(|name| site.ask_for(&program, name))).await;
    assert!(asked.iter().all(|answer| answer.as_ref().unwrap().status == 202));
    until("the middle of the work", async || site.pebble.certificates_issued() >= COUNT / 4).await;

    let mut backup = site.launch(&["backup", "backup.gz"], "");
    assert!(backup.end().await.success(), "{}", backup.log());
    // The instance goes on for a while with what the backup has, too.
    program.stop().await;
    site.set("DATABASE_URL", to);
    site.set("WORKER_CONCURRENCY", "512");
    let mut restore = site.launch(&["restore", "backup.gz"], "");
    assert!(restore.end().await.success(), "{}", restore.log());

    let mut program = site.start().await;
    let found = site.get(&program, "/certificates?limit=500").await.unwrap().body;
    let (ready, waiting): (Vec<_>, Vec<_>) = items(&found).iter().partition(|one| is_ready(one));
    assert_eq!(ready.len() + waiting.len(), COUNT);
    assert!(!ready.is_empty() && !waiting.is_empty(), "it was not in the middle of the work");
    let orders = site.get(&program, "/orders?limit=500").await.unwrap().body;
    let is_known = |certificate: &&&Value| {
        let path = format!("/certificates/{}", certificate["id"].as_str().unwrap());
        let is_placed = |order: &&Value| order["certificate"] == path && order["url"].is_string();
        items(&orders).iter().any(|order| is_placed(&order))
    };
    let unknown = COUNT - items(&found).iter().filter(|one| is_known(&one)).count();
    let ordered = site.pebble.orders_created();
    assert_eq!(site.get(&program, "/readyz").await.unwrap().status, 503);
    let mut resume = site.launch(&["resume"], "");
    assert!(resume.end().await.success(), "{}", resume.log());

    let all = site.until_all_ready(&mut program, COUNT).await;
    for certificate in &all {
        let (chain, key) = site.download(&program, certificate).await;
        assert_key_signs_for(&key, &chain);
    }
    assert_eq!(
        site.pebble.orders_created() - ordered,
        unknown,
        "only what the backup knew of no order for is ordered"
    );
    let one = all[0]["id"].as_str().unwrap();
    site.post(&program, &format!("/certificates/{one}/renew"), &json!({})).await.unwrap();
    let path = format!("/certificates/{one}");
    site.until(&mut program, &path, |found| found["status"]["revision"] == 2).await;
}
