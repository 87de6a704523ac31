//! A CA's limits are kept to here, so that it need not refuse: orders wait for budget, renewals first.

use certwright::clock::{Clock as _, SystemClock};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::issuance::assert_ready;
use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind;
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
        let limits = json!({"limits": {"newOrders": {"count": 5, "per": "20s"}}});
        let site = Driven::on(database, &limits).await;
        for n in 0..7 {
            site.ask_for(&format!("b{n}")).await;
        }

        site.step().await;

        let orders = site.world.get("/orders?limit=50").await.json();
        let errors = orders["items"].as_array().unwrap().iter().map(|one| &one["lastError"]);
        let waiting: Vec<_> = errors.filter(|error| error["code"] == "acme_budget_spent").collect();
        assert_eq!(waiting.len(), 3, "{orders:#}");
        for error in waiting {
            assert_eq!(
                (&error["class"], &error["scope"]["kind"]),
                (&json!("throttle"), &json!("account"))
            );
            assert!(error["retryAt"].is_string(), "until when it waits: {error}");
        }
        let shown = site.world.get(&site.issuer).await.json();
        let used = &shown["status"]["acme"]["limits"]["newOrders"];
        assert_eq!((&used["count"], &used["per"]), (&json!(5), &json!("20s")), "{shown}");
        assert_eq!((&used["used"], site.proxy.requests(Kind::NewOrder)), (&json!(4), 4));

        for one in site.until_all_ready().await {
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0);
        }
        let times = site.proxy.times(Kind::NewOrder);
        let after: Vec<_> = times.iter().map(|at| (*at - times[0]).whole_seconds()).collect();
        assert_eq!(after.len(), 7, "{after:?}");
        assert!(after[4] >= 4 && after[5] >= 8 && after[6] >= 12, "too early: {after:?}");
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
    site.cloudflare.hide_records();
    let begun = SystemClock.now();
    let asked = site.issue("blind", &["blind.example.com"]).await;
    assert_eq!(asked["status"]["phase"], "Failed", "{asked:#}");
    let next = asked["status"]["nextAttemptAt"].as_str().unwrap();
    let next = OffsetDateTime::parse(next, &Rfc3339).unwrap();
    let soonest = begun + Duration::minutes(4);
    let latest = SystemClock.now() + Duration::minutes(7);
    assert!(soonest < next && next < latest, "as the issuer says: {next}");

    let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let waits =
        site.until(&path, |now| now["status"]["lastError"]["code"] == "acme_budget_spent").await;
    let error = &waits["status"]["lastError"];
    assert_eq!(error["scope"], json!({"kind": "name", "of": "blind.example.com"}));
    assert_eq!(site.pebble.orders_created(), 1, "the CA was not asked: {error}");
}
