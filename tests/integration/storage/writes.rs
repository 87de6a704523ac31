//! Transactions that come at the same moment: each is all there or not at all.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use certwright::domain::api_key::{self, ApiKey};
use certwright::domain::certificate::Certificate;
use certwright::domain::event::{Event, Resource};
use certwright::domain::id::OrderId;
use certwright::storage::api_keys;
use certwright::storage::handoff::HandedOff;
use certwright::storage::lease::{self, Lease, Machine};
use certwright::storage::{Db, Page, Scope, StorageError, Tx, certificates, events, settings};
use futures_util::future::{FutureExt as _, join_all};
use serde_json::Value;
use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::rows::{NOW, certificate};
use crate::support::databases::{on_both_databases, open, postgres, sqlite_url};
use crate::support::patience::{until, within};
use crate::support::stopped_clock::StoppedClock;

on_both_databases! {
    async fn of_many_at_once_those_that_were_committed_are_there(db: Db) {
        let all = (0..90).map(|n| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin();
                settings::insert(&mut tx, &format!("first {n}"), b"").await.unwrap();
                settings::insert(&mut tx, &format!("second {n}"), b"").await.unwrap();
                if n % 3 == 0 { drop(tx) } else { tx.commit().await.unwrap() }
            })
        });
        join_all(all).await.into_iter().for_each(Result::unwrap);

        let mut tx = db.read().await.unwrap();
        for n in 0..90 {
            for which in ["first", "second"] {
                let found = settings::find(&mut tx, &format!("{which} {n}")).await.unwrap();
                assert_eq!(found.is_some(), n % 3 != 0, "{which} {n}");
            }
        }
    }

    async fn a_refused_statement_is_its_own_transactions_trouble(db: Db) {
        let taken = Arc::new(key("taken"));
        let mut tx = db.begin();
        api_keys::insert(&mut tx, &taken, b"hash 0").await.unwrap();
        tx.commit().await.unwrap();
        let all = (0..30).map(|n| {
            let (db, taken) = (db.clone(), Arc::clone(&taken));
            tokio::spawn(async move {
                let mut tx = db.begin();
                settings::insert(&mut tx, &format!("setting {n}"), b"").await?;
                if n % 2 == 0 {
                    // The same identifier once more.
                    api_keys::insert(&mut tx, &taken, format!("hash {}", n + 1).as_bytes()).await?;
                }
                tx.commit().await
            })
        });
        let results: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();

        let mut tx = db.read().await.unwrap();
        for (n, result) in results.into_iter().enumerate() {
            let found = settings::find(&mut tx, &format!("setting {n}")).await.unwrap();
            match n % 2 {
                0 => assert!(matches!(result, Err(StorageError::Conflict)), "{n}: {result:?}"),
                _ => assert!(result.is_ok(), "{n}: {result:?}"),
            }
            assert_eq!(found.is_some(), n % 2 == 1, "{n}");
        }
    }

    async fn a_lost_lease_undoes_its_own_transaction_and_no_other(db: Db) {
        let mut tx = db.begin();
        let mut known = Vec::new();
        for n in 0..30 {
            let certificate = certificate(&format!("web-{n}"));
            certificates::insert(&mut tx, &certificate).await.unwrap();
            let (found, lease) = find(&mut tx, &certificate).await;
            if n % 2 == 0 {
                // Somebody else was quicker.
                certificates::save(&mut tx, &found.clone().wake(NOW), &lease, None).await.unwrap();
            }
            known.push((found, lease));
        }
        tx.commit().await.unwrap();
        let all = known.iter().cloned().map(|(certificate, lease)| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin();
                // What comes before and behind the fence belongs to it.
                certificates::note(&mut tx, certificate.id, OrderId::generate(NOW), None).await?;
                certificates::save(&mut tx, &certificate.clone().wake(NOW), &lease, None).await?;
                let about = Resource::Certificate(certificate.id);
                let event = Event::normal(about, "Tested", "written behind the fence");
                events::record(&mut tx, "default", Some(certificate.id), &[event], NOW);
                tx.commit().await
            })
        });
        let results: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();

        let mut tx = db.read().await.unwrap();
        for (n, (result, (certificate, _))) in results.into_iter().zip(&known).enumerate() {
            let wanted = events::Wanted { resource: Some(certificate.id.0), ..Default::default() };
            let page = Page { limit: 10, after: None, descending: false, counted: false };
            let events = events::list(&mut tx, &Scope::Everything, &wanted, page).await.unwrap().rows;
            let written = events.iter().any(|event| event.reason == "Tested");
            match n % 2 {
                0 => assert!(matches!(result, Err(StorageError::LeaseLost(id)) if id == certificate.id.0), "{n}: {result:?}"),
                _ => assert!(result.is_ok(), "{n}: {result:?}"),
            }
            assert_eq!(written, n % 2 == 1, "{n}");
        }
    }

    async fn what_is_added_is_handed_over_with_the_commit(db: Db) {
        let places = Arc::new(Semaphore::new(2));
        let offered = Arc::clone(&places);
        let mut handed = db.handoff().open("worker", move |namespace| {
            (namespace == "default").then_some(())?;
            Some(Box::new(Arc::clone(&offered).try_acquire_owned().ok()?))
        });
        let (given_up, added) = (certificate("given-up"), certificate("added"));
        let mut tx = db.begin();
        certificates::insert(&mut tx, &given_up).await.unwrap();
        drop(tx);
        let mut tx = db.begin();
        certificates::insert(&mut tx, &added).await.unwrap();
        assert!(handed.try_recv().is_err(), "nothing is there yet");
        tx.commit().await.unwrap();

        let Some(HandedOff::Certificate(begun, lease, place)) = handed.recv().await else {
            panic!("the certificate");
        };
        assert_eq!(*begun, added);
        assert!(handed.try_recv().is_err(), "what was given up is nobody's");
        let mut tx = db.begin();
        let now = db.clock().await.unwrap().unwrap_or(NOW);
        let due = lease::claim(&mut tx, Machine::Certificate, "other", now, 9).await.unwrap();
        assert_eq!(due, [], "it is held");
        certificates::save(&mut tx, &begun.wake(NOW), &lease, None).await.unwrap();
        tx.commit().await.unwrap();

        // Without a place it is looked for, like any other.
        let held = (place, Arc::clone(&places).try_acquire_owned().unwrap());
        let mut tx = db.begin();
        let waiting = certificate("waiting");
        certificates::insert(&mut tx, &waiting).await.unwrap();
        tx.commit().await.unwrap();
        drop(held);
        db.handoff().close();
        assert!(handed.recv().await.is_none());
        let mut tx = db.begin();
        let due = lease::claim(&mut tx, Machine::Certificate, "other", now, 9).await.unwrap();
        assert!(due.iter().any(|lease| lease.id == waiting.id.0));
    }

    async fn a_name_that_is_taken_meanwhile_lets_go_of_what_was_promised(db: Db) {
        let mut handed = db.handoff().open("worker", |_| Some(Box::new(())));
        let mut tx = db.begin();
        certificates::insert(&mut tx, &certificate("web")).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(handed.recv().await, Some(HandedOff::Certificate(..))));

        let again = certificate("web");
        let mut tx = db.begin();
        let refused = match certificates::insert(&mut tx, &again).await {
            Ok(()) => tx.commit().await,
            refused => refused,
        };

        assert!(matches!(refused, Err(StorageError::Conflict)), "{refused:?}");
        if let Ok(said) = handed.try_recv() {
            assert!(matches!(said, HandedOff::Unknown(Machine::Certificate, id) if id == again.id.0));
        }
    }

    async fn who_gives_up_waiting_for_a_turn_holds_nobody_up(db: Db) {
        let mut held = db.begin();
        settings::insert(&mut held, "held", b"").await.unwrap();
        let waiting: Vec<_> = (0..40).map(|_| tokio::spawn({
            let db = db.clone();
            async move { drop(settings::find(&mut db.begin(), "held").await) }
        })).collect();
        tokio::task::yield_now().await;
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        held.commit().await.unwrap();

        let mut tx = db.begin();
        assert!(settings::find(&mut tx, "held").await.unwrap().is_some());
        settings::insert(&mut tx, "next", b"").await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn a_key_is_forgotten_even_if_its_client_goes_away_meanwhile(db: Db) {
        let (key, hash) = (key("ci"), api_key::hash_key("cw_ci"));
        let mut tx = db.begin();
        api_keys::insert(&mut tx, &key, &hash).await.unwrap();
        tx.commit().await.unwrap();
        assert!(api_keys::recognise(&db, &hash).await.unwrap().is_some());

        let mut tx = db.begin();
        api_keys::delete(&mut tx, key.id).await.unwrap();
        assert!(tx.commit().now_or_never().is_none(), "it is given up before it is answered");

        until("the key's end", async || {
            api_keys::recognise(&db, &hash).await.unwrap().is_none()
        }).await;
    }

    async fn a_key_that_was_forgotten_is_not_recognised_any_more(db: Db) {
        let (key, hash) = (key("ci"), api_key::hash_key("cw_ci"));
        let mut tx = db.begin();
        api_keys::insert(&mut tx, &key, &hash).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(api_keys::recognise(&db, &hash).await.unwrap(), Some((Arc::new(key.clone()), api_key::Value::Current)));
        assert_eq!(api_keys::recognise(&db, &hash).await.unwrap(), Some((Arc::new(key.clone()), api_key::Value::Current)));

        let mut tx = db.begin();
        api_keys::delete(&mut tx, key.id).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(api_keys::recognise(&db, &hash).await.unwrap(), None);
        let mut tx = db.read().await.unwrap();
        let page = Page { limit: 10, after: None, descending: false, counted: false };
        assert_eq!(api_keys::list(&mut tx, &Scope::Everything, None, page).await.unwrap().rows, []);
    }
}

