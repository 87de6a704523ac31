//! What the world may do to an issuance without stopping it: a real Pebble behind a proxy that lags,
//! loses, limits and lies.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::issuance::{assert_key_signs_for, assert_ready, clean, download};
use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::{Fault, Kind, Refusal, RetryAfter};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;
use crate::support::world::id;

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
        site.proxy().absent_at_first(2);

        issue_all(&site, 100).await;

        let proxy = site.proxy();
        assert!(
            proxy.faults(Fault::NotThere) >= 400,
            "each authorization and each certificate twice"
        );
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

    issue_all(&site, 100).await;

    let proxy = site.proxy();
    let met = [Fault::Page, Fault::Cut].map(|fault| proxy.faults(fault));
    assert!(met.iter().all(|count| *count > 30), "{met:?}");
    assert_eq!(site.pebble.certificates_issued(), 100, "none is made twice");
}

/// Whoever gives up after seconds, or orders anew at each failure, does not pass here.
#[tokio::test]
async fn replicas_that_lag_by_twenty_seconds_cost_neither_an_order_nor_an_attempt() {
    let (_folder, url) = databases::sqlite_url();
    let site = Driven::on(&url, &json!({})).await;
    site.proxy.lag(Duration::from_secs(20));
    for n in 0..20 {
        site.ask_for(&format!("lag{n}")).await;
    }

    for issued in site.until_all_ready().await {
        assert_ready(&issued);
    }

    assert!(site.proxy.faults(Fault::NotThere) >= 40, "authorizations and certificates");
    assert_eq!(site.proxy.requests(Kind::NewOrder), 20, "three each would be allowed");
    assert_eq!(site.pebble.certificates_issued(), 20);
}

#[tokio::test]
async fn readiness_that_a_certificate_has_missed_by_a_moment_costs_it_seconds_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    readiness_missed_by_a_moment_costs_seconds(&url).await;
}

#[tokio::test]
async fn readiness_that_a_certificate_has_missed_by_a_moment_costs_it_seconds_on_postgres() {
    readiness_missed_by_a_moment_costs_seconds(&fresh_database().await).await;
}

