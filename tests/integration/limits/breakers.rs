//! Who does not answer is left alone, but for one request at a time.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::issuance::assert_ready;
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::{Site, on_each_site};

const ORDERS: usize = 20;

/// Requests of a call that is not answered: it is repeated three times by itself.
const CALL: usize = 4;

/// From one probe to the next there are at least 5 s, less what chance takes off.
const PAUSE: Duration = Duration::from_secs(3);

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
            // By themselves, twenty orders would ask eighty times until then.
            until("a probe", async || site.proxy().faults(Fault::Page) > before + CALL).await;
            site.proxy().only_pages(false);
            parked
        };
        let names: Vec<_> = (0..ORDERS).map(|n| format!("down-{n}.example.com")).collect();
        let asked = names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202)
        });
        let (issued, parked) = tokio::join!(join_all(asked), outage);

        // Ten that fail in a row, and those that are under way meanwhile.
        let refused = site.proxy().fault_times(Fault::Page);
        let probes = &refused[refused.len().min(13 * CALL)..];
        for few in probes.windows(CALL + 1) {
            assert!(few[CALL] - few[0] >= PAUSE, "more than one at a time: {refused:?}");
        }
        let error = first(&parked, is_parked);
        assert_eq!(error["class"], "throttle");
        assert!(error["detail"].as_str().unwrap().contains("not available"), "the cause: {error}");
        for one in &issued {
            assert_ready(one);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0);
        }
        assert!(site.proxy().requests(Kind::NewOrder) <= 1 + refused.len() + ORDERS);
    }
}

on_each_site! {
    async fn a_dns_provider_that_is_down_is_called_by_one_at_a_time(site: Site) {
        assert_ready(&site.issue("dns", &["warm.example.com"]).await);
        site.cloudflare.answer_html(u32::MAX);
        let names: Vec<_> = (0..ORDERS).map(|n| format!("silent-{n}.example.com")).collect();
        let asked = names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202)
        });

        let outage = async {
            site.until("/challenges?limit=50", |found| {
                let mut all = found["items"].as_array().unwrap().iter();
                let reason = |one: &Value| one["reason"].as_str().map(str::to_owned);
                all.any(|one| reason(one).is_some_and(|why| why.contains("while nobody answers")))
            })
            .await;
            site.cloudflare.forget_calls();
            until("two probes", async || site.cloudflare.calls().total() > 1).await;
            site.cloudflare.answer_html(0);
            site.cloudflare.called()
        };
        let (issued, calls) = tokio::join!(join_all(asked), outage);

        // Those that were under way when it was found out are among them.
        for few in calls.windows(2 * CALL + 1) {
            assert!(few[2 * CALL] - few[0] >= PAUSE, "more than one at a time: {calls:?}");
        }
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
