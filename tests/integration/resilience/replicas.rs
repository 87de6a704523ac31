//! Several processes, a database that goes away, and stops: nothing is lost, nothing is done twice, and
//! clients see at most a moment's `503` that says when to come back.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};

use crate::issuance::assert_key_signs_for;
use crate::support::installation::{Answer, Database, Installation, Program, pass, tick};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::OwnCluster;
use crate::telemetry::metrics::{page_of, value};

#[tokio::test]
async fn a_replica_paused_past_its_lease_is_fenced_when_it_goes_on_and_nothing_is_finalized_twice()
{
    const COUNT: usize = 20;
    let site = Installation::on(Database::Postgres).await;
    // The first finalize has reached the CA, and its answer is not saved yet.
    let one = site.start_with("after_finalize=1*return(stop)").await;
    site.set_up(&one).await;
    ask_for(&site, &one, COUNT).await;
    one.until_stopped().await;

    let mut other = site.start().await;
    let ready = site.until_all_ready(&mut other, COUNT).await;
    assert!(other.log().contains("fallen silent"), "{}", other.log());
    one.send(Signal::CONT);

    until("the fence", async || {
        value(&page_of(&site, &one).await, "certwright_leases_lost_total") > 0
    })
    .await;
    assert_eq!(site.pebble.certificates_issued(), COUNT);
    assert_sound(&site, &other, &ready).await;
    // And it works on, as if nothing had been.
    site.ask_for(&one, "after").await.unwrap();
    site.until_all_ready(&mut other, COUNT + 1).await;
}

#[tokio::test]
async fn a_replica_that_dies_is_replaced_within_its_lease() {
    let site = Installation::on(Database::Postgres).await;
    let dies = site.start_with("after_finalize=return").await;
    site.set_up(&dies).await;
    site.ask_for(&dies, "a").await.unwrap();
    dies.die().await;
    let mut other = site.start().await;

    site.until(&mut other, "/certificates", |found| {
        found["items"][0]["status"]["phase"] == "Ready"
    })
    .await;

    assert_eq!((site.pebble.orders_created(), site.pebble.certificates_issued()), (1, 1));
}

#[tokio::test]
async fn an_orderly_stop_with_thirty_orders_in_flight_loses_nothing_on_sqlite() {
    stop_in_flight(Database::Sqlite).await;
}

#[tokio::test]
async fn an_orderly_stop_with_thirty_orders_in_flight_loses_nothing_on_postgres() {
    stop_in_flight(Database::Postgres).await;
}

async fn stop_in_flight(database: Database) {
    const COUNT: usize = 30;
    let site = Installation::on(database).await;
    let program = site.start().await;
    site.set_up(&program).await;
    ask_for(&site, &program, COUNT).await;

    program.stop().await;

    let mut program = site.start().await;
    let ready = site.until_all_ready(&mut program, COUNT).await;
    assert_sound(&site, &program, &ready).await;
    assert_eq!(site.pebble.orders_created(), COUNT, "what was begun was finished");
}

/// PostgreSQL restarted as by `pg_ctl restart -m immediate`, and every connection cut, in the middle.
#[tokio::test]
async fn a_postgres_that_restarts_costs_a_moment_and_nothing_else() {
    const COUNT: usize = 20;
    let cluster = OwnCluster::start().await;
    let site = Installation::with(Some(cluster.url()), PebbleOptions::default()).await;
    let mut program = site.start().await;
    site.set_up(&program).await;
    let seen = watched(&site, &program, async {
        ask_for(&site, &program, COUNT / 2).await;
        cluster.restart().await;
        let names: Vec<_> = (COUNT / 2..COUNT).map(|n| format!("c{n}")).collect();
        let asked = join_all(names.iter().map(|name| persist(&site, &program, name)));
        let ((), asked) = tokio::join!(cluster.cut_connections(), asked);
        asked.into_iter().flatten().collect::<Vec<_>>()
    })
    .await;

    assert_polite(&seen);
    // A claim whose commit was not heard waits for its lease, two minutes.
    let ready = site.until_all_ready(&mut program, COUNT).await;
    assert_sound(&site, &program, &ready).await;
    assert_eq!(site.pebble.certificates_issued(), COUNT);
    assert_eq!(site.left_in_dns(), [""; 0]);
}

