//! What the world may do to an issuance without stopping it: a real Pebble behind a proxy that lags,
//! loses, limits and lies.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::issuance::{assert_key_signs_for, assert_ready, clean, download};
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind, RetryAfter};
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

/// Longer than any of these takes, in seconds: pauses double from 5 s, and chance adds them up.
const PATIENCE: u32 = 280;

mod a_ca_that_does_not_know_yet_what_it_has_just_handed_out {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_again_on_sqlite() {
        let (_folder, url) = databases::sqlite_url();
        a_hundred_through_lag(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_again_on_postgres() {
        a_hundred_through_lag(&fresh_database().await).await;
    }

    /// The fault that stops lego and certbot, on every order, authorization and certificate.
    async fn a_hundred_through_lag(database: &str) {
        let site = Site::through_proxy(database, PebbleOptions::default()).await;
        site.proxy().lag(Duration::from_millis(1_500));

        issue_all(&site, 100).await;

        let proxy = site.proxy();
        assert!(proxy.faults(Fault::NotThere) >= 200, "each authorization and each certificate");
        assert_eq!(proxy.requests(Kind::NewOrder), 100);
        assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (100, 100));
        let orders = site.get("/orders?limit=500").await.body;
        assert_eq!(orders["items"].as_array().unwrap().len(), 100, "no order was given up");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_nonces_pages_in_html_and_cut_connections_together_stop_nothing() {
    let (_folder, site) = site(PebbleOptions { nonce_reject: 30, ..Default::default() }).await;
    site.proxy().html_502(10);
    site.proxy().cut(5);

    issue_all(&site, 10).await;

    let proxy = site.proxy();
    let met = [Fault::Page, Fault::Cut].map(|fault| proxy.faults(fault));
    eprintln!("pages and cuts: {met:?}");
    assert!(met.iter().all(|count| *count > 0), "{met:?}");
    assert_eq!(site.pebble.certificates_issued(), 10);
}

/// The certificate exists from here on, and its key must still be ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_certificate_is_lost_or_made_twice_when_no_finalize_is_ever_answered() {
    let (_folder, site) = site(PebbleOptions::default()).await;
    site.proxy().lose_answers(Kind::Finalize, usize::MAX);

    let issued = issue_all(&site, 50).await;

    let proxy = site.proxy();
    assert_eq!((proxy.faults(Fault::Lost), proxy.requests(Kind::Finalize)), (50, 50));
    assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (50, 50));
    for one in &issued {
        let key = download(&site, one, "privkey.pem").await;
        assert_key_signs_for(&key, &download(&site, one, "fullchain.pem").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_birth_was_not_answered_costs_one_order_more() {
    let (_folder, site) = site(PebbleOptions::default()).await;
    site.proxy().lose_answers(Kind::NewOrder, 10);

    issue_all(&site, 10).await;

    assert_eq!(site.proxy().faults(Fault::Lost), 10);
    assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (20, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_ordered_before_the_seconds_that_a_limit_names_are_over() {
    no_order_within(RetryAfter::Seconds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_ordered_before_the_date_that_a_limit_names() {
    no_order_within(RetryAfter::Date).await;
}

async fn no_order_within(form: RetryAfter) {
    const LIMIT: Duration = Duration::from_secs(3);
    let (_folder, site) = site(PebbleOptions::default()).await;
    let begun = Instant::now();
    site.proxy().limit_new_orders(form, LIMIT);

    issue_all(&site, 10).await;

    let proxy = site.proxy();
    let early = proxy.times(Kind::NewOrder).into_iter().filter(|at| *at - begun < LIMIT).count();
    assert_eq!((early, proxy.faults(Fault::Limited)), (1, 1), "one asks, and all the others wait");
    assert!(proxy.orders_taken().iter().all(|at| *at - begun >= LIMIT));
    assert_eq!(proxy.orders_taken().len(), 10);
    assert_eq!(proxy.hasty(), [""; 0]);
}

mod a_limit_of_half_a_minute {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn costs_one_refused_order_of_twenty_on_sqlite() {
        let (_folder, url) = databases::sqlite_url();
        one_refused_of_twenty(&url).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn costs_one_refused_order_of_twenty_on_postgres() {
        one_refused_of_twenty(&fresh_database().await).await;
    }

    async fn one_refused_of_twenty(database: &str) {
        const LIMIT: Duration = Duration::from_secs(30);
        let site = Site::through_proxy(database, PebbleOptions::default()).await;
        let begun = Instant::now();
        site.proxy().limit_new_orders(RetryAfter::Seconds, LIMIT);

        let told = site.until("/certificates?limit=500", |found| {
            let items = found["items"].as_array().unwrap();
            items.len() == 20 && items.iter().all(is_told_to_wait)
        });
        tokio::join!(issue_all(&site, 20), told);

        let proxy = site.proxy();
        let mut asked: Vec<_> = proxy.times(Kind::NewOrder).iter().map(|at| *at - begun).collect();
        asked.sort_unstable();
        eprintln!("new orders came after {asked:?}");
        assert_eq!(
            asked.len(),
            21,
            "one was refused, and each of the twenty asked once after that"
        );
        assert!(asked[0] < LIMIT && asked[1] >= LIMIT, "nobody asks while the limit lasts");
        assert_eq!((proxy.faults(Fault::Limited), proxy.orders_taken().len()), (1, 20));
    }

    /// Everybody who waits shows the CA's words, and until when.
    fn is_told_to_wait(certificate: &Value) -> bool {
        let error = &certificate["status"]["lastError"];
        error["class"] == "throttle"
            && error["detail"].as_str().unwrap().contains("too many new orders recently")
            && error["retryAt"].is_string()
            && error["scope"] == json!({"kind": "account"})
            && certificate["status"]["failedIssuanceAttempts"] == 0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_one_domain_holds_what_is_below_it_and_nothing_else() {
    const LIMIT: Duration = Duration::from_secs(5);
    let (_folder, site) = site(PebbleOptions::default()).await;
    site.proxy().limit_domain("example.com", LIMIT);
    let asked = (0..6).map(|n| {
        let (site, zone) = (&site, if n % 2 == 0 { "com" } else { "org" });
        async move {
            let begun = Instant::now();
            let name = format!("d{n}.example.{zone}");
            let issued = site.ask_for("dns", &[&name], &json!({}), PATIENCE).await;
            assert_ready(&issued.expect_status(202));
            (zone, begun.elapsed())
        }
    });

    let took = join_all(asked).await;

    eprintln!("{took:?}");
    assert_eq!(site.proxy().faults(Fault::Limited), 1, "one asks for all of the domain");
    for (zone, took) in took {
        assert_eq!(zone == "com", took >= LIMIT, "{zone} after {took:?}");
    }
}

/// Each replica finds out for itself at most once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_the_other_replica_too() {
    const LIMIT: Duration = Duration::from_secs(5);
    let site = Site::through_proxy(&fresh_database().await, PebbleOptions::default()).await;
    site.replica().await;
    site.proxy().limit_new_orders(RetryAfter::Seconds, LIMIT);

    issue_all(&site, 10).await;

    let proxy = site.proxy();
    assert!((1..=2).contains(&proxy.faults(Fault::Limited)), "{}", proxy.faults(Fault::Limited));
    assert_eq!((proxy.hasty().len(), proxy.orders_taken().len()), (0, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_ca_is_left_alone_for_as_long_as_it_asks() {
    let (_folder, site) = site(PebbleOptions::default()).await;
    site.proxy().busy(30, Duration::from_secs(1));

    issue_all(&site, 10).await;

    let proxy = site.proxy();
    assert!(proxy.faults(Fault::Busy) > 10, "{}", proxy.faults(Fault::Busy));
    assert_eq!(proxy.hasty(), [""; 0]);
    assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (10, 10));
}

/// A site on SQLite, through a proxy; the folder is the database's.
async fn site(pebble: PebbleOptions) -> (tempfile::TempDir, Site) {
    let (folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, pebble).await;
    (folder, site)
}

/// Asks for so many certificates at once: each is issued, none counts a failed attempt, and nothing
/// is left in the DNS.
async fn issue_all(site: &Site, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    let names: Vec<_> = (0..count).map(|n| format!("r{n}.example.com")).collect();
    let asked = join_all(names.iter().map(|name| async move {
        let issued = site.ask_for("dns", &[name], &json!({}), PATIENCE).await;
        issued.expect_status(202)
    }));
    let issued = asked.await;
    eprintln!("{count} certificates in {:?}", begun.elapsed());
    for one in &issued {
        assert_ready(one);
    }
    site.until("/orders?limit=500", |found| found["items"].as_array().unwrap().iter().all(clean))
        .await;
    let left = site.cloudflare.records("example.com");
    assert!(left.is_empty(), "{left:?}");
    issued
}