/// The issuer wakes those who wait; one more saves that it waits in that moment.
async fn readiness_missed_by_a_moment_costs_seconds(database: &str) {
    let site = Driven::on(database, &json!({})).await;
    let ready_since = site.world.now();
    let late = id(&site.world.create_certificate("late").await);
    site.world
        .db_let(&late, |one| one.await_issuer("IssuerNotReady", "It registers.", ready_since))
        .await;

    let issued = site.until_all_ready().await;

    assert_ready(&issued[0]);
    let took = site.world.now() - ready_since;
    assert!(took < time::Duration::minutes(1), "{took}");
    assert_eq!(site.proxy.requests(Kind::Account), 1, "to be ready is enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_that_go_backwards_are_taken_for_lagging_replicas() {
    let (_folder, site) =
        site(PebbleOptions { authz_reuse: Some(100), ..Default::default() }).await;
    site.proxy().backwards(3);

    issue_all(&site, 20).await;
    // The second name is proved already, but its authorization may show that it is not.
    let more = (0..20).map(|n| [format!("s{n}.example.com"), format!("r{n}.example.com")]);
    join_all(more.map(|names| {
        let site = &site;
        async move {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let issued = site.ask_for("dns", &names, &json!({}), PATIENCE).await.expect_status(202);
            assert_ready(&issued);
        }
    }))
    .await;

    let proxy = site.proxy();
    assert!(proxy.faults(Fault::Backwards) > 20, "{}", proxy.faults(Fault::Backwards));
    assert_eq!(proxy.requests(Kind::NewOrder), 40);
    let csrs = proxy.csrs();
    assert_eq!(csrs.len(), 40);
    for sent in csrs {
        assert!(sent.len() <= 2, "once more than needed at most: {}", sent.len());
        assert!(sent.iter().all(|csr| *csr == sent[0]), "never with another CSR");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_never_answered_holds_up_nobody_else() {
    let (_folder, url) = databases::sqlite_url();
    let timeout = [("acme.timeout", "5s")];
    let site = Site::through_proxy_with(&url, PebbleOptions::default(), &timeout).await;
    site.proxy().hang_first(Kind::Authorization);
    let asked = site.ask_for("dns", &["hung.example.com"], &json!({}), 0).await.expect_status(202);
    let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
    until("a request that hangs", async || site.proxy().hanging() == 1).await;

    ask_for_all(&site, 20).await;
    let hung = site.get(&path).await.body;
    assert_eq!(hung["status"]["phase"], "Issuing", "the others did not wait for it: {hung:#}");
    until("another try", async || site.proxy().faults(Fault::Hang) > 1).await;
    site.proxy().let_go();

    let issued = site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    assert_ready(&issued);
    assert_eq!(site.pebble.orders_created(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_and_however_it_is_refused_the_time_that_is_named_is_kept_to() {
    let (_folder, site) = site(PebbleOptions::default()).await;
    let pause = Duration::from_secs(1);
    let refusal = |status, html, form| Refusal { status, html, form, pause };
    let refusals = [
        refusal(429, false, RetryAfter::Seconds),
        refusal(429, false, RetryAfter::Date),
        refusal(503, false, RetryAfter::Seconds),
        refusal(503, false, RetryAfter::Date),
        refusal(503, true, RetryAfter::Seconds),
        refusal(502, true, RetryAfter::Date),
    ];
    let kinds = [
        Kind::NewOrder,
        Kind::Order,
        Kind::Authorization,
        Kind::Challenge,
        Kind::Finalize,
        Kind::Certificate,
        Kind::Directory,
        Kind::Account,
    ];
    site.ready("dns").await;
    site.ready("http").await;
    for kind in kinds {
        site.proxy().refuse(kind, &refusals);
    }
    // Reached in another way, so that the directory is asked for anew.
    let more = json!({"caBundle": null, "skipTLSVerify": true});
    site.create_issuer("refused", &json!([site.dns_solver()]), &more).await;

    issue_all(&site, 12).await;
    let more = site.ask_for("refused", &["other.example.com"], &json!({}), PATIENCE).await;
    assert_ready(&more.expect_status(202));

    let proxy = site.proxy();
    assert_eq!(proxy.faults(Fault::Refused), refusals.len() * kinds.len());
    assert_eq!(proxy.hasty(), [""; 0]);
    assert_eq!(site.pebble.certificates_issued(), 13);
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
    site.proxy().limit_new_orders(form, LIMIT);

    issue_all(&site, 10).await;

    let proxy = site.proxy();
    let mut asked = proxy.times(Kind::NewOrder);
    asked.sort_unstable();
    assert_eq!(
        (asked.len(), proxy.faults(Fault::Limited)),
        (11, 1),
        "one asks, and all others wait"
    );
    assert!(asked[1..].iter().all(|at| *at >= asked[0] + LIMIT), "{asked:?}");
    assert_eq!(proxy.orders_taken().len(), 10);
    assert_eq!(proxy.hasty(), [""; 0]);
}

mod a_limit_that_lasts {
    use super::*;

    const LIMIT: Duration = Duration::from_hours(1);

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
        let site = Site::through_proxy(database, PebbleOptions::default()).await;
        site.proxy().limit_new_orders(RetryAfter::Seconds, LIMIT);

        for n in 0..20 {
            ask_for_later(&site, &format!("r{n}.example.com")).await;
        }

        let found = site
            .until("/certificates?limit=500", |found| {
                let items = found["items"].as_array().unwrap();
                items.len() == 20 && items.iter().all(is_told_to_wait)
            })
            .await;
        let items = found["items"].as_array().unwrap();
        assert_eq!(items.iter().filter(|one| is_in_the_cas_words(one)).count(), 1);
        let proxy = site.proxy();
        assert_eq!((proxy.requests(Kind::NewOrder), proxy.faults(Fault::Limited)), (1, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn holds_what_is_below_its_domain_and_nothing_else() {
        let (_folder, site) = site(PebbleOptions::default()).await;
        site.proxy().limit_domain("example.com", LIMIT);
        ask_for_later(&site, "d0.example.com").await;
        // One finds out; the others would perhaps ask at the same moment.
        until("a refusal", async || site.proxy().faults(Fault::Limited) == 1).await;
        for name in ["d1.example.com", "d2.example.com"] {
            ask_for_later(&site, name).await;
        }

        for name in ["d3.example.org", "d4.example.org", "d5.example.org"] {
            assert_ready(&site.issue("dns", &[name]).await);
        }

        site.until("/certificates?limit=500", |found| {
            let items = found["items"].as_array().unwrap();
            items.iter().filter(|one| one["status"]["lastError"]["class"] == "throttle").count()
                == 3
        })
        .await;
        assert_eq!(site.proxy().faults(Fault::Limited), 1, "one asks for all of the domain");
    }

    async fn ask_for_later(site: &Site, name: &str) {
        site.ask_for("dns", &[name], &json!({}), 0).await.expect_status(202);
    }

    /// Everybody who waits shows why, and until when; the CA's words only the one that heard them, for
    /// they may speak of others' names.
    fn is_told_to_wait(certificate: &Value) -> bool {
        let error = &certificate["status"]["lastError"];
        error["class"] == "throttle"
            && (is_in_the_cas_words(certificate)
                || error["detail"].as_str().unwrap().contains("to another order"))
            && error["retryAt"].is_string()
            && error["scope"] == json!({"kind": "account"})
            && certificate["status"]["failedIssuanceAttempts"] == 0
    }

    fn is_in_the_cas_words(certificate: &Value) -> bool {
        let detail = certificate["status"]["lastError"]["detail"].as_str();
        detail.is_some_and(|detail| detail.contains("too many new orders recently"))
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
    let issued = ask_for_all(site, count).await;
    site.until("/orders?limit=500", |found| found["items"].as_array().unwrap().iter().all(clean))
        .await;
    let left = site.cloudflare.records("example.com");
    assert!(left.is_empty(), "{left:?}");
    issued
}

async fn ask_for_all(site: &Site, count: usize) -> Vec<Value> {
    let names: Vec<_> = (0..count).map(|n| format!("r{n}.example.com")).collect();
    let asked = join_all(names.iter().map(|name| async move {
        let issued = site.ask_for("dns", &[name], &json!({}), PATIENCE).await;
        issued.expect_status(202)
    }));
    let mut issued = asked.await;
    for one in &mut issued {
        // Who has asked for as much as an order may in a minute goes on in the next one.
        let path = format!("/certificates/{}", one["id"].as_str().unwrap());
        *one = site.until(&path, |now| now["status"]["phase"] != "Issuing").await;
        assert_ready(one);
    }
    issued
}
