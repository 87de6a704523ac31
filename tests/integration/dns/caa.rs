//! CAA records are looked at before the CA is asked: by real questions to a name server.

use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::caa::{RelevantSet, Unknown};
use certwright::domain::issuer::Kind;
use certwright::solver::Age;
use serde_json::{Value, json};
use time::Duration;

use super::solvers;
use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::fault_proxy::Kind as Asked;
use crate::support::pebble::PebbleOptions;
use crate::support::person::Person;
use crate::support::postgres::fresh_database;
use crate::support::site::{Site, SiteOptions};

const CA: &str = "ca.example";

#[tokio::test]
async fn an_order_that_caa_forbids_is_not_placed_until_the_records_change_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    forbidden(&url).await;
}

#[tokio::test]
async fn an_order_that_caa_forbids_is_not_placed_until_the_records_change_on_postgres() {
    forbidden(&fresh_database().await).await;
}

async fn forbidden(database: &str) {
    let driven = Driven::called(database, CA).await;
    driven.cloudflare.set_caa("example.com", &[(0, "issue", "other.example")]);
    driven.ask_for("web").await;
    let blocked = until_blocked(&driven).await;

    let account = account(&driven).await;
    let allowing = format!("web.example.com. CAA 0 issue \"{CA}; accounturi={account}\"");
    let error = &blocked["status"]["lastError"];
    assert_eq!((&error["code"], &error["class"]), (&json!("caa_forbids"), &json!("blocked")));
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("at example.com stands `0 issue \"other.example\"`"), "{detail}");
    assert!(detail.contains(&allowing), "{detail}");
    let path = format!("/certificates/{}/explain", blocked["id"].as_str().unwrap());
    let explained = driven.world.get(&path).await.json();
    assert_eq!(explained["doing"], "blocked");
    let words = explained["summary"].as_str().unwrap();
    assert!(words.contains("do not let the CA issue for web.example.com"), "{words}");
    let next = explained["next"]["what"].as_str().unwrap();
    assert!(next.contains("CAA records are looked up again"), "{next}");

    let end = driven.world.now() + Duration::hours(2);
    while driven.world.now() < end {
        driven.world.clock.advance(Duration::minutes(5));
        driven.step().await;
    }
    assert_eq!(driven.proxy.requests(Asked::NewOrder), 0, "the CA is not asked");
    let asked = driven.cloudflare.caa_asked("example.com");
    assert!((4..=20).contains(&asked), "{asked} questions in two hours");

    let only_us = format!("{CA}; accounturi={account}; validationmethods=dns-01");
    driven.cloudflare.set_caa("example.com", &[(0, "issue", &only_us)]);
    driven.world.clock.advance(Duration::minutes(33));
    driven.until_all_ready().await;
    assert_eq!(driven.proxy.requests(Asked::NewOrder), 1);
}

#[tokio::test]
async fn what_allows_the_ca_is_remembered_for_an_hour_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    remembered(&url).await;
}

#[tokio::test]
async fn what_allows_the_ca_is_remembered_for_an_hour_on_postgres() {
    remembered(&fresh_database().await).await;
}

async fn remembered(database: &str) {
    let driven = Driven::called(database, CA).await;
    driven.cloudflare.set_caa("example.com", &[(0, "issue", CA)]);
    for (name, asked) in [("a", 1), ("b", 1)] {
        driven.ask_for(name).await;
        driven.until_all_ready().await;
        assert_eq!(driven.cloudflare.caa_asked("example.com"), asked, "{name}");
    }
    driven.world.clock.advance(Duration::minutes(61));
    driven.ask_for("c").await;
    driven.until_all_ready().await;
    let asked = ["c.example.com", "example.com"].map(|name| driven.cloudflare.caa_asked(name));
    assert_eq!(asked, [1, 2]);
}

#[tokio::test]
async fn a_look_up_that_fails_stops_nothing_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    unknown(&url).await;
}