/// A client that goes away while its request begins a transaction.
#[tokio::test]
async fn nobody_inherits_a_transaction_that_was_given_up_while_it_began() {
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let url = crate::support::postgres::fresh_database().await;
    let db = Db::connect(&url).await.unwrap();
    for _ in 0..20 {
        let ready: Vec<_> = join_all((0..3).map(|_| db.read())).await;
        drop(ready);
        (0..3).for_each(|_| drop(settings::find(&mut db.begin(), "none").now_or_never()));
    }

    let mut watcher = PgConnection::connect(&url).await.unwrap();
    until("the end of the last transaction", async || {
        sqlx::query_scalar::<_, i64>(OPEN).fetch_one(&mut watcher).await.unwrap() == 0
    })
    .await;
}

/// Two replicas on one PostgreSQL.
#[tokio::test]
async fn another_replica_hears_of_changes_and_of_forgotten_keys() {
    let url = crate::support::postgres::fresh_database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    let (key, hash) = (key("ci"), api_key::hash_key("cw_ci"));
    let mut tx = here.begin();
    api_keys::insert(&mut tx, &key, &hash).await.unwrap();
    tx.commit().await.unwrap();
    assert!(api_keys::recognise(&there, &hash).await.unwrap().is_some());

    let mut tx = here.begin();
    api_keys::delete(&mut tx, key.id).await.unwrap();
    let resource = key.id.0;
    let mut waiter = there.signals().wait_for(resource);
    tx.has_settled(resource);
    tx.commit().await.unwrap();

    within("the news", waiter.settled()).await;
    // It may have heard of the key in the note after that; it believes in it for a second at most.
    until("the key's end", async || api_keys::recognise(&there, &hash).await.unwrap().is_none())
        .await;
}

