//! The log says who is in trouble, once, and nothing alarming where nobody is.

use std::fs;

use certwright::domain::backoff::Jitter;
use certwright::domain::certificate::{Certificate, Issued, Transition};
use certwright::domain::failure::{Code, Failure, code};
use certwright::domain::order::Outcome;
use certwright::storage::Scope;
use certwright::storage::lease::{self, Machine};
use certwright::worker::look_at_expiry;
use rustix::process::Signal;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::installation::{Database, Installation};
use crate::support::log::Log;
use crate::support::patience::until;
use crate::support::receiver::Reply;
use crate::support::world::{World, id, on_every_database};
use crate::webhooks::{hooked, issued};

/// Longer than any line of an undisturbed run.
const LONGEST_LINE: usize = 1_000;

on_every_database! {
    async fn a_certificates_trouble_is_told_once_until_it_changes(world: World) {
        world.create_issuer().await;
        let web = id(&world.create_certificate("web").await);
        let log = Log::begin();

        for code in [code::ACME_DNS, code::ACME_DNS, code::ACME_CAA, code::ACME_CAA, code::ACME_DNS] {
            world.db_let(&web, |found| failed(found, code, world.now())).await;
        }
        let blocked = Outcome::Blocked(Failure::of(code::ACME_REJECTED_IDENTIFIER, "Not this one."));
        for _ in 0..2 {
            let blocked = blocked.clone();
            world.db_let(&web, |found| found.order_failed(blocked, 0, world.now(), Jitter::NONE)).await;
        }
        world.db_let(&web, |found| served(found, world.now())).await;

        assert_eq!(log.told(), [
            "WARN acme_dns the certificate could not be issued, and is tried again",
            "WARN acme_caa the certificate could not be issued, and is tried again",
            "WARN acme_dns the certificate could not be issued, and is tried again",
            "WARN acme_rejected_identifier the certificate waits for a changed certificate, issuer or secret",
            "INFO - the certificate was issued",
            "INFO - the certificate has recovered",
        ]);
        let first = &log.lines()[0];
        for words in ["certificate=\"default/web\"", "issuer=\"ClusterIssuer/le\"", "There was no record.", "next_attempt=\"2026-11-24T13:00:00Z\""] {
            assert!(first.contains(words), "{words}: {first}");
        }
    }

    async fn what_is_undone_is_not_told(world: World) {
        world.create_issuer().await;
        let web = id(&world.create_certificate("web").await);
        let log = Log::begin();

        let mut tx = world.db.begin();
        let key = certwright::domain::id::CertificateId(web.parse().unwrap());
        let found = certwright::storage::certificates::find(&mut tx, key, &Scope::Everything).await.unwrap();
        let (found, lease) = found.unwrap();
        let next = failed(found, code::ACME_DNS, world.now());
        certwright::storage::certificates::save(&mut tx, &next, &lease, None).await.unwrap();
        drop(tx);

        assert!(log.told().is_empty(), "{:?}", log.told());
    }

    async fn what_is_about_to_end_is_a_warning_and_its_end_an_error(world: World) {
        world.create_issuer().await;
        let web = id(&world.create_certificate("web").await);
        let order = world.db_order(&web).await;
        world.db_issue(&order).await;
        let now = world.now();
        world.db_let(&web, |found| failed(found, code::ACME_DNS, now)).await;
        let log = Log::begin();

        for days in [61, 14, 12, 4] {
            world.clock.advance(Duration::days(days));
            let mut tx = world.db.begin();
            let due = lease::claim(&mut tx, Machine::Expiry, "test", world.now(), 10).await.unwrap();
            tx.commit().await.unwrap();
            for lease in due {
                look_at_expiry(&world.db, lease, world.now()).await.unwrap();
            }
        }

        let levels: Vec<_> = log.told().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(levels, ["WARN", "WARN", "WARN", "ERROR"], "{:?}", log.lines());
        let last = log.lines().pop().unwrap();
        assert!(last.contains("default/web") && last.contains("There was no record."), "{last}");
    }

    async fn an_issuer_is_told_of_when_it_fails_and_when_it_is_ready(world: World) {
        world.create_issuer().await;
        let (log, now) = (Log::begin(), world.now());

        for code in [code::ACME_UNAVAILABLE, code::ACME_UNAVAILABLE, code::ACME_TIMEOUT] {
            world.db_let_issuer(|found| found.not_registered(Failure::of(code, ""), now, Jitter::NONE)).await;
        }
        world.db_register().await;

        assert_eq!(log.told(), [
            "WARN acme_unavailable the issuer is not ready",
            "WARN acme_timeout the issuer is not ready",
            "INFO - the issuer is ready",
        ]);
    }

    async fn a_webhook_is_told_of_when_it_fails_for_good_and_when_it_has_recovered(world: World) {
        let (receiver, _) = hooked(&world, json!({})).await;
        receiver.usually_answers(Reply::Status(500));
        issued(&world, "web").await;
        let log = Log::begin();

        for minutes in [0, 1, 10, 60] {
            world.clock.advance(Duration::minutes(minutes));
            world.deliver().await;
        }
        receiver.usually_answers(Reply::Status(204));
        world.clock.advance(Duration::hours(5));
        world.deliver().await;

        let told = log.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("WARN - It does not take messages: it answered 500"), "{told:?}");
        assert!(told[1].starts_with("INFO - It takes messages again"), "{told:?}");
    }
}

