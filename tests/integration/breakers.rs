//! Who does not answer is left alone, but for one request at a time.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::issuance::assert_ready;
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::{Site, on_each_site};

const ORDERS: usize = 20;

mod a_ca_that_is_down {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_by_one_at_a_time_on_sqlite() {
        let (_folder, url) = databases::sqlite_url();
        is_asked_by_one_at_a_time(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_by_one_at_a_time_on_postgres() {
        is_asked_by_one_at_a_time(&fresh_database().await).await;
    }

    async fn is_asked_by_one_at_a_time(database: &str) {
        let site = Site::through_proxy(database, PebbleOptions::default()).await;
        // So that the directory and the account are there.
        assert_ready(&site.issue("dns", &["warm.example.com"]).await);
        site.proxy().only_pages(true);

        let outage = async {
            let parked = site.until("/orders?limit=50", |found| count(found, is_parked) >= 8).await;
            let before = site.proxy().faults(Fault::Page);
            // Long enough for the first probes; twenty orders by themselves would ask eighty times.
            pause(Duration::from_secs(8)).await;
            let probes = site.proxy().faults(Fault::Page) - before;
            site.proxy().only_pages(false);
            (parked, before, probes)
        };
        let names: Vec<_> = (0..ORDERS).map(|n| format!("down-{n}.example.com")).collect();
        let asked = names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 120).await.expect_status(202)
        });
        let (issued, (parked, before, probes)) = tokio::join!(join_all(asked), outage);

        eprintln!("{before} requests until it was held, {probes} probes");
        // A call that is not answered is repeated three times by itself.
        assert!(before <= 52 && probes <= 8, "{before} and then {probes}");
        let error = first(&parked, is_parked);
        assert_eq!(error["class"], "throttle");
        assert!(error["detail"].as_str().unwrap().contains("not available"), "the cause: {error}");
        for one in &issued {
            assert_ready(one);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0);
        }
        assert!(site.proxy().requests(Kind::NewOrder) <= 1 + before + probes + ORDERS);
    }
}

on_each_site! {
    async fn a_dns_provider_that_is_down_is_called_by_one_at_a_time(site: Site) {
        assert_ready(&site.issue("dns", &["warm.example.com"]).await);
        site.cloudflare.answer_html(u32::MAX);
        let names: Vec<_> = (0..ORDERS).map(|n| format!("silent-{n}.example.com")).collect();
        let asked = names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 120).await.expect_status(202)
        });

        let outage = async {
            site.until("/challenges?limit=50", |found| {
                found["items"].as_array().unwrap().iter().any(|one| {
                    one["reason"].as_str().is_some_and(|why| why.contains("while nobody answers"))
                })
            })
            .await;
            site.cloudflare.forget_calls();
            pause(Duration::from_secs(8)).await;
            let calls = site.cloudflare.calls().total();
            site.cloudflare.answer_html(0);
            calls
        };
        let (issued, calls) = tokio::join!(join_all(asked), outage);

        eprintln!("{calls} calls while it was down");
        assert!(calls <= 8, "{calls}");
        for one in &issued {
            assert_ready(one);
        }
    }
}

fn is_parked(error: &Value) -> bool {
    error["code"] == "circuit_open"
}

fn count(found: &Value, which: fn(&Value) -> bool) -> usize {
    found["items"].as_array().unwrap().iter().filter(|one| which(&one["lastError"])).count()
}

fn first(found: &Value, which: fn(&Value) -> bool) -> Value {
    let mut errors = found["items"].as_array().unwrap().iter().map(|one| &one["lastError"]);
    errors.find(|error| which(error)).unwrap().clone()
}

#[expect(clippy::disallowed_methods, reason = "an outage takes its time")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