/// Another process, such as a backup, has the file for itself for a while.
#[tokio::test]
async fn a_sqlite_that_somebody_else_has_locked_is_waited_for() {
    const COUNT: usize = 10;
    let site = Installation::on(Database::Sqlite).await;
    let mut program = site.start().await;
    site.set_up(&program).await;
    let mut connection = SqliteConnection::connect(&site.database_url).await.unwrap();
    sqlx::raw_sql("PRAGMA busy_timeout = 10000; BEGIN EXCLUSIVE")
        .execute(&mut connection)
        .await
        .unwrap();

    let names: Vec<_> = (0..COUNT).map(|n| format!("c{n}")).collect();
    let seen = watched(&site, &program, async {
        let asked = join_all(names.iter().map(|name| persist(&site, &program, name)));
        let unlock = async {
            pass(Duration::from_secs(5)).await;
            sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
        };
        let ((), asked) = tokio::join!(unlock, asked);
        asked.into_iter().flatten().collect::<Vec<_>>()
    })
    .await;

    assert_polite(&seen);
    let ready = site.until_all_ready(&mut program, COUNT).await;
    assert_sound(&site, &program, &ready).await;
    assert_eq!(site.pebble.orders_created(), COUNT);
}

#[tokio::test]
async fn sqlite_has_one_process_at_a_time_and_the_second_is_told() {
    let site = Installation::on(Database::Sqlite).await;
    let first = site.start().await;

    let mut second = site.launch(&["serve"], "");
    assert_eq!(second.end().await.code(), Some(1));
    assert!(
        second.log().contains("another certwright serves from this database"),
        "{}",
        second.log()
    );

    first.kill();
    drop(site.start().await);
}

/// Everything that was answered during `work`, with a reader who asks all the time.
async fn watched(
    site: &Installation,
    program: &Program,
    work: impl Future<Output = Vec<Answer>>,
) -> Vec<Answer> {
    let mut seen = Vec::new();
    let reader = async {
        loop {
            seen.extend(site.get(program, "/certificates?limit=5").await.ok());
            tick().await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = reader => unreachable!("it reads for ever"),
    };
    seen.extend(done);
    seen
}

/// A client that sends its request again when it is told to; every answer that it got.
async fn persist(site: &Installation, program: &Program, name: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    until(&format!("acceptance of {name}"), async || {
        if let Ok(answer) = site.ask_for(program, name).await {
            answers.push(answer);
        }
        answers.last().is_some_and(|answer| answer.status == 202)
    })
    .await;
    answers
}

#[track_caller]
fn assert_polite(seen: &[Answer]) {
    assert!(seen.len() > 10);
    for answer in seen {
        let told = answer.status == 503 && answer.retry_after.is_some();
        assert!(answer.status < 500 || told, "{answer:#?}");
    }
}

async fn ask_for(site: &Installation, program: &Program, count: usize) {
    let names: Vec<_> = (0..count).map(|n| format!("c{n}")).collect();
    let asked = join_all(names.iter().map(|name| site.ask_for(program, name))).await;
    for answer in asked {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 202, "{answer:#?}");
    }
}

/// Every key matches its certificate, and no attempt counts as failed.
async fn assert_sound(site: &Installation, program: &Program, ready: &[Value]) {
    for one in ready {
        let (chain, key) = site.download(program, one).await;
        assert_key_signs_for(&key, &chain);
        assert_eq!(one["status"]["failedIssuanceAttempts"], 0, "{one:#}");
    }
}