#[tokio::test]
async fn a_calm_run_has_nothing_alarming_in_its_log_on_sqlite() {
    assert_calm(Database::Sqlite).await;
}

#[tokio::test]
async fn a_calm_run_has_nothing_alarming_in_its_log_on_postgres() {
    assert_calm(Database::Postgres).await;
}

async fn assert_calm(database: Database) {
    const MANY: usize = 100;
    let mut installation = Installation::on(database).await;
    // A busy machine is no replica that has fallen silent.
    installation.set("WORKER_LEASE", "2m");
    let mut program = installation.start().await;
    installation.set_up(&program).await;
    for n in 0..MANY {
        installation.ask_for(&program, &format!("calm-{n}")).await.unwrap();
    }
    installation.until_all_ready(&mut program, MANY).await;

    let log = program.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    for (line, text) in lines.iter().zip(log.lines()) {
        assert_eq!(line["level"], "INFO", "{text}");
        assert!(text.len() <= LONGEST_LINE, "{text}");
    }
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
    assert_eq!(of("the certificate was issued"), MANY);
    assert_eq!(of("the issuer is ready"), 1);
    let request = lines.iter().find(|line| line["span"]["path"] == "/certificates").unwrap();
    assert_eq!(request["principal"], "API key `bootstrap`", "{request}");
    assert!(request["span"]["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{request}");
}

#[tokio::test]
async fn the_level_is_read_again_with_a_hangup() {
    let mut installation = Installation::on(Database::Sqlite).await;
    let file = installation.file("settings.toml");
    installation.set("CONFIG", file.to_str().unwrap());
    fs::write(&file, "[log]\nlevel = \"warn\"\n").unwrap();
    let program = installation.start().await;
    assert_eq!(program.log(), "", "nothing alarming");

    let read_again = async |level: &str, told: &str| {
        fs::write(&file, format!("[log]\nlevel = \"{level}\"\n")).unwrap();
        program.send(Signal::HUP);
        until(told, async || program.log().contains(told)).await;
    };
    read_again("debug", "the level of the log was read again").await;
    installation.get(&program, "/whoami").await.unwrap();
    assert!(program.log().contains("\"DEBUG\""), "{}", program.log());

    read_again("certwright=loud", "the level of the log stays as it was").await;
    assert!(program.log().contains("log.level = \\\"certwright=loud\\\""), "{}", program.log());
    installation.get(&program, "/whoami").await.unwrap();
}

#[tokio::test]
async fn a_failed_certificate_is_one_warning_with_the_providers_words() {
    let installation = Installation::on(Database::Sqlite).await;
    let mut program = installation.start().await;
    installation.set_up(&program).await;
    let foreign = json!({"name": "foreign", "issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "dnsNames": ["www.elsewhere.test"]});
    installation.post(&program, "/certificates", &foreign).await.unwrap();
    let is_blocked = |found: &Value| found["items"][0]["status"]["phase"] == "Blocked";
    installation.until(&mut program, "/certificates", is_blocked).await;

    let log = program.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let alarming: Vec<_> = lines.filter(|line| line["level"] != "INFO").collect();

    let [warning] = &alarming[..] else { panic!("{alarming:#?}") };
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["certificate"], "default/foreign");
    assert_eq!(warning["issuer"], "ClusterIssuer/dns");
    assert_eq!(warning["code"], "cloudflare_zone_not_found");
    assert!(warning["failure"].as_str().unwrap().contains("elsewhere.test"), "{warning}");
    assert!(warning["next_attempt"].as_str().unwrap().ends_with('Z'), "{warning}");
}

fn failed(found: Certificate, code: Code, now: OffsetDateTime) -> Transition {
    let failure = Failure::of(code, "There was no record.");
    found.order_failed(Outcome::Failed(failure), 0, now, Jitter::NONE)
}

fn served(found: Certificate, now: OffsetDateTime) -> Transition {
    let issued = Issued {
        revision: 1,
        serial: "0abc".into(),
        not_before: now,
        not_after: now + Duration::days(90),
        renewal_time: now + Duration::days(60),
    };
    found.issued(issued, None, now)
}
