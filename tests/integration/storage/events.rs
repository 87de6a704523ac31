//! The history: what repeats itself, what is forgotten, and the order in which it can be read.

use certwright::domain::api_key::ApiKey;
use certwright::domain::event::{Event, Resource};
use certwright::domain::id::{ApiKeyId, CertificateId, IssuerId};
use certwright::storage::api_keys;
use certwright::storage::event_stream;
use certwright::storage::event_stream::Position;
use certwright::storage::events::{self, Recorded, Wanted};
use certwright::storage::{Db, Page, Scope, Tx, retention, settings};
use sqlx::Connection as _;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::support::databases::on_both_databases;
use crate::support::patience::until;
use crate::support::world::{World, id};

pub const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

pub fn someone() -> Resource {
    Resource::Certificate(CertificateId::generate(NOW))
}

pub async fn record_in(tx: &mut Tx, about: Resource, message: &str, now: OffsetDateTime) {
    let event = [Event::normal(about, "Tested", message)];
    events::record(tx, "default", None, &event, now);
    // Events are written with the commit; this is written at once, and gives the transaction its number.
    settings::insert(tx, &CertificateId::generate(now).0.to_string(), b"").await.unwrap();
}

pub async fn record(db: &Db, about: Resource, message: &str, now: OffsetDateTime) {
    let mut tx = db.begin();
    record_in(&mut tx, about, message, now).await;
    tx.commit().await.unwrap();
}

async fn listed(db: &Db) -> Vec<Recorded> {
    let mut tx = db.read().await.unwrap();
    events::list(&mut tx, &Scope::Everything, &Wanted::default(), Page::first(500))
        .await
        .unwrap()
        .rows
}

/// How far one may read once nothing is held back: tests beside this one share the server, and the
/// transactions of all its databases count.
pub async fn settled_end(db: &Db) -> Position {
    let mut settled = None;
    until("the end of all older transactions", async || {
        let mut read = db.read().await.unwrap();
        let end = event_stream::end(&mut read).await.unwrap();
        settled = (!end.held_back).then_some(end.position);
        settled.is_some()
    })
    .await;
    settled.unwrap()
}

async fn read(db: &Db, from: Position, to: Position) -> Vec<String> {
    let mut tx = db.read().await.unwrap();
    let everything = (&Scope::Everything, &Wanted::default());
    let rows =
        event_stream::between(&mut tx, everything.0, everything.1, (from, to), 1000).await.unwrap();
    rows.into_iter().map(|row| row.message).collect()
}

on_both_databases! {
    async fn what_repeats_itself_in_a_row_is_one_event(db: Db) {
        let (one, other) = (someone(), someone());
        for minute in 0..3 {
            record(&db, one, "again", NOW + Duration::minutes(minute)).await;
            record(&db, other, "again", NOW).await;
        }
        record(&db, one, "something else", NOW + Duration::minutes(3)).await;
        record(&db, one, "again", NOW + Duration::minutes(4)).await;

        let of_one: Vec<_> = listed(&db).await.into_iter()
            .filter(|event| event.resource_id == one.id())
            .map(|event| (event.message.clone(), event.count, event.first_seen(), event.last_seen()))
            .collect();
        let minute = |minutes| NOW + Duration::minutes(minutes);
        assert_eq!(of_one, [
            ("again".to_owned(), 3, minute(0), minute(2)),
            ("something else".to_owned(), 1, minute(3), minute(3)),
            ("again".to_owned(), 1, minute(4), minute(4)),
        ]);
    }

    async fn the_stream_has_the_order_of_commits_and_moves_what_changes(db: Db) {
        let (one, other) = (someone(), someone());
        // A clock that is ahead, as another replica's may be: identifiers would sort it last.
        record(&db, one, "first", NOW + Duration::hours(1)).await;
        record(&db, other, "second", NOW).await;
        let seen = settled_end(&db).await;
        assert_eq!(read(&db, Position::START, seen).await, ["first", "second"]);

        record(&db, one, "first", NOW).await;

        let end = settled_end(&db).await;
        assert_eq!(read(&db, seen, end).await, ["first"], "seen again, with a higher count");
        assert_eq!(read(&db, Position::START, end).await, ["second", "first"]);
    }

    async fn a_reader_goes_on_where_it_was_and_never_beyond_the_end(db: Db) {
        record(&db, someone(), "one", NOW).await;
        record(&db, someone(), "two", NOW).await;
        let end = settled_end(&db).await;

        let mut tx = db.read().await.unwrap();
        assert_eq!(event_stream::resume(&mut tx, end).await.unwrap(), end);
        assert_eq!(event_stream::resume(&mut tx, Position::START).await.unwrap(), Position::START);
        let ahead = "9000000000000000-9000000000000000".parse().unwrap();
        let resumed = event_stream::resume(&mut tx, ahead).await.unwrap();
        assert!(resumed <= end, "{resumed}: of another server, say");
    }

    async fn old_events_are_forgotten_but_not_the_last_word_on_what_is_there(db: Db) {
        let world = World::over(db.clone()).await;
        world.create_issuer().await;
        let certificate = id(&world.create_certificate("web").await);
        let certificate = Resource::Certificate(CertificateId(certificate.parse().unwrap()));
        let gone = Resource::Issuer(IssuerId::generate(NOW));
        let long_ago = NOW - Duration::days(40);
        for number in 0..1200 {
            record(&db, gone, &format!("gone {number}"), long_ago).await;
        }
        record(&db, certificate, "old", long_ago).await;
        record(&db, certificate, "its last", long_ago).await;
        record(&db, gone, "young", NOW - Duration::days(20)).await;

        let before = listed(&db).await.len();
        let forgotten = retention::forget(&db, NOW - Duration::days(30)).await.unwrap();

        assert_eq!(before, 500 + 1);
        // The first event about the certificate was that it is wanted.
        assert_eq!(forgotten, 1201);
        let left: Vec<_> = listed(&db).await.into_iter().map(|event| event.message).collect();
        assert!(left.contains(&"its last".to_owned()) && left.contains(&"young".to_owned()), "{left:?}");
        assert_eq!(retention::forget(&db, NOW - Duration::days(30)).await.unwrap(), 0);
    }

    async fn the_newest_event_stays_so_that_no_place_is_given_twice(db: Db) {
        record(&db, someone(), "one", NOW).await;
        record(&db, someone(), "two", NOW).await;
        let seen = settled_end(&db).await;

        assert_eq!(retention::forget(&db, NOW + Duration::days(1)).await.unwrap(), 1);
        record(&db, someone(), "three", NOW).await;

        let end = settled_end(&db).await;
        assert_eq!(read(&db, seen, end).await, ["three"]);
    }

    async fn a_key_is_found_as_it_is_now(db: Db) {
        let key = ApiKey::new("ci", vec!["*".into()], Scope::Everything, NOW);
        let mut tx = db.begin();
        api_keys::insert(&mut tx, &key, &[7; 32]).await.unwrap();

        assert_eq!(api_keys::find(&mut tx, key.id).await.unwrap(), Some(key));
        assert_eq!(api_keys::find(&mut tx, ApiKeyId::generate(NOW)).await.unwrap(), None);
    }
}

