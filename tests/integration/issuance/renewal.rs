//! When certificates are renewed, and what the CA may say about that (RFC 9773).

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{assert_key_signs_for, assert_ready, download};
use crate::support::databases;
use crate::support::fault_proxy::{Fault, Kind, Refusal, RetryAfter};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::site::Site;

/// Seconds that a certificate lives here: asked about within a twentieth, renewed by itself when half is
/// left, by the CA's wish not before a third is over.
const LIFE: i64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_is_chosen_once_shown_and_kept_over_a_restart() {
    let (_folder, mut site) = site().await;
    let tomorrow = window(time::Duration::days(1), time::Duration::days(2));
    site.proxy().suggest(&suggestion(&tomorrow, "https://ca.example/why"), Some("99999999"));
    let path = issue(&site, "chosen").await;

    let known = site.until(&path, |now| now["status"]["ari"]["chosenTime"].is_string()).await;

    let ari = &known["status"]["ari"];
    assert_eq!(ari["explanationURL"], "https://ca.example/why", "{ari}");
    let chosen = moment(&ari["chosenTime"]);
    assert!(
        chosen >= moment(&ari["suggestedWindow"]["start"])
            && chosen < moment(&ari["suggestedWindow"]["end"])
    );
    let pause = moment(&ari["nextCheck"]) - moment(&ari["lastChecked"]);
    let about_a_day = time::Duration::minutes(1439)..=time::Duration::days(1);
    assert!(about_a_day.contains(&pause), "whatever Retry-After says: {pause}");
    let end = moment(&known["status"]["notAfter"]);
    let emergency = end - moment(&known["status"]["renewalTime"]);
    let twentieth = time::Duration::seconds(LIFE / 20);
    assert!((emergency - twentieth).abs() <= time::Duration::SECOND, "{emergency}");

    site.stop().await;
    site.start_again().await;
    let again = site.get(&path).await.body;
    assert_eq!(
        (&again["status"]["ari"], &again["status"]["renewalTime"]),
        (ari, &known["status"]["renewalTime"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_is_over_renews_early_but_never_in_a_storm() {
    let (_folder, site) = site().await;
    let over = window(-time::Duration::days(2), -time::Duration::days(1));
    site.proxy().suggest(&suggestion(&over, ""), Some("0"));
    let path = issue(&site, "early").await;
    // The next one is left in peace like the first.
    for revision in 1..=2 {
        let asked = |now: &Value| {
            now["status"]["revision"] == revision && now["status"]["ari"]["chosenTime"].is_string()
        };
        let status = site.until(&path, asked).await["status"].clone();
        let early = moment(&status["renewalTime"]) - moment(&status["notBefore"]);
        assert!(early >= time::Duration::seconds(LIFE / 3 - 1), "{early}: not at once");
        assert!(early < time::Duration::seconds(LIFE / 2), "{early}: before its own schedule");
        if revision == 1 {
            site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
        }
    }
    let renewed = site.get(&path).await.body;
    let order = site.get(renewed["status"]["order"].as_str().unwrap()).await.body;
    assert!(order["replaces"].as_str().unwrap().contains('.'), "{order}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_said_about_a_replacement_costs_one_order_and_no_failed_attempt() {
    let (_folder, site) = site().await;
    site.proxy()
        .suggest(&suggestion(&window(time::Duration::days(1), time::Duration::days(2)), ""), None);
    let path = issue(&site, "replaced").await;
    let refusals =
        [(409, "alreadyReplaced"), (404, "malformed"), (403, "unauthorized"), (400, "malformed")];
    for (revision, (status, kind)) in (2..).zip(refusals) {
        site.until(&path, |now| now["status"]["ari"]["lastChecked"].is_string()).await;
        site.proxy().refuse_replacements(status, kind);

        site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

        let renewed = site.until(&path, |now| now["status"]["revision"] == revision).await;
        assert_ready(&renewed);
        assert_eq!(site.proxy().faults(Fault::Replacement), revision - 1, "{status} {kind}: once");
        let order = site.get(renewed["status"]["order"].as_str().unwrap()).await.body;
        assert!(order["replaces"].is_null(), "{order}");
    }
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(events.contains("ReplacementRefused"), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_front_end_that_fails_says_nothing_of_what_is_replaced() {
    let (_folder, site) = site().await;
    let path = issue_within_its_window(&site, "hiccup").await;
    let page =
        Refusal { status: 503, html: true, form: RetryAfter::Seconds, pause: Duration::ZERO };
    site.proxy().refuse(Kind::NewOrder, &[page]);

    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;
    let order = site.get(renewed["status"]["order"].as_str().unwrap()).await.body;
    assert!(order["replaces"].is_string(), "{order}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_the_ca_does_not_count_tries_once_although_others_were_told_to_wait() {
    let (_folder, site) = site().await;
    let path = issue_within_its_window(&site, "exempt").await;
    let proxy = site.proxy();
    proxy.limit_domain("example.com", Duration::from_hours(26));
    let (names, later) = (&["new.example.com"], &json!({}));
    site.ask_for("minute", names, later, 0).await.expect_status(202);
    until("the CA has enough", async || proxy.faults(Fault::Limited) == 1).await;

    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let told = |now: &Value| now["status"]["lastError"]["httpStatus"] == 429;
    site.until(&path, told).await;
    assert_eq!(proxy.faults(Fault::Limited), 2, "it was asked, and then waits like the others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_the_ca_does_not_count_gets_through_while_others_wait() {
    let (_folder, site) = site().await;
    let path = issue_within_its_window(&site, "exempt").await;
    let proxy = site.proxy();
    // What is said of this name is about all below the registered domain, the exempt one's too.
    proxy.limit_domain("new.example.com", Duration::from_hours(26));
    let ask_for = async |name| {
        let asked = site.ask_for("minute", &[name], &json!({}), 0).await.expect_status(202);
        let path = format!("/certificates/{}", asked["id"].as_str().unwrap());
        let waits = |now: &Value| now["status"]["lastError"]["code"] == "acme_rate_limited";
        (path.clone(), site.until(&path, waits).await)
    };
    let (waiting, _) = ask_for("new.example.com").await;
    let orders = proxy.requests(Kind::NewOrder);

    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);

    let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;
    assert_ready(&renewed);
    let order = site.get(renewed["status"]["order"].as_str().unwrap()).await.body;
    assert!(order["replaces"].is_string(), "{order}");
    let held = site.get("/throttles").await.body;
    assert_eq!(held["items"][0]["limit"]["of"], "example.com", "it holds all the while: {held}");
    let (_, other) = ask_for("other.example.com").await;
    assert_eq!(other["status"]["lastError"]["httpStatus"], Value::Null, "told without a call");
    assert_eq!(proxy.requests(Kind::NewOrder), orders + 1, "only the exempt one was sent");
    assert_eq!(site.get(&waiting).await.body["status"]["revision"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_makes_no_sense_is_said_and_changes_nothing() {
    let (_folder, site) = site().await;
    for (name, text) in [
        ("html", "<html>".to_owned()),
        ("inverted", suggestion(&window(time::Duration::days(2), time::Duration::days(1)), "")),
    ] {
        site.proxy().suggest(&text, Some("Tue, 01 Jan 2030 00:00:00 GMT"));
        let path = issue(&site, name).await;

        let known = site.until(&path, |now| now["status"]["ari"]["lastError"].is_object()).await;

        let status = &known["status"];
        assert_eq!(status["phase"], "Ready", "{name}: {status}");
        assert!(status["ari"]["suggestedWindow"].is_null(), "{name}: {status}");
        let left = moment(&status["notAfter"]) - moment(&status["renewalTime"]);
        assert!(
            left > time::Duration::seconds(LIFE / 2 - LIFE / 20 - 1),
            "{name}: by its own schedule, {left}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_want_renewal_information_does_not_ask_for_it() {
    let (_folder, site) = site().await;
    let more = json!({"profile": "default", "renewalInformationSource": "None"});
    site.create_issuer("silent", &json!([site.dns_solver()]), &more).await;
    let issued = site.issue("silent", &["silent.example.com"]).await;
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());

    // Another one, which does.
    let asking = issue(&site, "asking").await;
    site.until(&asking, |now| now["status"]["ari"]["lastChecked"].is_string()).await;

    assert_eq!(site.proxy().requests(Kind::RenewalInfo), 1);
    let ari = site.get(&path).await.body["status"]["ari"].clone();
    for nothing in ["suggestedWindow", "lastChecked", "lastError"] {
        assert!(ari[nothing].is_null(), "{nothing}: {ari}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_key_that_does_not_fit_any_more_is_replaced_and_that_is_said() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let more =
        json!({"privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"}});
    let issued = site.ask_for("dns", &["kept.example.com"], &more, 60).await.expect_status(202);
    let path = format!("/certificates/{}", issued["id"].as_str().unwrap());
    let first = download(&site, &issued, "privkey.pem").await;

    site.post(&format!("{path}/renew"), &json!({})).await.expect_status(202);
    let renewed = site.until(&path, |now| now["status"]["revision"] == 2).await;
    assert_eq!(download(&site, &renewed, "privkey.pem").await, first, "Never means never");

    let wish = json!({"privateKey": {"algorithm": "RSA", "size": 2048}});
    site.patch(&path, &wish).await.expect_status(200);
    let changed = site.until(&path, |now| now["status"]["revision"] == 3).await;
    let key = download(&site, &changed, "privkey.pem").await;
    assert_ne!(key, first);
    assert_key_signs_for(&key, &download(&site, &changed, "fullchain.pem").await);
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(events.contains("PrivateKeyReplaced"), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preferred_chain_is_served_where_the_ca_offers_it() {
    let (_folder, url) = databases::sqlite_url();
    let pebble = PebbleOptions { alternate_roots: 2, ..Default::default() };
    let site = Site::through_proxy(&url, pebble).await;
    let root = site.pebble.alternate_root_pem(2).await;
    let (_, root) = x509_parser::pem::parse_x509_pem(root.as_bytes()).unwrap();
    let root = root.parse_x509().unwrap();
    let name = root.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    for (issuer, preferred) in [("other-root", name.as_str()), ("no-root", "Nobody")] {
        let solvers = json!([site.dns_solver()]);
        site.create_issuer(issuer, &solvers, &json!({"preferredChain": preferred})).await;
    }

    let issued = site.issue("other-root", &["chain.example.com"]).await;
    assert_ready(&issued);
    let chain = download(&site, &issued, "fullchain.pem").await;
    let top = x509_parser::pem::Pem::iter_from_buffer(chain.as_bytes()).last().unwrap().unwrap();
    let top = top.parse_x509().unwrap();
    assert_eq!(top.issuer().iter_common_name().next().unwrap().as_str().unwrap(), name);
    assert_key_signs_for(&download(&site, &issued, "privkey.pem").await, &chain);

    let usual = site.issue("no-root", &["usual.example.com"]).await;
    assert_ready(&usual);
    let events = site.get("/events?limit=500").await.body.to_string();
    assert!(events.contains("PreferredChainNotUsed"), "{events}");
}

/// Certificates that are renewed when more than a minute of their life is left, through orderly restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_minutes_are_always_valid_through_restarts() {
    let (_folder, url) = databases::sqlite_url();
    let pebble = PebbleOptions { validity: Some(100), nonce_reject: 5, ..Default::default() };
    let mut site = Site::through_proxy(&url, pebble).await;
    let more = json!({"profile": "default", "renewalInformationSource": "None"});
    site.create_issuer("minute", &json!([site.dns_solver()]), &more).await;
    let mut paths = Vec::new();
    for n in 0..4 {
        let (name, more) = (format!("soak-{n}.example.com"), json!({"renewBefore": "66s"}));
        let issued = site.ask_for("minute", &[&name], &more, 240).await.expect_status(202);
        assert_ready(&issued);
        paths.push(format!("/certificates/{}", issued["id"].as_str().unwrap()));
    }

    let mut renewed = 0;
    while renewed < paths.len() {
        site.stop().await;
        site.start_again().await;
        for _ in 0..10 {
            renewed = 0;
            for path in &paths {
                let seen = site.get(path).await.body;
                let left = moment(&seen["status"]["notAfter"]) - now();
                assert!(left.is_positive(), "not valid any more: {seen:#}");
                renewed += usize::from(seen["status"]["revision"].as_i64().unwrap() > 1);
            }
            tick().await;
        }
    }
    for path in &paths {
        let seen = site.get(path).await.body;
        assert!(download(&site, &seen, "fullchain.pem").await.contains("BEGIN CERTIFICATE"));
    }
}

/// A site through a proxy, whose issuer `minute` gives out certificates that live for [`LIFE`].
async fn site() -> (tempfile::TempDir, Site) {
    let (folder, url) = databases::sqlite_url();
    let validity = Some(u64::try_from(LIFE).unwrap());
    let site = Site::through_proxy(&url, PebbleOptions { validity, ..Default::default() }).await;
    let profile = json!({"profile": "default"});
    site.create_issuer("minute", &json!([site.dns_solver()]), &profile).await;
    (folder, site)
}

/// Issues a certificate from `minute`; where it is.
async fn issue(site: &Site, name: &str) -> String {
    let issued = site.issue("minute", &[&format!("{name}.example.com")]).await;
    assert_ready(&issued);
    format!("/certificates/{}", issued["id"].as_str().unwrap())
}

/// Issues a certificate that the CA suggests to replace about now.
async fn issue_within_its_window(site: &Site, name: &str) -> String {
    let around_now = window(-time::Duration::days(1), time::Duration::days(1));
    site.proxy().suggest(&suggestion(&around_now, ""), None);
    let path = issue(site, name).await;
    site.until(&path, |now| now["status"]["ari"]["lastChecked"].is_string()).await;
    path
}

fn window(start: time::Duration, end: time::Duration) -> (String, String) {
    let at = |after: time::Duration| (now() + after).format(&Rfc3339).unwrap();
    (at(start), at(end))
}

fn suggestion((start, end): &(String, String), page: &str) -> String {
    json!({"suggestedWindow": {"start": start, "end": end}, "explanationURL": page}).to_string()
}

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap_or_else(|| panic!("no time: {value}")), &Rfc3339)
        .unwrap()
}

fn now() -> OffsetDateTime {
    certwright::clock::Clock::now(&certwright::clock::SystemClock)
}

#[expect(clippy::disallowed_methods, reason = "a client that looks again does sleep")]
async fn tick() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}
