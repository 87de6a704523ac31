//! A CA that asks to wait for more than a day: one moment in every view, and not a request before it, unless somebody
//! lifts the throttle.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::{Fault, Kind};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::person::Person;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

/// Longer than a day.
const PAUSE: Duration = Duration::hours(26);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_moment_is_shown_everywhere_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    one_moment_is_shown_everywhere(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_moment_is_shown_everywhere_on_postgres() {
    one_moment_is_shown_everywhere(&fresh_database().await).await;
}

async fn one_moment_is_shown_everywhere(database: &str) {
    let site = Driven::on(database, &json!({})).await;
    site.proxy.limit_domain("example.com", PAUSE.unsigned_abs());
    let end = site.world.now() + PAUSE;
    site.ask_for("first").await;
    site.step().await;
    // Somebody who is told by us, and a while later.
    site.world.clock.advance(Duration::minutes(90));
    site.ask_for("second").await;
    site.step().await;
    assert_eq!(site.proxy.requests(Kind::NewOrder), 1, "the CA is asked once");

    let listed = site.world.get("/throttles").await.json();
    assert_eq!(time(&listed["items"][0]["until"]), end, "as the CA said");
    let issuer = site.world.get(&site.issuer).await.json();
    assert_eq!(issuer["status"]["throttles"], listed["items"]);
    let certificates = site.world.certificates().await;
    assert_eq!(certificates.len(), 2);
    for certificate in certificates {
        shows(&site, &certificate, end).await;
    }

    site.world.clock.advance(end - Duration::MILLISECOND - site.world.now());
    site.step().await;
    assert_eq!(site.proxy.requests(Kind::NewOrder), 1, "not a moment before it");
    site.until_all_ready().await;
    assert_eq!(site.proxy.orders_taken().first(), Some(&end), "and then at once");
    assert_eq!(site.proxy.hasty(), [""; 0]);
}

/// Everything that is said of a certificate that waits names this moment.
async fn shows(site: &Driven, certificate: &Value, end: OffsetDateTime) {
    let status = &certificate["status"];
    assert_eq!(time(&status["lastError"]["retryAt"]), end, "{certificate:#}");
    let order = site.world.get(status["order"].as_str().unwrap()).await.json();
    assert_eq!(time(&order["lastError"]["retryAt"]), end, "{order:#}");
    assert_eq!(time(&order["nextActionAt"]), end, "{order:#}");
    let path = format!("/certificates/{}/explain", certificate["id"].as_str().unwrap());
    let said = site.world.get(&path).await.json();
    assert_eq!(time(&said["why"]["retryAt"]), end, "{said:#}");
    assert_eq!(time(&said["next"]["at"]), end, "{said:#}");
    let moment = end.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    assert!(said["summary"].as_str().unwrap().contains(&moment), "{moment}: {said:#}");
    assert!(said["actions"][0].as_str().unwrap().starts_with("Nothing needs"), "{said:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_that_is_lifted_sends_who_waits_at_once_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    a_throttle_that_is_lifted_sends_who_waits_at_once(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_that_is_lifted_sends_who_waits_at_once_on_postgres() {
    a_throttle_that_is_lifted_sends_who_waits_at_once(&fresh_database().await).await;
}

async fn a_throttle_that_is_lifted_sends_who_waits_at_once(database: &str) {
    let site = Driven::on(database, &json!({})).await;
    site.proxy.limit_domain("example.com", PAUSE.unsigned_abs());
    site.ask_for("first").await;
    site.step().await;
    site.ask_for("second").await;
    site.step().await;
    let (begun, asked) = (site.world.now(), site.proxy.requests(Kind::NewOrder));
    assert_eq!((asked, site.proxy.orders_taken().len()), (1, 0));
    let path = throttle(&site.world.get("/throttles").await.json());
    // The CA still wants no more: whoever lifts a throttle too early is told again, once for all.
    assert_eq!(site.world.delete(&path).await.status, 204);
    site.step().await;
    assert_eq!((site.proxy.requests(Kind::NewOrder), site.proxy.faults(Fault::Limited)), (2, 2));

    site.proxy.limit_domain("example.net", PAUSE.unsigned_abs());
    let path = throttle(&site.world.get("/throttles").await.json());
    assert_eq!(site.world.delete(&path).await.status, 204);
    site.step().await;

    assert_eq!(site.proxy.orders_taken(), [begun; 2], "no time has passed");
    site.until_all_ready().await;
}

/// By the command line, on a service that runs: what `doctor`, `describe` and `throttles list` say of it, and that it is
/// lifted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_on_call_sees_the_throttle_and_lifts_it() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::through_proxy(&url, PebbleOptions::default()).await;
    site.proxy().limit_domain("example.com", PAUSE.unsigned_abs());
    let asked = site.ask_for("dns", &["www.example.com"], &json!({}), 0).await.expect_status(202);
    let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
    let told = |now: &Value| now["status"]["lastError"]["httpStatus"] == 429;
    let end = site.until(&path, told).await["status"]["lastError"]["retryAt"].clone();
    let held = async || site.get("/throttles").await.body["items"].clone();
    let throttle = held().await[0].clone();
    assert_eq!(time(&throttle["until"]), time(&end));
    let (id, end) = (throttle["id"].as_str().unwrap(), throttle["until"].as_str().unwrap());

    let person = Person::of(&site);
    let listed = person.run(&["throttles", "list"]).succeeded();
    listed.says_all(&[id, "registered domain example.com", "too many certificates"]);
    let described = person.run(&["describe", "clusterissuer", "dns"]).succeeded();
    described.says_all(&["Throttles:", id, end, "registeredDomain", "too many certificates"]);
    let found = person.run_with(&["doctor"], &site.environment());
    found.says_all(&[&format!("until {end}"), &format!("certwright throttles lift {id}")]);

    site.proxy().limit_domain("example.net", PAUSE.unsigned_abs());
    person.run(&["throttles", "lift", id]).succeeded();

    site.until(&path, |now| now["status"]["phase"] == "Ready").await;
    until("the end of it", async || held().await == json!([])).await;
}

/// Where the only throttle is.
fn throttle(listed: &Value) -> String {
    let [one] = &listed["items"].as_array().unwrap()[..] else { panic!("{listed}") };
    format!("/throttles/{}", one["id"].as_str().unwrap())
}

fn time(text: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().unwrap_or_else(|| panic!("no time: {text}")), &Rfc3339)
        .unwrap()
}
