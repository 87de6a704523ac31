//! Readiness: each check, since when, and that what is wrong outside takes nobody out of service.

use std::sync::Arc;

use certwright::health::{Health, Subjects};
use certwright::secret::{Place, Sealer};
use certwright::storage::settings;
use serde_json::Value;
use time::Duration;

use crate::support::databases;
use crate::support::driven::Driven;
use crate::support::postgres::fresh_database;
use crate::support::world::{World, on_every_database};

on_every_database! {
    async fn an_instance_that_can_work_says_so_of_each_part(world: World) {
        let ready = world.get("/readyz").await;

        assert_eq!(ready.status, 200, "{}", ready.text);
        let body = ready.json();
        let mut names: Vec<_> = checks(&body).iter().map(|check| check["name"].as_str().unwrap()).collect();
        names.retain(|name| *name != "disk");
        assert_eq!(names, ["database", "schema", "masterKey", "writes", "paused", "listeners", "worker", "outside", "clock"]);
        for check in checks(&body) {
            assert_eq!((&check["ok"], &check["blocks"], &check["why"]), (&true.into(), &false.into(), &Value::Null), "{check}");
        }
    }

    async fn a_database_that_is_away_is_told_with_its_time_and_so_is_its_return(world: World) {
        let before = world.get("/readyz").await.json();
        world.clock.advance(Duration::minutes(5));
        let later = world.get("/readyz").await.json();
        assert_eq!(check(&later, "database"), check(&before, "database"), "nothing has changed meanwhile");

        world.db.close().await;
        let away = world.get("/readyz").await.is_problem(503, "unavailable");

        let database = check(&away, "database");
        assert_eq!((&database["ok"], &database["blocks"]), (&false.into(), &true.into()), "{database}");
        assert_eq!(database["since"], "2026-11-24T12:05:00Z");
        assert_eq!(away["detail"], database["why"]);
        assert!(!away.to_string().contains("sqlx") && !away.to_string().contains("certwright.db"), "{away}");
    }

    async fn secrets_under_another_master_key_are_trouble(world: World) {
        let sealed = world.sealer.seal(&key_check(), b"certwright").unwrap();
        put(&world, &sealed.0).await;
        assert_eq!(world.get("/readyz").await.status, 200, "it is ours");

        let other = Sealer::from_text(&Sealer::generate().unwrap()).unwrap();
        put(&world, &other.seal(&key_check(), b"certwright").unwrap().0).await;

        let wrong = world.get("/readyz").await.is_problem(503, "unavailable");
        let key = check(&wrong, "masterKey");
        assert!(key["blocks"] == true && key["why"].as_str().unwrap().contains("another master key"), "{key}");
    }

    async fn whoever_asks_meanwhile_has_the_last_looks_result(world: World) {
        let health = Health::fresh_for(subjects(&world), std::time::Duration::from_hours(1));
        let first = health.report().await;
        world.db.close().await;

        assert!(first.is_ready());
        assert!(Arc::ptr_eq(&health.report().await, &first), "there was no other look");
        assert!(!Health::new(subjects(&world)).report().await.is_ready());
    }
}

#[tokio::test]
async fn a_clock_that_differs_from_the_cas_is_shown_and_takes_nobody_out_of_service_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    wrong_clock(&url).await;
}

#[tokio::test]
async fn a_clock_that_differs_from_the_cas_is_shown_and_takes_nobody_out_of_service_on_postgres() {
    wrong_clock(&fresh_database().await).await;
}

async fn wrong_clock(database: &str) {
    let driven = Driven::on(database, &serde_json::json!({})).await;
    let world = &driven.world;
    let right = world.get("/readyz").await.json();
    assert_eq!(check(&right, "clock")["ok"], true, "{right}");

    world.clock.advance(Duration::days(2));
    driven.ask_for("late").await;
    driven.step().await;

    let wrong = world.get("/readyz").await;
    assert_eq!(wrong.status, 200, "{}", wrong.text);
    let clock = check(&wrong.json(), "clock");
    assert_eq!((&clock["ok"], &clock["blocks"]), (&false.into(), &false.into()), "{clock}");
    assert!(clock["why"].as_str().unwrap().contains("ahead of that of a CA"), "{clock}");
    let issuer = world.get(&driven.issuer).await;
    let listed = world.get("/issuers").await.json()["items"][0].clone();
    assert_eq!(issuer.json(), listed, "where one is read and where all are");
    let condition = &issuer.json()["status"]["conditions"][1];
    let says = |field: &str| condition[field].as_str().unwrap();
    assert_eq!(
        (says("type"), says("status"), says("reason")),
        ("ClockSkewed", "True", "ClockAhead")
    );
    let ours = format!("showed {}T", world.now().date());
    for words in [ours.as_str(), "ahead of it", "timedatectl"] {
        assert!(says("message").contains(words), "{words}: {condition}");
    }

    world.clock.advance(-Duration::days(2));
    driven.ask_for("right").await;
    driven.step().await;

    let mended = world.get(&driven.issuer).await;
    assert_eq!(
        mended.json()["status"]["conditions"].as_array().unwrap().len(),
        1,
        "{}",
        mended.text
    );
    assert_eq!(
        mended.header("etag"),
        issuer.header("etag"),
        "who changes the issuer need not know"
    );
    assert_eq!(check(&world.get("/readyz").await.json(), "clock")["ok"], true);
}

async fn put(world: &World, value: &[u8]) {
    let mut tx = world.db.begin();
    settings::put(&mut tx, "master_key_check", value).await.unwrap();
    tx.commit().await.unwrap();
}

fn subjects(world: &World) -> Subjects {
    Subjects {
        db: world.db.clone(),
        clock: world.clock.clone(),
        sealer: world.sealer.clone(),
        pulse: Arc::default(),
        lease: std::time::Duration::from_secs(15),
        authorities: world.authorities.clone(),
    }
}

fn checks(body: &Value) -> &[Value] {
    body["checks"].as_array().unwrap()
}

fn check(body: &Value, name: &str) -> Value {
    checks(body).iter().find(|check| check["name"] == name).unwrap().clone()
}

fn key_check() -> Place {
    Place::of_service("settings/value/master_key_check")
}
