//! The end of what is served is told, whatever becomes of its renewal.

use certwright::clock::SystemClock;
use certwright::config::{self, Config};
use certwright::domain::certificate::{Certificate, State, Trigger};
use certwright::domain::event_type::EventType;
use certwright::domain::expiry::{Renewal, Stage, Watch};
use certwright::domain::id::CertificateId;
use certwright::service;
use certwright::storage::lease::{self, Lease, Machine};
use certwright::storage::{Db, Scope, StorageError, certificates, expiry_watches, figures};
use certwright::worker::look_at_expiry;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

use crate::support::patience::within;
use crate::support::world::{World, id, on_every_database};
use crate::webhooks::hooked;

/// A certificate of 90 days, issued now, whose renewal is due after 60.
async fn issued(world: &World) -> CertificateId {
    if world.certificates().await.is_empty() {
        world.create_issuer().await;
    }
    let certificate = id(&world.create_certificate("web").await);
    let order = world.db_order(&certificate).await;
    world.db_issue(&order).await;
    CertificateId(certificate.parse().unwrap())
}

async fn claim(db: &Db, now: OffsetDateTime) -> Vec<Lease> {
    let mut tx = db.begin();
    let leases = lease::claim(&mut tx, Machine::Expiry, "test", now, 10).await.unwrap();
    tx.commit().await.unwrap();
    leases
}

/// Does what a worker does with its watches, until none is due.
async fn look(db: &Db, now: OffsetDateTime) {
    loop {
        let leases = claim(db, now).await;
        if leases.is_empty() {
            return;
        }
        for lease in leases {
            look_at_expiry(db, lease, now).await.unwrap();
        }
    }
}

async fn told(world: &World) -> Vec<(String, i64)> {
    let warnings = world.get("/events?type=Warning").await.json();
    let told = |event: &Value| {
        (event["reason"].as_str().unwrap().to_owned(), event["count"].as_i64().unwrap())
    };
    warnings["items"].as_array().unwrap().iter().map(told).collect()
}

fn failed(found: Certificate) -> Certificate {
    let next_action_at = found.next_action_at + Duration::days(365);
    Certificate { state: State::Backoff, failed_attempts: 3, next_action_at, ..found }
}

async fn watch(db: &Db, certificate: CertificateId) -> Option<Watch> {
    let mut tx = db.read().await.unwrap();
    expiry_watches::find(&mut tx, certificate).await.unwrap()
}

