//! Many certificates while the process is killed again and again, and PostgreSQL restarted: none is lost,
//! nothing is left behind.
//!
//! `make soak` runs it with `SOAK_CERTIFICATES=1000`; without that variable it is small enough for every
//! run of the tests.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};

use crate::issuance::assert_key_signs_for;
use crate::support::installation::{Installation, Program, is_ready, items};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::OwnCluster;

/// Time from when the program listens to its death, if it has got somewhere.
const LIFE: Duration = Duration::from_secs(2);

/// Lives that it takes at least, however fast the machine is.
const LIVES: usize = 4;

/// Without a new certificate for so long, something is stuck.
const PATIENCE: Duration = Duration::from_mins(5);

/// Requests at the same time.
const CLIENTS: usize = 20;

#[tokio::test]
async fn no_certificate_is_lost_however_often_the_process_is_killed_on_sqlite() {
    soak(None).await;
}

#[tokio::test]
async fn no_certificate_is_lost_however_often_process_and_database_are_killed_on_postgres() {
    soak(Some(OwnCluster::start().await)).await;
}

async fn soak(cluster: Option<OwnCluster>) {
    let count = std::env::var("SOAK_CERTIFICATES").ok();
    let count: usize = count.map_or(60, |text| text.parse().expect("SOAK_CERTIFICATES, a number"));
    let url = cluster.as_ref().map(OwnCluster::url);
    let mut site = Installation::with(url, PebbleOptions::default()).await;
    // So few that each gets somewhere within a life, also on a loaded machine of two cores.
    site.set("WORKER_CONCURRENCY", "16");
    let program = site.start().await;
    site.set_up(&program).await;
    program.kill();

    let names: Vec<_> = (0..count).map(|n| format!("s{n}")).collect();
    let mut asked = HashSet::new();
    let (begun, mut progress) = (Instant::now(), (0, Instant::now()));
    let mut kills = 0;
    let mut restarts = 0;
    while progress.0 < count {
        let program = site.start().await;
        let left = names.iter().filter(|name| !asked.contains(*name));
        let left: Vec<_> = left.take(count.div_ceil(LIVES)).collect();
        let mut answers = iter(left)
            .map(|name| async { (name.clone(), site.ask_for(&program, name).await) })
            .buffer_unordered(CLIENTS);
        let asking = async {
            while let Some((name, answer)) = answers.next().await {
                if answer.is_ok_and(|answer| answer.status == 202) {
                    asked.insert(name);
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = asking => {}
            () = live(&site, &program, count) => {}
        }
        drop(answers);
        // PostgreSQL goes down twice, at once with the process and in the middle of its life.
        let due = [count / 3, 2 * count / 3].get(restarts).copied();
        if let Some(cluster) = cluster.as_ref().filter(|_| due.is_some_and(|n| asked.len() >= n)) {
            cluster.restart().await;
            restarts += 1;
            live(&site, &program, count).await;
        }
        let ready =
            all_certificates(&site, &program).await.iter().filter(|one| is_ready(one)).count();
        program.kill();
        kills += 1;
        if ready > progress.0 {
            progress = (ready, Instant::now());
        }
        eprintln!(
            "soak: {:>4} s, {kills} kills, {restarts} restarts, {} asked for, {ready} ready of {count}, {} orders",
            begun.elapsed().as_secs(),
            asked.len(),
            site.pebble.orders_created(),
        );
        assert!(progress.1.elapsed() < PATIENCE, "nothing comes any more");
    }
    eprintln!("soak: {count} certificates in {:?} with {kills} kills", begun.elapsed());
    assert!(kills >= 2, "it was over too soon to tell");
    assert_nothing_is_lost(site, count, kills).await;
}

/// Until it has lived for its time and got somewhere, or far, or to the end.
async fn live(site: &Installation, program: &Program, count: usize) {
    let (born, before) = (Instant::now(), site.pebble.certificates_issued());
    until("the next certificate", async || {
        let issued = site.pebble.certificates_issued();
        let is_time = issued > before && born.elapsed() > LIFE;
        let is_enough = issued >= before + count.div_ceil(LIVES);
        // The next one takes up at once what this one has lost sight of.
        let is_stuck = born.elapsed() > Duration::from_mins(1);
        is_time
            || is_enough
            || is_stuck
            || (issued >= count && are_all_ready(site, program, count).await)
    })
    .await;
}

async fn are_all_ready(site: &Installation, program: &Program, count: usize) -> bool {
    all_certificates(site, program).await.iter().filter(|one| is_ready(one)).count() == count
}

/// What the API, the CA and the DNS show when all is over.
async fn assert_nothing_is_lost(mut site: Installation, count: usize, kills: usize) {
    site.set("DNS_SWEEP_INTERVAL", "1s");
    let mut program = site.start().await;
    site.until(&mut program, "/orders?limit=500", |found| {
        items(found).iter().all(|order| order["nextActionAt"].is_null())
    })
    .await;
    until("the end of what was left in the DNS", async || site.left_in_dns().is_empty()).await;
    let found = all_certificates(&site, &program).await;
    assert_eq!(found.iter().filter(|one| is_ready(one)).count(), count, "lost");
    iter(&found)
        .map(|one| site.download(&program, one))
        .buffer_unordered(CLIENTS)
        .for_each(|(chain, key)| async move { assert_key_signs_for(&key, &chain) })
        .await;
    let failed = |one: &&Value| one["status"]["failedIssuanceAttempts"] != 0;
    assert_eq!(found.iter().filter(failed).count(), 0, "no attempt counts as failed");

    let (orders, issued) = (site.pebble.orders_created(), site.pebble.certificates_issued());
    eprintln!("soak: {orders} orders, {issued} issued, nothing lost, nothing left behind");
    // A kill loses the new orders that are in flight at that moment, none or many: it takes more than
    // a few kills for this to be no matter of chance.
    let by_chance = if count < 500 { count / 2 } else { 0 };
    assert!(
        orders <= count + kills + by_chance,
        "{orders} orders for {count} certificates and {kills} kills"
    );
    assert_eq!(site.pebble.accounts_created(), 1);
    program.kill();
    if site.database_url.starts_with("sqlite") {
        let mut connection = SqliteConnection::connect(&site.database_url).await.unwrap();
        let said: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
        assert_eq!(said, "ok");
    }
}

/// Every page of the list; what a dying program does not answer is not there.
async fn all_certificates(site: &Installation, program: &Program) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = "/certificates?limit=500".to_owned();
    while let Ok(page) = site.get(program, &path).await {
        all.extend_from_slice(items(&page.body));
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        path = format!("/certificates?limit=500&cursor={cursor}");
    }
    all
}