#[tokio::test]
async fn a_look_up_that_fails_stops_nothing_on_postgres() {
    unknown(&fresh_database().await).await;
}

/// Nothing stands at `example.com`, and the name server refuses to say what stands at `com`.
async fn unknown(database: &str) {
    let driven = Driven::called(database, CA).await;
    driven.ask_for("web").await;
    driven.until_all_ready().await;
    assert!(driven.cloudflare.caa_asked("example.com") > 0, "it was asked");
}

#[tokio::test]
async fn the_records_that_count_are_the_first_on_the_way_to_the_root() {
    let world = solvers::World::with_zones(&["example.com", "example.org"]).await;
    let dns = &world.cloudflare;
    dns.set_caa("example.com", &[(0, "issue", CA)]);
    dns.set_caa("sub.example.com", &[(128, "issuewild", ";")]);
    dns.set_caa("there.example.org", &[(0, "iodef", "mailto:a@example.org")]);
    dns.set_caa("example.org", &[(0, "issue", "other.example")]);
    dns.set_cname("alias.sub.example.com", "there.example.org");
    dns.set_cname("empty.sub.example.com", "nothing.example.org");

    for (name, at, record) in [
        ("example.com", "example.com", "0 issue \"ca.example\""),
        ("a.b.c.example.com", "example.com", "0 issue \"ca.example\""),
        ("a.sub.example.com", "sub.example.com", "128 issuewild \";\""),
        // Records at the end of a CNAME count for the name itself, and those above its end for nobody.
        ("alias.sub.example.com", "alias.sub.example.com", "0 iodef \"mailto:a@example.org\""),
        ("empty.sub.example.com", "sub.example.com", "128 issuewild \";\""),
    ] {
        let found = relevant(&world, name).await.unwrap().expect("there are records");
        assert_eq!(found.at, at, "{name}");
        assert_eq!(found.records[0].to_string(), record, "{name}");
    }
    let Unknown::Silent(why) = relevant(&world, "example.net").await.unwrap_err() else {
        panic!("a refusal says nothing about DNSSEC");
    };
    assert!(why.contains("the CAA records of example.net are not known"), "{why}");
}

#[tokio::test]
async fn dnssec_is_to_blame_only_where_an_answer_comes_that_is_not_validated() {
    let world = solvers::World::with_zones(&["example.com"]).await;
    world.cloudflare.set_caa("example.com", &[(0, "issue", CA)]);
    world.cloudflare.set_bogus("bogus.example.com");
    world.cloudflare.set_bogus("down.example.com");
    world.cloudflare.answer_nothing("down.example.com");

    for name in ["bogus.example.com", "a.bogus.example.com"] {
        let found = relevant(&world, name).await;
        let is_bogus = found == Err(Unknown::Bogus("bogus.example.com".into()));
        assert!(is_bogus, "{name}: {found:?}");
    }
    let down = relevant(&world, "down.example.com").await;
    assert!(matches!(down, Err(Unknown::Silent(_))), "{down:?}");
}

#[tokio::test]
async fn broken_dnssec_is_told_and_left_to_the_ca_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    bogus(&url).await;
}

#[tokio::test]
async fn broken_dnssec_is_told_and_left_to_the_ca_on_postgres() {
    bogus(&fresh_database().await).await;
}

async fn bogus(database: &str) {
    let driven = Driven::called(database, CA).await;
    driven.cloudflare.set_bogus("web.example.com");
    driven.cloudflare.forbid_edits("example.com");
    driven.ask_for("web").await;
    let blocked = until_blocked(&driven).await;

    assert_eq!(driven.proxy.requests(Asked::NewOrder), 1, "the CA decides");
    let path = format!("/certificates/{}", blocked["id"].as_str().unwrap());
    let words = "DNSSEC validation fails for web.example.com";
    let explained = driven.world.get(&format!("{path}/explain")).await.json();
    let actions = explained["actions"].as_array().unwrap();
    assert!(actions.iter().any(|one| one.as_str().unwrap().contains(words)), "{actions:?}");
    let events = driven.world.get("/events?limit=500").await.json();
    let told = events["items"].as_array().unwrap().iter();
    let told: Vec<_> = told.filter(|one| one["reason"] == "DNSSECFails").collect();
    assert_eq!(told.len(), 1, "{events}");
    assert!(told[0]["message"].as_str().unwrap().contains(words), "{told:?}");
}

