//! A CA's limits are kept to here, so that it need not refuse: orders wait for budget, renewals first.

use std::time::Duration;

use certwright::clock::{Clock as _, SystemClock};
use futures_util::future::join_all;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::issuance::assert_ready;
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::free_port;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::{Site, SiteOptions, on_each_site};

mod orders_beyond_the_budget {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn wait_for_it_and_say_so_on_sqlite() {
        let (_folder, url) = databases::sqlite_url();
        wait_for_it_and_say_so(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn wait_for_it_and_say_so_on_postgres() {
        wait_for_it_and_say_so(&fresh_database().await).await;
    }

    /// Five in twenty seconds: four at once, since a fifth is for renewals, then one every four.
    async fn wait_for_it_and_say_so(database: &str) {
        let site = Site::through_proxy(database, PebbleOptions::default()).await;
        let limits = json!({"limits": {"newOrders": {"count": 5, "per": "20s"}}});
        let created = site.create_issuer("tight", &json!([site.dns_solver()]), &limits).await;
        let path = format!("/issuers/{}", created["id"].as_str().unwrap());
        let names: Vec<_> = (0..7).map(|n| format!("b{n}.example.com")).collect();
        let asked = names.iter().map(|name| async {
            let asked = site.ask_for("tight", &[name], &json!({}), 90).await;
            asked.expect_status(202)
        });

        let waiting = async {
            let orders = site
                .until("/orders?limit=50", |found| {
                    let waits =
                        |one: &&serde_json::Value| one["lastError"]["code"] == "acme_budget_spent";
                    found["items"].as_array().unwrap().iter().filter(waits).count() == 3
                })
                .await;
            (orders, site.get(&path).await.body)
        };
        let (done, (orders, shown)) = tokio::join!(join_all(asked), waiting);

        for one in &done {
            assert_ready(one);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0);
        }
        let one = orders["items"].as_array().unwrap().iter();
        let error = &one.map(|one| &one["lastError"]).find(|error| !error.is_null()).unwrap();
        assert_eq!(
            (&error["class"], &error["scope"]["kind"]),
            (&json!("throttle"), &json!("account"))
        );
        assert!(error["retryAt"].is_string(), "until when it waits: {error}");
        let used = &shown["status"]["acme"]["limits"]["newOrders"];
        assert_eq!((&used["count"], &used["per"]), (&json!(5), &json!("20s")), "{shown}");
        assert!((3..=4).contains(&used["used"].as_u64().unwrap()), "{used}");
        let mut times = site.proxy().times(Kind::NewOrder);
        times.sort_unstable();
        let after: Vec<_> = times.iter().map(|at| (*at - times[0]).as_secs_f64()).collect();
        eprintln!("new orders after {after:?}");
        assert_eq!((after.len(), site.proxy().faults(Fault::Limited)), (7, 0));
        for (n, at) in (0_u32..).zip(&after) {
            // What was taken before the first request was seen may be a little older than it.
            assert!(*at > f64::from(n + 1) * 4.0 - 16.0 - 1.0, "too early: {after:?}");
        }
    }
}

on_each_site! {
    async fn a_sixth_certificate_for_the_same_names_waits(site: Site) {
        let limits = json!({"limits": {"certificatesPerExactSet": {"count": 2, "per": "7d"}}});
        let issuer = site.create_issuer("sets", &json!([site.dns_solver()]), &limits).await;
        for name in ["one", "two"] {
            let more = json!({"name": name});
            assert_ready(&site.ask_for("sets", &["same.example.com"], &more, 60).await.body);
        }

        let third = site.ask_for("sets", &["same.example.com"], &json!({"name": "three"}), 0).await;
        let other = site.ask_for("sets", &["other.example.com"], &json!({}), 60).await;

        assert_ready(&other.body);
        let path = format!("/certificates/{}", third.body["id"].as_str().unwrap());
        let waits = site.until(&path, |now| now["status"]["lastError"]["code"] == "acme_budget_spent").await;
        assert_eq!(waits["status"]["phase"], "Issuing", "{waits}");
        assert_eq!(waits["status"]["lastError"]["scope"], json!({"kind": "exactSet"}));
        assert_eq!(site.pebble.orders_created(), 3, "the CA was not asked");
        let shown = site.get(&format!("/issuers/{}", issuer["id"].as_str().unwrap())).await.body;
        let used = &shown["status"]["acme"]["limits"]["certificatesPerExactSet"];
        assert_eq!(used["used"], 2, "{shown}");
        assert!(used["nextFreeAt"].is_string(), "{used}");
    }

    async fn an_order_that_the_ca_never_took_gives_back_what_it_had_reserved(site: Site) {
        let limits = json!({"limits": {"certificatesPerExactSet": {"count": 1, "per": "7d"}}});
        site.create_issuer("sets", &json!([site.dns_solver()]), &limits).await;
        // The CA offers no such profile: the order ends before it is sent.
        let more = json!({"profile": "none-such"});
        let refused = site.ask_for("sets", &["back.example.com"], &more, 60).await.expect_status(202);
        assert_eq!(refused["status"]["phase"], "Blocked", "{refused}");

        let more = json!({"name": "again"});
        let issued = site.ask_for("sets", &["back.example.com"], &more, 60).await.expect_status(202);

        assert_ready(&issued);
    }
}

/// Renewing by hand ignores the backoff; the CA's limit on failed validations is kept to all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_failed_often_is_not_tried_again_within_the_hour() {
    let (_folder, url) = databases::sqlite_url();
    let port = free_port();
    let responder = ([127, 0, 0, 1], port).into();
    let options = SiteOptions { pebble: PebbleOptions::default(), http01_port: port, responder };
    let site = Site::with(&url, options).await;
    let mut solver = site.dns_solver();
    solver["dns01"]["propagation"] = json!({"mode": "none"});
    let limits = json!({"limits": {"failedValidationsPerName": {"count": 1, "per": "1h"}},
        "retry": {"initial": "5m", "max": "10m"}});
    site.create_issuer("blind", &json!([solver]), &limits).await;
    site.cloudflare.set_dns_delay(Duration::from_mins(1));
    let asked = site.issue("blind", &["blind.example.com"]).await;
    assert_eq!(asked["status"]["phase"], "Failed", "{asked:#}");
    let next = asked["status"]["nextAttemptAt"].as_str().unwrap();
    let pause = OffsetDateTime::parse(next, &Rfc3339).unwrap() - SystemClock.now();
    assert!((4..=6).contains(&pause.whole_minutes()), "as the issuer says: {pause}");

    let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let waits =
        site.until(&path, |now| now["status"]["lastError"]["code"] == "acme_budget_spent").await;
    let error = &waits["status"]["lastError"];
    assert_eq!(error["scope"], json!({"kind": "name", "of": "blind.example.com"}));
    assert_eq!(site.pebble.orders_created(), 1, "the CA was not asked: {error}");
}