/// Two replicas on one PostgreSQL, one of which stops within a transaction, and nothing closes its connection.
#[tokio::test]
async fn a_replica_that_stops_within_a_transaction_does_not_hold_the_others_up_for_long() {
    let url = crate::support::postgres::fresh_database().await;
    let (stopped, other) = (Db::connect(&url).await.unwrap(), Db::connect(&url).await.unwrap());
    let mut tx = other.begin();
    settings::insert(&mut tx, "who", b"nobody").await.unwrap();
    tx.commit().await.unwrap();
    let mut held = stopped.begin();
    assert!(settings::replace(&mut held, "who", b"nobody", b"stopped").await.unwrap());

    let mut tx = other.begin();
    let replaced = settings::replace(&mut tx, "who", b"nobody", b"other");
    let replaced = within("the row", replaced).await;
    assert!(replaced.unwrap(), "as if the other had never been");
    tx.commit().await.unwrap();

    held.commit().await.unwrap_err();
    let mut tx = stopped.read().await.unwrap();
    assert_eq!(settings::find(&mut tx, "who").await.unwrap(), Some(b"other".to_vec()));
}

/// A hundred in a second are enough for whoever waits, and PostgreSQL wakes every replica for each.
#[tokio::test]
async fn commits_that_come_together_are_told_together() {
    // Together they are the pause.
    const ALMOST: Duration = Duration::from_millis(9);
    const REST: Duration = Duration::from_millis(1);
    let url = crate::support::postgres::fresh_database().await;
    let db = Db::connect(&url).await.unwrap();
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen("certwright").await.unwrap();
    // The fewest notes that have room for them, only if they are told together.
    let settled: Vec<_> = (0..2 * IN_A_NOTE).map(|_| OrderId::generate(NOW).0).collect();
    let (soon, late) = settled.split_at(IN_A_NOTE + IN_A_NOTE / 2);

    let clock = StoppedClock::stop();
    settle(&db, soon).await;
    clock.advance(ALMOST).await;
    settle(&db, late).await;
    clock.advance(REST).await;
    drop(clock);

    let (mut told, mut notes) = (HashSet::new(), 0);
    while told.len() < settled.len() {
        let note = within("a note", listener.recv()).await.unwrap();
        let note: Value = serde_json::from_str(note.payload()).unwrap();
        let ids = note["settled"].as_array().unwrap();
        told.extend(ids.iter().map(|id| id.as_str().unwrap().parse::<Uuid>().unwrap()));
        notes += 1;
    }
    assert_eq!(notes, 2, "each was full");
    assert_eq!(told, settled.iter().copied().collect());
}