async fn relevant(world: &solvers::World, name: &str) -> Result<Option<RelevantSet>, Unknown> {
    let age = Age::Lately(SystemClock.now());
    world.solvers.caa(Kind::ClusterIssuer, None, name, age).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_and_doctor_warn_of_what_caa_forbids_and_of_broken_dnssec_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    warned(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_and_doctor_warn_of_what_caa_forbids_and_of_broken_dnssec_on_postgres() {
    warned(&fresh_database().await).await;
}

async fn warned(database: &str) {
    let port = crate::support::free_port();
    let pebble = PebbleOptions { caa_identities: vec![CA.into()], ..PebbleOptions::default() };
    let responder = ([127, 0, 0, 1], port).into();
    let options = SiteOptions { pebble, http01_port: port, responder };
    let site = Site::with(database, options).await;
    site.ready("dns").await;
    site.cloudflare.set_caa("example.com", &[(0, "issuewild", ";"), (0, "issue", CA)]);
    site.cloudflare.set_bogus("bogus.example.com");
    let person = Person::of(&site);
    let manifest = |name: &str, dns_name: &str| {
        json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name},
            "spec": {"secretName": name, "dnsNames": [dns_name],
                "issuerRef": {"name": "dns", "kind": "ClusterIssuer"}}})
    };
    let items =
        [("plain", "plain.example.com"), ("wild", "*.example.com"), ("bogus", "bogus.example.com")];
    let items = items.map(|(name, dns_name)| manifest(name, dns_name));
    let all = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let file = person.path("certificates.json");
    std::fs::write(&file, all.to_string()).unwrap();
    let file = file.display().to_string();

    for more in [&["--dry-run"][..], &[]] {
        let applied = person.run(&[&["apply", "-f", &file], more].concat()).succeeded();
        let warning = "at example.com stands `0 issuewild \";\"`, which does not name the CA";
        assert!(
            applied.everything().contains(&format!("For *.example.com: {warning}")),
            "{applied:?}"
        );
        assert!(!applied.everything().contains("For plain"), "{applied:?}");
        let warning = "DNSSEC validation fails for bogus.example.com";
        assert!(applied.everything().contains(warning), "{applied:?}");
    }
    let blocked = |found: &Value| {
        let all = found["items"].as_array().unwrap();
        all.iter().any(|one| one["name"] == "wild" && one["status"]["phase"] == "Blocked")
    };
    site.until("/certificates?limit=500", blocked).await;

    let looked = person.run_with(&["doctor"], &site.environment());
    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&[
        "fail  CAA of certificate default/wild: For *.example.com: at example.com stands",
        "`example.com. CAA 0 issuewild \"ca.example; accounturi=",
        "`certwright renew wild -n default` tries at once then",
        "fail  DNSSEC of certificate default/bogus: DNSSEC validation fails for bogus.example.com",
    ]);
    assert!(!looked.out.contains("CAA of certificate default/plain"), "{looked:?}");
}

async fn account(driven: &Driven) -> String {
    let issuer = driven.world.get(&driven.issuer).await.json();
    issuer["status"]["acme"]["uri"].as_str().unwrap().to_owned()
}

async fn until_blocked(driven: &Driven) -> Value {
    for _ in 0..100 {
        driven.step().await;
        let all = driven.world.certificates().await;
        if all[0]["status"]["phase"] == "Blocked" {
            return all[0].clone();
        }
        driven.pass().await;
    }
    panic!("it is not blocked: {:#?}", driven.world.certificates().await);
}
