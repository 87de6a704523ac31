//! The database goes away: for a while, or for good while a standby takes over.

use std::time::Duration;

use super::watched::{COUNT, Trouble, Watched, blocks};
use crate::support::installation::{Installation, pass};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::OwnCluster;
use crate::support::postgres_pair::{Pair, socket};
use crate::support::relay::Relay;

/// In place of five minutes: many more than the service's pauses between two tries.
const AWAY: Duration = Duration::from_secs(5);

const TROUBLE: Trouble = Trouble {
    alert: "CertwrightDatabaseDown",
    readiness: "The database does not answer: see that it runs and can be reached",
    doctor: "database",
    log: "database",
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_away_for_a_while() {
    let cluster = OwnCluster::start().await;
    let server = socket(cluster.folder());
    let relay = Relay::before(server.clone()).await;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", relay.address);
    let mut drill = watched(url).await;
    drill.ask_for("before", 0..COUNT).await;

    relay.cut();
    let asked = tokio::join!(drill.persist("meanwhile"), async {
        drill.assert_alarmed(&TROUBLE).await;
        pass(AWAY).await;
        relay.lead_to(server);
    })
    .0;

    drill.assert_mended(&TROUBLE, asked).await;
}

/// The proxy follows the primary, as that of Patroni, or a managed database's address, does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_fails_over_to_its_standby() {
    let pair = Pair::start().await;
    let mut drill = watched(pair.url()).await;
    drill.ask_for("before", 0..COUNT).await;

    pair.lose_primary();
    let asked = tokio::join!(drill.persist("meanwhile"), async {
        drill.assert_alarmed(&TROUBLE).await;
        // Many a proxy is quicker than the promotion.
        pair.lead_to_standby();
        until("a standby that takes no writes", async || {
            let (status, why) = drill.readiness().await;
            status == 503 && blocks(&why, "writes") && !blocks(&why, "database")
        })
        .await;
        pair.promote_standby().await;
    })
    .0;

    drill.assert_mended(&TROUBLE, asked).await;
}

async fn watched(url: String) -> Watched {
    Watched::on(Installation::with(Some(url), PebbleOptions::default()).await).await
}