/// Resources that PostgreSQL's 8,000 bytes have room for.
const IN_A_NOTE: usize = 150;

/// A commit for each, with time enough between them to tell it by itself.
async fn settle(db: &Db, settled: &[Uuid]) {
    for resource in settled {
        let mut tx = db.begin();
        tx.has_settled(*resource);
        tx.commit().await.unwrap();
        settings::find(&mut db.read().await.unwrap(), "none").await.unwrap();
    }
}

async fn find(tx: &mut Tx, wanted: &Certificate) -> (Certificate, Lease) {
    certificates::find(tx, wanted.id, &Scope::Everything).await.unwrap().unwrap()
}

fn key(name: &str) -> ApiKey {
    ApiKey::new(name, vec!["*".to_owned()], Scope::Everything, NOW)
}

/// The writer lets go of its connection when the pool is closed, also at the moment at which it begins to listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_closed_right_after_a_transaction_was_dropped_is_closed() {
    for _ in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::connect(&format!("sqlite://{}/db", folder.path().display())).await.unwrap();
        let mut tx = db.begin();
        settings::find(&mut tx, "none").await.unwrap();
        drop(tx);
        within("the end of all connections", db.close()).await;
    }
}

/// PostgreSQL answers the `COMMIT` of a transaction in which a statement has failed without an error.
#[tokio::test]
async fn a_transaction_with_a_failure_is_never_said_to_be_committed() {
    let db = postgres().await;
    let mut tx = db.begin();
    settings::insert(&mut tx, "before", b"").await.unwrap();
    let twice = certificate("web");
    certificates::insert(&mut tx, &twice).await.unwrap();
    certificates::insert(&mut tx, &twice).await.unwrap();
    assert!(
        settings::find(&mut tx, "before").await.is_err(),
        "the failure is told with the question"
    );

    assert!(tx.commit().await.is_err());

    let mut read = db.read().await.unwrap();
    assert_eq!(settings::find(&mut read, "before").await.unwrap(), None);
}

/// What SQLite's log is cut to, and a frame more.
const WAL_KEPT: u64 = (16 << 20) + (1 << 16);

#[tokio::test]
async fn a_log_that_a_reader_made_long_is_cut_once_the_reader_is_gone() {
    let (_folder, url) = sqlite_url();
    let db = Db::connect(&url).await.unwrap();
    let mut reader = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
    sqlx::query("SELECT count(*) FROM settings").execute(&mut reader).await.unwrap();
    let write = async |value: &[u8]| {
        let mut tx = db.begin();
        settings::put(&mut tx, "large", value).await.unwrap();
        tx.commit().await.unwrap();
    };
    let wal = || db.load().disk.unwrap().wal;
    for byte in 0..20 {
        write(&vec![byte; 1 << 20]).await;
    }
    assert!(wal() > WAL_KEPT, "{}", wal());

    reader.close().await.unwrap();
    for byte in 0..3 {
        write(&[byte]).await;
    }

    assert!(wal() <= WAL_KEPT, "{}", wal());
}
