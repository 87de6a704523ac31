//! How often a CA is asked for a certificate, and what is asked side by side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration as Patience;

use certwright::ca::{Account, Ca, ChallengeKind, Order};
use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::failure::Class;
use certwright::domain::issuer::Acme;
use certwright::worker::NewOrders;
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::{Fault, FaultProxy, Kind, Refusal, RetryAfter};
use crate::support::patience::within;
use crate::support::pebble::{Pebble, PebbleOptions};

const NAMES: usize = 25;

#[tokio::test]
async fn the_authorizations_of_a_new_order_are_read_and_its_challenges_accepted_side_by_side() {
    let (_pebble, proxy, _, account) = through_proxy().await;
    let order = account.new_order(&names(), None).await.unwrap();

    proxy.await_at_once(Kind::Authorization, NAMES);
    let urls = within("all of them", challenges(&order)).await;
    proxy.await_at_once(Kind::Challenge, NAMES);
    within("all of them", order.accept(&urls)).await.unwrap();

    assert_eq!(proxy.requests(Kind::Authorization), NAMES);
    assert_eq!(proxy.requests(Kind::Challenge), NAMES);
}

#[tokio::test]
async fn of_an_order_that_is_taken_up_again_four_are_read_before_the_others() {
    let (_pebble, proxy, _, account) = through_proxy().await;
    let url = account.new_order(&names(), None).await.unwrap().url().to_owned();
    proxy.lag_of(Kind::Authorization, Patience::from_hours(1));

    let failure =
        account.order(&url, Duration::ZERO).await.unwrap().authorizations().await.unwrap_err();

    assert_eq!(failure.class, Class::Consistency, "{failure}");
    assert_eq!(proxy.requests(Kind::Authorization), 4, "the others are not there either");
}

#[tokio::test]
async fn of_several_refusals_the_longest_pause_counts() {
    let (_pebble, proxy, _, account) = through_proxy().await;
    let order = account.new_order(&names(), None).await.unwrap();
    let urls = challenges(&order).await;
    let pause = |seconds| Refusal {
        status: 429,
        html: false,
        form: RetryAfter::Seconds,
        pause: Patience::from_secs(seconds),
    };
    proxy.refuse(Kind::Challenge, &[pause(2), pause(3_600), pause(5)]);

    let failure = order.accept(&urls).await.unwrap_err();

    let until = failure.retry_at.expect("the CA has named a time");
    assert!(until > SystemClock.now() + Duration::minutes(30), "{until}");
}

#[tokio::test]
async fn nonces_are_asked_for_once_for_all_that_are_under_way_at_once() {
    let (_pebble, _proxy, ca, account) = through_proxy().await;
    let order = account.new_order(&names(), None).await.unwrap();

    for _ in 0..20 {
        let reads = (0..NAMES).map(|_| account.order(order.url(), Duration::ZERO));
        assert!(join_all(reads).await.iter().all(Result::is_ok));
    }

    let asked = ca.requests();
    assert!(asked.all > 20 * 25 && asked.for_nonces <= 25, "{asked:?}");
}

#[tokio::test]
async fn all_requests_share_one_connection() {
    let pebble = Pebble::start(always_valid()).await;
    let forwarder = Forwarder::before(&pebble).await;
    let server = format!("https://{}/dir", forwarder.address);
    let (_, account) = account(super::acme(&server, &pebble.ca_bundle())).await;

    let order = account.new_order(&names(), None).await.unwrap();
    let urls = challenges(&order).await;
    order.accept(&urls).await.unwrap();

    assert_eq!(forwarder.connections.load(Ordering::SeqCst), 1);
}

mod nothing_is_read_again_that_an_answer_has_just_said {
    use Kind::{
        Authorization, Certificate, Challenge, Finalize, NewOrder, Order, Other, RenewalInfo,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_one_run() {
        assert_eq!(requests_of_one(json!({"mode": "none"})).await, AT_LEAST);
    }

    /// Another run goes on from there, and finds nothing in memory but the authorizations.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_the_proof_was_waited_for_in_the_database() {
        assert_eq!(requests_of_one(json!({"mode": "none", "delay": "30s"})).await, AT_LEAST);
    }

