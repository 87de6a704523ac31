//! What Cloudflare and the DNS may do to many certificates at once, and what is left behind then: nothing
//! of ours, and everything of others.

use std::time::Duration;

use certwright::storage::Db;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::issuance::{assert_ready, clean};
use crate::support::databases;
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

const COUNT: usize = 50;

/// Seconds until a record can be seen; `DNS_DELAY=20` is what Cloudflare may take at worst.
fn dns_delay() -> Duration {
    let given = std::env::var("DNS_DELAY").ok();
    Duration::from_secs(given.map_or(3, |text| text.parse().expect("DNS_DELAY in seconds")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_of_cloudflare_together_stop_nothing_and_leave_nothing_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    all_faults(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_of_cloudflare_together_stop_nothing_and_leave_nothing_on_postgres() {
    all_faults(&fresh_database().await).await;
}

/// A block of some seconds, answers that are lost after writing, batches and single calls that meet
/// what is there already, and a DNS that shows all of it late.
async fn all_faults(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    let foreign = seed(&site);
    site.cloudflare.set_dns_delay(dns_delay());
    site.cloudflare.fail_after_writing(3);
    site.cloudflare.block_after(4, Duration::from_secs(6));

    let names: Vec<_> = (0..COUNT).map(|n| format!("f{n}.example.com")).collect();
    let (asked, ()) = tokio::join!(
        join_all(names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202)
        })),
        // A straggler that comes alone: single calls get lost, too.
        async {
            site.ask_for("dns", &["alone.example.com"], &json!({}), 280).await.expect_status(202);
        }
    );
    site.cloudflare.fail_after_writing(2);
    let alone =
        site.ask_for("dns", &["late.example.com"], &json!({}), 280).await.expect_status(202);

    for issued in asked.iter().chain([&alone]) {
        assert_ready(issued);
    }
    site.until("/orders?limit=500", |found| found["items"].as_array().unwrap().iter().all(clean))
        .await;
    let twins = site.cloudflare.twins();
    assert!(twins > 0, "nothing was written twice: the faults did not come");
    assert!(site.cloudflare.written() as usize >= COUNT + 2);
    assert_eq!(left(&site), foreign, "nothing of ours, everything of others");
    assert_eq!(site.pebble.certificates_issued(), COUNT + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_behind_is_swept_away_and_nothing_else_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    sweep(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_behind_is_swept_away_and_nothing_else_on_postgres() {
    sweep(&fresh_database().await).await;
}

async fn sweep(database: &str) {
    let site = Site::through_proxy(database, PebbleOptions::default()).await;
    let issued = site.issue("dns", &["done.example.com"]).await;
    assert_ready(&issued);
    let order = site.until(issued["status"]["order"].as_str().unwrap(), clean).await;
    let over = order["challenges"][0]["id"].as_str().unwrap().to_owned();
    let ours = installation(database).await;
    let mut foreign = seed(&site);
    // Of another installation, of a person who knows our words, and of nobody.
    for comment in [
        Some(format!("certwright other1 {over}")),
        Some(format!("certwright {ours} is not to be touched")),
        Some(format!("see: certwright {ours} {over}")),
        None,
    ] {
        let name = "_acme-challenge.done.example.com";
        let value = format!("foreign {comment:?}");
        site.cloudflare.seed_txt("example.com", name, &value, comment.as_deref());
        foreign.push((name.to_owned(), format!("\"{value}\"")));
    }
    // Of a challenge that is over, and of one that nobody knows, in more than a page.
    let unknown = uuid::Uuid::from_u128(9).to_string();
    for n in 0..130 {
        let comment = format!("certwright {ours} {}", if n == 0 { &over } else { &unknown });
        let name = format!("_acme-challenge.l{n}.example.com");
        site.cloudflare.seed_txt("example.com", &name, "left", Some(&comment));
    }
    // A challenge under way keeps its record meanwhile.
    site.cloudflare.hide_records();
    let is_soon = |(name, _): &(String, String)| name.contains("soon");
    let (under_way, ()) = tokio::join!(site.issue("dns", &["soon.example.com"]), async {
        until("the record", async || left(&site).iter().any(is_soon)).await;
        site.cloudflare.forget_calls();
        hurry(database).await;
        until("the end of what was left", async || left(&site).len() == foreign.len() + 1).await;
        assert!(left(&site).iter().any(is_soon), "what is under way is kept");
        site.cloudflare.show_records();
    });

    assert_ready(&under_way);
    site.until("/orders?limit=500", |found| found["items"].as_array().unwrap().iter().all(clean))
        .await;
    foreign.sort();
    assert_eq!(left(&site), foreign);
    let calls = site.cloudflare.calls();
    assert!(calls.total() <= 12, "130 records cost {calls:?}");
}

/// Fifty TXT records of somebody else, on the very names that are proved.
fn seed(site: &Site) -> Vec<(String, String)> {
    for n in 0..COUNT {
        let name = format!("_acme-challenge.f{n}.example.com");
        site.cloudflare.seed_txt("example.com", &name, "somebody else's", Some("by hand"));
    }
    left(site)
}

fn left(site: &Site) -> Vec<(String, String)> {
    let records = site.cloudflare.records("example.com");
    let mut left: Vec<_> = records.into_iter().map(|one| (one.name, one.content)).collect();
    left.sort();
    left
}

/// What this installation is called in comments.
async fn installation(database: &str) -> String {
    let db = Db::connect(database).await.unwrap();
    let name = certwright::bootstrap::installation_id(&db).await.unwrap();
    db.close().await;
    name
}

/// Has everything done at once that is done now and then.
async fn hurry(database: &str) {
    const NOW: &str = "UPDATE tasks SET next_action_at = 0";
    if database.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(database).await.unwrap();
        sqlx::query(NOW).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = PgConnection::connect(database).await.unwrap();
        sqlx::query(NOW).execute(&mut connection).await.unwrap();
    }
}
