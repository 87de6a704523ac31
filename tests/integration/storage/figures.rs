//! Figures for the metrics, on both databases.

use certwright::domain::certificate::{Issued, State, Transition, Trigger};
use certwright::domain::failure::{Failure, code};
use certwright::domain::throttle::Scope as Held;
use certwright::storage::figures::{self, InState};
use certwright::storage::{Db, catalogue, certificates, deliveries, throttles};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use time::Duration;

use super::rows::{NOW, all, certificate};
use crate::support::databases::{on_both_databases, sqlite_url};

/// SQLite's plan says whether rows of the certificates are read: only those that are due, not served, or failing may be.
#[tokio::test]
async fn no_figure_reads_the_row_of_every_certificate() {
    let (_folder, url) = sqlite_url();
    Db::connect(&url).await.unwrap().close().await;
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let figures = catalogue().into_iter().map(|(one, _)| one);
    let figures: Vec<_> = figures.filter(|one| one.name.contains("::figures::")).collect();
    assert!(figures.len() >= 9, "{}", figures.len());

    for statement in figures {
        let explain = format!("EXPLAIN QUERY PLAN {}", statement.sqlite);
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let of_certificates = ["SCAN certificates", "SEARCH certificates", "SCAN c ", "SEARCH c "];
        for line in
            plan.iter().filter(|line| of_certificates.iter().any(|start| line.starts_with(start)))
        {
            let is_cheap = [
                "COVERING INDEX",
                "USING INDEX certificates_by_end (<expr>",
                "USING INDEX certificates_failing (<expr>",
            ]
            .iter()
            .any(|index| line.contains(index));
            assert!(is_cheap, "{}: {plan:#?}", statement.name);
        }
    }
}

on_both_databases! {
    async fn certificates_are_counted_by_state_and_by_what_is_served(db: Db) {
        let mut tx = db.begin();
        for (name, days) in [("a", None), ("b", None), ("c", Some(1)), ("d", Some(3)), ("e", Some(5))] {
            let wanted = certificate(name);
            certificates::insert(&mut tx, &wanted).await.unwrap();
            let Some(days) = days else { continue };
            let (mut found, lease) = certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap();
            found.state = State::Idle;
            found.current = Some(served_for(days));
            certificates::save(&mut tx, &Transition::silent(found, NOW), &lease, None).await.unwrap();
        }
        for (name, issuer) in [("f", "another"), ("g", "the-third")] {
            let mut wanted = certificate(name);
            wanted.spec.issuer_ref.name = issuer.into();
            wanted.state = State::Blocked;
            certificates::insert(&mut tx, &wanted).await.unwrap();
        }
        let later = NOW + Duration::days(2);

        let counted = figures::certificates(&mut tx, later).await.unwrap();
        let ending = figures::ending(&mut tx, later, 1).await.unwrap();

        assert_eq!(figures::unissued_since(&counted), Some(NOW), "those that wait for a person do not count");
        let mut counted: Vec<_> = counted.into_iter().map(|InState { state, unissued, ended, served, .. }| (state, unissued, ended, served)).collect();
        counted.sort_unstable();
        let of = |state: &str, unissued, ended, served| (state.to_owned(), unissued, ended, served);
        assert_eq!(counted, [of("blocked", 2, 0, 0), of("idle", 0, 1, 2), of("triggered", 2, 0, 0)]);
        assert_eq!(ending.len(), 1);
        assert_eq!((ending[0].name.as_str(), ending[0].not_after), ("d", NOW + Duration::days(3)));
    }

    async fn a_renewal_that_is_tried_again_is_counted_until_it_succeeds(db: Db) {
        let mut tx = db.begin();
        let tries = |state, failed_attempts, days: Option<i64>| (state, failed_attempts, days);
        for (at, (state, failed_attempts, days)) in [
            tries(State::Triggered(Trigger::Renewing), 2, Some(5)),
            tries(State::AwaitingIssuer(Trigger::Renewing), 1, Some(5)),
            tries(State::Triggered(Trigger::Renewing), 0, Some(5)),
            tries(State::Triggered(Trigger::Renewing), 1, Some(1)),
            tries(State::Triggered(Trigger::DoesNotExist), 1, None),
            tries(State::Backoff, 1, Some(5)),
        ].into_iter().enumerate() {
            let wanted = certificate(&format!("c{at}"));
            certificates::insert(&mut tx, &wanted).await.unwrap();
            let (mut found, lease) = certificates::find(&mut tx, wanted.id, &all()).await.unwrap().unwrap();
            (found.state, found.failed_attempts) = (state, failed_attempts);
            found.current = days.map(served_for);
            certificates::save(&mut tx, &Transition::silent(found, NOW), &lease, None).await.unwrap();
        }

        let count = figures::trying_again(&mut tx, NOW + Duration::days(2)).await.unwrap();

        assert_eq!(count, 2, "whoever waits is counted by its state, and what has ended is no renewal any more");
    }

    async fn a_queue_shows_what_is_due_and_since_when(db: Db) {
        let mut tx = db.begin();
        for (name, minutes) in [("a", 1), ("b", 2), ("c", 60)] {
            let mut wanted = certificate(name);
            wanted.next_action_at = NOW + Duration::minutes(minutes);
            certificates::insert(&mut tx, &wanted).await.unwrap();
        }

        let queues = figures::queues(&mut tx, NOW + Duration::minutes(5)).await.unwrap();

        assert_eq!(queues.len(), 7, "{queues:?}");
        for due in queues {
            let expected = match due.queue.as_str() {
                "certificate" => (2, Some(NOW + Duration::minutes(1))),
                _ => (0, None),
            };
            assert_eq!((due.rows, due.since), expected, "{}", due.queue);
        }
    }

    async fn throttles_count_while_they_hold(db: Db) {
        let mut tx = db.begin();
        let why = Failure::of(code::ACME_RATE_LIMITED, "");
        for (key, minutes) in [("a", 5), ("b", 50), ("c", 1)] {
            throttles::hold(&mut tx, key, &Held::Account, NOW + Duration::minutes(minutes), &why, NOW).await.unwrap();
        }

        let held = figures::throttles(&mut tx, NOW + Duration::minutes(2)).await.unwrap();

        assert_eq!(held.len(), 1);
        assert_eq!((held[0].scope.as_str(), held[0].count), ("account", 2));
        assert_eq!(held[0].until, NOW + Duration::minutes(50));
    }

    async fn nothing_waits_for_nobody(db: Db) {
        let mut tx = db.begin();

        assert!(figures::webhooks(&mut tx).await.unwrap().is_empty());
        assert_eq!(deliveries::open(&mut tx).await.unwrap(), 0);
        let certificates = figures::certificates(&mut tx, NOW).await.unwrap();
        assert!(certificates.is_empty());
        assert_eq!(figures::unissued_since(&certificates), None);
        assert!(figures::expiring(&mut tx).await.unwrap().is_empty());
    }
}

/// What was issued for so many days.
fn served_for(days: i64) -> Issued {
    Issued {
        revision: 1,
        serial: "1".into(),
        not_before: NOW,
        not_after: NOW + Duration::days(days),
        renewal_time: NOW,
    }
}
