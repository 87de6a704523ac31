//! Who works on what, on both databases.

use certwright::domain::certificate::{Certificate, State};
use certwright::domain::event::Event;
use certwright::domain::failure::{Failure, code};
use certwright::domain::throttle::Scope as Held;
use certwright::storage::lease::{self, LEASE, Machine};
use certwright::storage::{
    Db, Scope, StorageError, certificates, events, heartbeat, orders, tasks, throttles, wake_ups,
};
use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection};
use time::Duration;

use super::rows::{NOW, all, certificate, claim, is_lost, now, under_way};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn what_is_due_is_claimed_once_and_again_when_the_lease_runs_out(db: Db) {
        let now = now(&db).await;
        let mut one = certificate("web");
        one.next_action_at = now;
        let mut tx = db.begin();
        certificates::insert(&mut tx, &one).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(claim(&db, now - Duration::seconds(1), 10).await, [], "not before its time");
        let first = claim(&db, now, 10).await;
        assert_eq!(first.len(), 1);
        assert_eq!(claim(&db, now, 10).await, [], "nobody else gets it meanwhile");
        // On SQLite the process's clock is the only one; on PostgreSQL another test moves the end.
        if db.dialect() == "sqlite" {
            let later = claim(&db, now + LEASE, 10).await;
            assert_eq!(later.len(), 1, "its worker died");
            let mut tx = db.begin();
            let late = lease::extend(&mut tx, &first[0], now).await;
            assert!(late.is_err(), "the dead worker is fenced");
            lease::extend(&mut tx, &later[0], now + LEASE).await.unwrap();
            let due = lease::next_due(&mut tx).await.unwrap();
            assert_eq!(due, [(Machine::Certificate, now + LEASE + LEASE)]);
        }
    }

    async fn only_who_holds_a_row_finds_its_lease_as_it_is_now(db: Db) {
        let now = now(&db).await;
        let mut tx = db.begin();
        let due = Certificate { next_action_at: now, ..certificate("web") };
        certificates::insert(&mut tx, &due).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.read().await.unwrap();
        let idle = lease::held_by(&mut tx, Machine::Certificate, due.id.0, "test").await.unwrap();
        drop(tx);
        assert_eq!(idle, None, "nobody has it yet");
        let held = claim(&db, now, 10).await;

        let mut tx = db.read().await.unwrap();
        let found = lease::held_by(&mut tx, Machine::Certificate, held[0].id, "test").await.unwrap();
        assert_eq!(found, Some(held[0]));
        for machine in [Machine::Certificate, Machine::Order, Machine::Issuer, Machine::Expiry, Machine::Revocation, Machine::Task, Machine::Delivery] {
            let by_another = lease::held_by(&mut tx, machine, held[0].id, "another").await.unwrap();
            assert_eq!(by_another, None, "{machine:?}");
        }
    }

    async fn what_a_dead_process_held_is_given_back_and_it_is_fenced(db: Db) {
        let now = now(&db).await;
        for (name, at) in [("held", now), ("scheduled", now + Duration::seconds(30))] {
            let mut tx = db.begin();
            let one = Certificate { next_action_at: at, ..certificate(name) };
            certificates::insert(&mut tx, &one).await.unwrap();
            tx.commit().await.unwrap();
        }
        let held = claim(&db, now, 10).await;

        let mut tx = db.begin();
        assert_eq!(lease::give_back(&mut tx, Some("another"), now).await.unwrap(), 0);
        assert_eq!(lease::give_back(&mut tx, Some("test"), now).await.unwrap(), 1);
        assert_eq!(lease::give_back(&mut tx, None, now).await.unwrap(), 0);
        tx.commit().await.unwrap();

        let again = claim(&db, now, 10).await;
        assert_eq!(again.len(), 1, "only what was held");
        let mut tx = db.begin();
        assert!(lease::extend(&mut tx, &held[0], now).await.is_err());
        lease::release(&mut tx, Machine::Certificate, held[0].id, "test", now).await.unwrap();
        assert!(lease::extend(&mut tx, &again[0], now).await.is_err(), "let go");
        assert_eq!(lease::give_back(&mut tx, None, now).await.unwrap(), 0);
    }

    async fn what_waits_by_a_clock_that_was_ahead_is_due_at_once_and_nothing_else_is(db: Db) {
        let now = now(&db).await;
        let ahead = now + Duration::days(2);
        let mut tx = db.begin();
        let row = |name, state: State, since, at| Certificate { state, state_since: since, next_action_at: at, ..certificate(name) };
        let rows = [
            // Written two days ahead, or put off for longer than anything is.
            (row("wounded", State::Backoff, ahead, ahead + Duration::hours(1)), now),
            (row("parked", State::Blocked, now - Duration::hours(1), now + Duration::hours(49)), now),
            // Long pauses with good reason.
            (row("long", State::Backoff, now, now + Duration::days(10)), now + Duration::days(10)),
            (row("soon", State::Blocked, now, now + Duration::hours(24)), now + Duration::hours(24)),
            (Certificate { deleting_since: Some(ahead), ..row("deleting", State::Blocked, ahead, ahead) }, ahead),
        ];
        for (one, _) in &rows {
            certificates::insert(&mut tx, one).await.unwrap();
        }
        let day = now + Duration::hours(26);
        for (key, until) in [("a", day), ("b", ahead + Duration::hours(1))] {
            let why = Failure::of(code::ACME_RATE_LIMITED, "");
            throttles::hold(&mut tx, key, &Held::Account, until, &why, now).await.unwrap();
        }
        assert!(!wake_ups::are_from_the_future(&mut tx, now).await.unwrap());
        events::record(&mut tx, "default", None, &[Event::normal(rows[0].0.id, "Failed", "It failed")], ahead);
        tx.commit().await.unwrap();
        assert!(wake_ups::are_from_the_future(&mut db.read().await.unwrap(), now).await.unwrap());

        let mut tx = db.begin();
        assert_eq!(wake_ups::clamp(&mut tx, now).await.unwrap(), 3);
        tx.commit().await.unwrap();

        let mut read = db.read().await.unwrap();
        for (one, due) in rows {
            let found = certificates::find(&mut read, one.id, &Scope::Everything).await.unwrap().unwrap();
            assert_eq!(found.0.next_action_at, due, "{}", one.name);
        }
        for (key, end) in [("a", Some(day)), ("b", None)] {
            let held = throttles::held(&mut read, &[key.to_owned()], now).await.unwrap();
            assert_eq!(held.map(|(until, _)| until), end, "{key}");
        }
    }

    async fn a_process_that_falls_silent_is_reaped_and_its_work_given_back(db: Db) {
        let now = now(&db).await;
        let mut tx = db.begin();
        certificates::insert(&mut tx, &Certificate { next_action_at: now, ..certificate("web") }).await.unwrap();
        tx.commit().await.unwrap();
        let held = claim(&db, now, 10).await;
        assert_eq!(held.len(), 1);

        let period = Duration::minutes(1);
        let mut tx = db.begin();
        let heard = heartbeat::beat(&mut tx, "test", now).await.unwrap();
        assert!((heard - now).abs() < Duration::minutes(2), "the database's clock");
        assert_eq!(heartbeat::reap(&mut tx, heard + period, period).await.unwrap(), (vec![], 0));
        let late = heard + period + Duration::milliseconds(1);
        assert_eq!(heartbeat::reap(&mut tx, late, period).await.unwrap(), (vec!["test".to_owned()], 1));
        assert_eq!(heartbeat::reap(&mut tx, late, period).await.unwrap(), (vec![], 0));
        assert!(lease::extend(&mut tx, &held[0], now).await.is_err(), "should it come back, it is fenced");
        tx.commit().await.unwrap();

        assert_eq!(claim(&db, late, 10).await.len(), 1);
        let mut tx = db.begin();
        heartbeat::beat(&mut tx, "test", now).await.unwrap();
        assert_eq!(heartbeat::leave(&mut tx, "test", now).await.unwrap(), 1, "an orderly stop gives back at once");
        assert_eq!(heartbeat::reap(&mut tx, late + period, Duration::ZERO).await.unwrap(), (vec![], 0));
    }

    async fn whoever_did_not_hear_the_answer_to_a_commit_finds_out(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let lease = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap()[0];
        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "test").await.unwrap(), None, "it did not come through");

        let next = orders::save(&mut tx, &order, &[], &lease, Some(NOW)).await.unwrap();

        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "test").await.unwrap(), Some(next));
        assert_eq!(lease::after_unheard_commit(&mut tx, &lease, "another").await.unwrap(), None);
        orders::save(&mut tx, &order, &[], &next, None).await.unwrap();
        assert_eq!(lease::after_unheard_commit(&mut tx, &next, "test").await.unwrap(), None, "it holds nothing any more");
    }

    async fn a_step_is_saved_under_the_lease_as_it_is_and_fences_the_former_holder(db: Db) {
        let mut tx = db.begin();
        let (_, mut order, _) = under_way(&mut tx).await;
        let lease = lease::claim(&mut tx, Machine::Order, "test", NOW, 1).await.unwrap()[0];
        let find = async |tx: &mut _| orders::find(tx, order.id, &all()).await.unwrap().unwrap().0;
        let ends = find(&mut tx).await.next_action_at;
        order.attempts += 1;

        let next = orders::save_held(&mut tx, &order, &[], &lease).await.unwrap();

        let found = find(&mut tx).await;
        assert_eq!((found.attempts, found.next_action_at), (order.attempts, ends));
        let late = orders::save_held(&mut tx, &order, &[], &lease).await;
        assert!(is_lost(&mut tx, late).await);
        orders::save_held(&mut tx, &order, &[], &next).await.unwrap();
    }

    async fn a_task_is_done_by_one_and_comes_again(db: Db) {
        let now = now(&db).await;
        let mut tx = db.begin();
        let (one, two) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        tasks::schedule(&mut tx, one, "sweep", now + Duration::hours(1)).await.unwrap();
        tasks::schedule(&mut tx, two, "sweep", now + Duration::hours(2)).await.unwrap();
        assert!(lease::claim(&mut tx, Machine::Task, "test", now, 9).await.unwrap().is_empty());
        tasks::schedule(&mut tx, two, "sweep", now).await.unwrap();
        let claimed = lease::claim(&mut tx, Machine::Task, "test", now, 9).await.unwrap();
        assert_eq!(claimed.iter().map(|lease| lease.id).collect::<Vec<_>>(), [one]);
        assert_eq!(tasks::find(&mut tx, one).await.unwrap().as_deref(), Some("sweep"));

        tasks::settle(&mut tx, &claimed[0], now + Duration::hours(1)).await.unwrap();

        let late = tasks::settle(&mut tx, &claimed[0], now).await;
        assert!(matches!(late, Err(StorageError::LeaseLost(_))), "{late:?}");
        assert_eq!(lease::next_due(&mut tx).await.unwrap().len(), 1);
    }

    async fn many_workers_never_claim_the_same_row(db: Db) {
        let mut tx = db.begin();
        for n in 0..40 {
            certificates::insert(&mut tx, &certificate(&format!("web-{n}"))).await.unwrap();
        }
        tx.commit().await.unwrap();

        let claims = join_all((0..20).map(|_| claim(&db, NOW, 3))).await;

        let mut ids: Vec<_> = claims.into_iter().flatten().map(|lease| lease.id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), all), (40, 40));
    }
}