on_every_database! {
    async fn every_stage_is_told_once_across_restarts(world: World) {
        let certificate = issued(&world).await;
        world.db_change(&certificate.to_string(), failed).await;
        let begin = world.now();
        let mut expected = Vec::new();

        for (days, news) in [
            (59, None), (60, Some("Expiring")), (61, None), (74, None), (75, Some("Expiring")),
            (85, None), (86, Some("Expiring")), (89, None), (90, Some("Expired")), (200, None),
        ] {
            expected.extend(news.map(|reason| (reason.to_owned(), 1)));
            // Another process each time, and twice: nothing but the database remembers.
            for _ in 0..2 {
                let restarted = World::over(world.db.clone()).await;
                look(&restarted.db, begin + Duration::days(days)).await;
            }
            assert_eq!(told(&world).await, expected, "day {days}");
        }
        assert_eq!(watch(&world.db, certificate).await.unwrap().next_action_at, None);
    }

    async fn those_who_asked_are_told_once_per_stage(world: World) {
        let (receiver, _) = hooked(&world, json!({"events": ["certificate.expiring", "certificate.expired"]})).await;
        let certificate = issued(&world).await;
        world.db_change(&certificate.to_string(), failed).await;
        for days in [60, 1, 14, 11, 4, 1] {
            world.clock.advance(Duration::days(days));
            look(&world.db, world.now()).await;
            world.deliver().await;
        }

        let expiring = "certificate.expiring";
        assert_eq!(receiver.types(), [expiring, expiring, expiring, "certificate.expired"]);
    }

    async fn a_renewal_in_time_is_nobodys_news(world: World) {
        let certificate = issued(&world).await;
        let begin = world.now();

        look(&world.db, begin + Duration::days(60)).await;
        look(&world.db, begin + Duration::days(61)).await;
        assert_eq!(told(&world).await, []);

        look(&world.db, begin + Duration::hours(61 * 24 + 12)).await;
        assert_eq!(told(&world).await, [("Expiring".to_owned(), 1)], "a day and a half late");
        assert_eq!(watch(&world.db, certificate).await.unwrap().told, Some(Stage::Third));
        let mut read = world.db.read().await.unwrap();
        assert_eq!(figures::expiring(&mut read).await.unwrap(), [("third".to_owned(), 1)]);
        drop(read);
    }

    async fn a_new_revision_is_watched_anew_and_voids_a_look_under_way(world: World) {
        let certificate = issued(&world).await;
        world.db_change(&certificate.to_string(), failed).await;
        let day_60 = world.now() + Duration::days(60);
        let slow = claim(&world.db, day_60).await;
        let before = watch(&world.db, certificate).await.unwrap();

        let end = day_60 + Duration::days(90);
        let next = Watch::over(certificate, 2, day_60, end);
        let mut tx = world.db.begin();
        expiry_watches::arm(&mut tx, &next).await.unwrap();
        tx.commit().await.unwrap();
        let renewal = Renewal { due: day_60, failed_attempts: 3, last_error: None };
        let looked = before.look(&renewal, day_60);
        assert_eq!(looked.event_types, [EventType::CertificateExpiring]);
        let mut tx = world.db.begin();
        let (found, _) = certificates::find(&mut tx, certificate, &Scope::Everything).await.unwrap().unwrap();
        let late = expiry_watches::save(&mut tx, &looked, &found, &slow[0]).await;
        drop(tx);

        assert!(matches!(late, Err(StorageError::LeaseLost(_))), "{late:?}");
        assert_eq!(told(&world).await, []);
        assert_eq!(watch(&world.db, certificate).await, Some(next));
    }

    async fn an_order_under_way_is_neither_disturbed_nor_in_the_way(world: World) {
        let certificate = issued(&world).await;
        let ordering = |found| Certificate {
            state: State::Ordering(Trigger::Renewing), failed_attempts: 1, ..found
        };
        world.db_change(&certificate.to_string(), ordering).await;
        let day_76 = world.now() + Duration::days(76);
        let mut tx = world.db.begin();
        let held = lease::claim(&mut tx, Machine::Certificate, "busy", day_76, 1).await.unwrap();
        tx.commit().await.unwrap();

        look(&world.db, day_76).await;

        assert_eq!(told(&world).await, [("Expiring".to_owned(), 1)]);
        let mut tx = world.db.begin();
        lease::extend(&mut tx, &held[0], day_76).await.expect("the lease is still held");
    }

    async fn a_blocked_certificate_without_an_issuer_is_told_of_too(world: World) {
        let certificate = issued(&world).await;
        let blocked = |found| Certificate { state: State::Blocked, failed_attempts: 9, ..found };
        world.db_change(&certificate.to_string(), blocked).await;
        let mut tx = world.db.begin();
        let kind = certwright::domain::issuer::Kind::ClusterIssuer;
        let (issuer, _) = certwright::storage::issuers::find_by_name(&mut tx, kind, "", "le").await.unwrap().unwrap();
        certwright::storage::issuers::delete(&mut tx, issuer.id).await.unwrap();
        tx.commit().await.unwrap();

        look(&world.db, world.now() + Duration::days(91)).await;

        assert_eq!(told(&world).await, [("Expired".to_owned(), 1)]);
        let events = world.get("/events?reason=Expired").await.json();
        assert!(events.to_string().contains("9 attempts have failed"), "{events}");
    }

    async fn a_deleted_certificate_is_not_watched(world: World) {
        let certificate = issued(&world).await;
        assert_eq!(world.delete(&format!("/certificates/{certificate}")).await.status, 204);

        assert_eq!(watch(&world.db, certificate).await, None);
        assert_eq!(claim(&world.db, world.now() + Duration::days(91)).await, []);
    }

    async fn two_workers_do_not_look_at_the_same(world: World) {
        issued(&world).await;
        let later = world.now() + Duration::days(70);

        let (one, other) = tokio::join!(claim(&world.db, later), claim(&world.db, later));

        assert_eq!(one.len() + other.len(), 1);
        assert_eq!(claim(&world.db, later).await, [], "it is held");
    }
}

/// With nothing but what the program itself does.
#[tokio::test]
async fn a_running_service_tells_what_ended_while_it_was_down() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/certwright.db", folder.path().display());
    let world = World::on(&url).await;
    let certificate = issued(&world).await;
    let now = certwright::clock::Clock::now(&SystemClock);
    let ended = Watch::over(certificate, 1, now - Duration::days(91), now - Duration::days(1));
    let mut tx = world.db.begin();
    expiry_watches::arm(&mut tx, &ended).await.unwrap();
    tx.commit().await.unwrap();
    let mut news = world.db.signals().events();
    news.mark_unchanged();
    world.db.close().await;

    let settings = [
        ("data_dir", folder.path().display().to_string()),
        ("database.url", url.clone()),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("http01.listen", "127.0.0.1:0".to_owned()),
        ("dns.nameservers", "127.0.0.1:9".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value));
    let config = Config::parse(&config::read(None, [], &settings).unwrap()).unwrap();
    let stop = CancellationToken::new();
    let running = service::start(&config, stop.clone()).await.unwrap();

    let db = Db::connect(&url).await.unwrap();
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(50));
    let patience = std::time::Duration::from_mins(1);
    let told = tokio::time::timeout(patience, async {
        while watch(&db, certificate).await.unwrap().told != Some(Stage::Expired) {
            pause.tick().await;
        }
    });
    told.await.expect("the worker looks by itself");
    let mut tx = db.read().await.unwrap();
    let (found, _) =
        certificates::find(&mut tx, certificate, &Scope::Everything).await.unwrap().unwrap();
    assert_eq!(found.current.unwrap().revision, 1, "nothing else has changed");
    stop.cancel();
    within("the stop", running.stopped()).await.unwrap();
}