    const AT_LEAST: [Kind; 7] =
        [NewOrder, Authorization, Challenge, Order, Finalize, Order, Certificate];

    /// In the order in which they were made; how often it was asked whether the CA was done is its own affair.
    async fn requests_of_one(propagation: Value) -> Vec<Kind> {
        let (_folder, url) = databases::sqlite_url();
        let site = Driven::on(&url, &json!({"propagation": propagation})).await;
        let before = site.proxy.kinds().len();
        site.ask_for("www").await;
        site.until_all_ready().await;
        let mut asked = site.proxy.kinds().split_off(before);
        asked.retain(|kind| !matches!(kind, Other | RenewalInfo));
        asked.dedup();
        asked
    }
}

mod a_ca_that_refuses_from_the_tenth_new_order_in_flight_on {
    use super::*;

    const ORDERS: usize = 40;
    const BEARS: usize = 9;
    const AT_FIRST: usize = 16;
    const PAUSE: Patience = Patience::from_secs(5);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_for_no_order_before_its_time_and_soon_for_no_more_than_it_bears() {
        let (_folder, url) = databases::sqlite_url();
        let bounds = NewOrders { start: AT_FIRST, ceiling: 64 };
        let site = Driven::ordering(&url, &json!({}), bounds).await;
        site.proxy.bear_new_orders(BEARS, PAUSE);
        site.proxy.await_at_once(Kind::NewOrder, AT_FIRST);
        for n in 0..ORDERS {
            site.ask_for(&format!("o{n}")).await;
        }

        site.until_all_ready().await;

        let refused = site.proxy.fault_times(Fault::Limited);
        assert_eq!(refused.len(), AT_FIRST - BEARS, "those that were under way, and no other");
        assert_eq!(site.proxy.hasty(), [""; 0]);
        let told = refused[0];
        let early = |at: &&time::OffsetDateTime| **at > told && **at < told + PAUSE;
        let asked = site.proxy.times(Kind::NewOrder);
        assert_eq!(asked.iter().filter(early).count(), 0, "{told}: {asked:?}");
        assert_eq!(site.proxy.orders_taken().len(), ORDERS);
    }
}

/// Counts the connections to a CA.
struct Forwarder {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Forwarder {
    async fn before(pebble: &Pebble) -> Self {
        let url = pebble.directory_url();
        let to = url.trim_start_matches("https://").trim_end_matches("/dir").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let (counted, mut tasks) = (Arc::clone(&connections), JoinSet::new());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let to = to.clone();
                open.spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    copy_bidirectional(&mut from, &mut to).await.ok();
                });
            }
        });
        Self { address, connections, _tasks: tasks }
    }
}

async fn through_proxy() -> (Pebble, FaultProxy, Ca, Arc<Account>) {
    let pebble = Pebble::start(always_valid()).await;
    let proxy = FaultProxy::before(&pebble).await;
    let (ca, account) = account(super::acme(&proxy.directory_url(), &proxy.ca_bundle())).await;
    (pebble, proxy, ca, account)
}

async fn account(acme: Acme) -> (Ca, Arc<Account>) {
    let (ca, key) = (Ca::new(Arc::new(SystemClock)), Ca::generate_account_key().unwrap());
    let url = ca.register(&acme, &key).await.unwrap().url;
    let account = ca.account(&acme, &key, &url).await.unwrap();
    (ca, account)
}

fn always_valid() -> PebbleOptions {
    PebbleOptions { always_valid: true, ..PebbleOptions::default() }
}

fn names() -> Vec<String> {
    (0..NAMES).map(|n| format!("n{n}.example.org")).collect()
}

/// The DNS-01 challenge of each name.
async fn challenges(order: &Order) -> Vec<String> {
    let found = order.authorizations().await.unwrap();
    let offered = found.into_iter().flat_map(|authorization| authorization.challenges);
    offered.filter(|it| it.kind == ChallengeKind::Dns01).map(|it| it.url).collect()
}