/// What replicas with wrong clocks do to each other: nothing.
#[tokio::test]
async fn on_postgres_a_lease_ends_by_the_databases_clock_whatever_the_replicas_think() {
    let url = crate::support::postgres::fresh_database().await;
    let db = Db::connect(&url).await.unwrap();
    let now = db.clock().await.unwrap().unwrap();
    let (early, late) = (now - Duration::hours(1), now + Duration::hours(1));
    let mut tx = db.begin();
    let (_, order, _) = under_way(&mut tx).await;
    tx.commit().await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let at = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap();
    let due = "UPDATE orders SET next_action_at = $1";
    sqlx::query(due).bind(at).execute(&mut raw).await.unwrap();

    let mut tx = db.begin();
    let held = lease::claim(&mut tx, Machine::Order, "slow clock", early, 1).await.unwrap();
    assert!(held.is_empty(), "what is scheduled is due by the clock of whoever looks");
    let mut held = lease::claim(&mut tx, Machine::Order, "right clock", now, 1).await.unwrap()[0];
    tx.commit().await.unwrap();

    let steal = async || {
        let mut tx = db.begin();
        let stolen = lease::claim(&mut tx, Machine::Order, "fast clock", late, 9).await.unwrap();
        tx.commit().await.unwrap();
        stolen
    };
    assert_eq!(steal().await, [], "not after a claim");
    // Whatever a worker with a slow clock writes, its lease is as long as any.
    let mut tx = db.begin();
    lease::extend(&mut tx, &held, early).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steal().await, [], "not after an extension");
    let mut tx = db.begin();
    held = orders::save(&mut tx, &order, &[], &held, Some(early)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(steal().await, [], "not after a step");

    let run_out = "UPDATE orders SET next_action_at = next_action_at - 120001";
    sqlx::query(run_out).execute(&mut raw).await.unwrap();
    let mut tx = db.begin();
    let taken = lease::claim(&mut tx, Machine::Order, "slow clock", early, 1).await.unwrap();
    assert_eq!(taken.len(), 1, "its time is over, even for a slow clock");
    let late = orders::save(&mut tx, &order, &[], &held, None).await;
    assert!(is_lost(&mut tx, late).await);
}