/// The trap of every history that is read by numbers: the earlier number commits later.
#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let db = crate::support::databases::postgres().await;
    let (one, other) = (someone(), someone());
    record(&db, one, "before", NOW).await;
    let start = settled_end(&db).await;

    let mut slow = db.begin();
    record_in(&mut slow, one, "slow", NOW).await;
    record(&db, other, "quick", NOW).await;

    let mut tx = db.read().await.unwrap();
    let meanwhile = event_stream::end(&mut tx).await.unwrap();
    drop(tx);
    assert_eq!(read(&db, start, meanwhile.position).await, [""; 0]);
    assert!(meanwhile.held_back, "there is something, but it is too early to read it");

    slow.commit().await.unwrap();
    let end = settled_end(&db).await;
    assert_eq!(read(&db, meanwhile.position, end).await, ["slow", "quick"]);
}

/// The same, with the later transaction writing first.
#[tokio::test]
async fn interleaved_transactions_are_read_whole() {
    let db = crate::support::databases::postgres().await;
    let (one, other) = (someone(), someone());
    let mut first = db.begin();
    record_in(&mut first, one, "a1", NOW).await;
    let mut second = db.begin();
    record_in(&mut second, other, "b1", NOW).await;
    record_in(&mut first, one, "a2", NOW).await;
    record_in(&mut second, other, "b2", NOW).await;

    second.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    let between = event_stream::end(&mut tx).await.unwrap();
    drop(tx);
    assert!(between.held_back, "there is something, though nothing may be read yet");
    let mut read_so_far = read(&db, Position::START, between.position).await;
    assert_eq!(read_so_far, [""; 0]);
    first.commit().await.unwrap();

    let end = settled_end(&db).await;
    read_so_far.extend(read(&db, between.position, end).await);
    assert_eq!(read_so_far, ["a1", "a2", "b1", "b2"]);
}

/// A dump that is restored elsewhere brings numbers of transactions that mean nothing there.
#[tokio::test]
async fn a_database_that_moved_to_another_server_is_followed_on() {
    let url = crate::support::postgres::fresh_database().await;
    let db = Db::connect(&url).await.unwrap();
    record(&db, someone(), "brought along", NOW).await;
    record(&db, someone(), "brought along, too", NOW).await;
    db.close().await;
    let mut raw = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE events SET written_in = written_in + 1000000000")
        .execute(&mut raw)
        .await
        .unwrap();
    let seen: (i64, i64) =
        sqlx::query_as("SELECT written_in, position FROM events ORDER BY position LIMIT 1")
            .fetch_one(&mut raw)
            .await
            .unwrap();
    raw.close().await.unwrap();

    let db = Db::connect(&url).await.unwrap();
    record(&db, someone(), "new", NOW).await;

    let end = settled_end(&db).await;
    let mut tx = db.read().await.unwrap();
    let seen = format!("{}-{}", seen.0, seen.1).parse().unwrap();
    let at = event_stream::resume(&mut tx, seen).await.unwrap();
    drop(tx);
    assert_eq!(read(&db, at, end).await, ["brought along, too", "new"]);
}
