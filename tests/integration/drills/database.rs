//! The database goes away: for a while, or for good while a standby takes over.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{found_by, said, warnings};
use crate::issuance::assert_key_signs_for;
use crate::support::installation::{Installation, Program, pass};
use crate::support::patience::until;
use crate::support::pebble::PebbleOptions;
use crate::support::postgres::OwnCluster;
use crate::support::postgres_pair::{Pair, socket};
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;
use crate::support::relay::Relay;

/// Certificates that are asked for in peace, and in the middle of the trouble.
const COUNT: usize = 8;

/// In place of five minutes: many more than the service's pauses between two tries.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_away_for_a_while() {
    let cluster = OwnCluster::start().await;
    let server = socket(cluster.folder());
    let relay = Relay::before(server.clone()).await;
    let url = format!("postgres://postgres@{}/postgres?sslmode=disable", relay.address);
    let mut drill = Drill::on(url).await;
    drill.ask_for("before", 0..COUNT).await;

    relay.cut();
    let asked = tokio::join!(drill.persist("meanwhile"), async {
        drill.assert_alarmed().await;
        pass(AWAY).await;
        relay.lead_to(server);
    })
    .0;

    drill.assert_mended(asked).await;
}

/// The proxy follows the primary, as that of Patroni, or a managed database's address, does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_fails_over_to_its_standby() {
    let pair = Pair::start().await;
    let mut drill = Drill::on(pair.url()).await;
    drill.ask_for("before", 0..COUNT).await;

    pair.lose_primary();
    let asked = tokio::join!(drill.persist("meanwhile"), async {
        drill.assert_alarmed().await;
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

    drill.assert_mended(asked).await;
}

/// The real program, watched by a real Prometheus and a webhook.
struct Drill {
    site: Installation,
    program: Program,
    prometheus: Prometheus,
    receiver: Receiver,
}

impl Drill {
    async fn on(url: String) -> Self {
        let mut site = Installation::with(Some(url), PebbleOptions::default()).await;
        site.set("METRICS_LISTEN", "127.0.0.1:0");
        let program = site.start().await;
        let prometheus = Prometheus::scraping(&program.metrics()).await;
        let receiver = Receiver::start().await;
        let hook = json!({"url": receiver.url(), "events": ["certificate.issued"]});
        let made = site.post(&program, "/webhooks", &hook).await.unwrap();
        assert_eq!(made.status, 201, "{made:?}");
        site.set_up(&program).await;
        site.ask_for(&program, "calm").await.unwrap();
        let mut drill = Self { site, program, prometheus, receiver };
        drill.site.until_all_ready(&mut drill.program, 1).await;
        assert_eq!(drill.readiness().await.0, 200);
        assert_eq!(warnings(&drill.program), [""; 0]);
        drill
    }

    async fn readiness(&self) -> (u16, Value) {
        let ready = self.site.get(&self.program, "/readyz").await.unwrap();
        (ready.status, ready.body)
    }

    async fn ask_for(&self, name: &str, numbers: std::ops::Range<usize>) {
        let names: Vec<_> = numbers.map(|n| format!("{name}-{n}")).collect();
        for asked in join_all(names.iter().map(|name| self.site.ask_for(&self.program, name))).await
        {
            assert_eq!(asked.unwrap().status, 202);
        }
    }

    /// Asks like a client that does as it is told, until all are accepted; the ids.
    async fn persist(&self, name: &str) -> Vec<String> {
        let names: Vec<_> = (0..COUNT).map(|n| format!("{name}-{n}")).collect();
        join_all(names.iter().map(async |name| {
            let mut id = String::new();
            until(&format!("acceptance of {name}"), async || {
                let answer = self.site.ask_for(&self.program, name).await.unwrap();
                let is_told = answer.status == 503 && answer.retry_after.is_some();
                assert!(answer.status == 202 || is_told, "{answer:#?}");
                answer.body["id"].as_str().unwrap_or_default().clone_into(&mut id);
                answer.status == 202
            })
            .await;
            id
        }))
        .await
    }

    /// The alarm is raised, and names the cause.
    async fn assert_alarmed(&self) {
        self.prometheus.until_alert("CertwrightDatabaseDown", true).await;
        let (status, why) = self.readiness().await;
        assert_eq!(status, 503, "{why}");
        let why = why.to_string();
        assert!(
            why.contains("The database does not answer: see that it runs and can be reached"),
            "{why}"
        );
        let alive = self.site.get(&self.program, "/healthz").await.unwrap();
        assert_eq!(alive.status, 200, "no restart would help");
        let found = found_by(&said(&self.site, &self.program, &["doctor"]));
        let named = |line: &String| line.starts_with("fail") && line.contains("database");
        assert!(found.iter().any(named), "{found:#?}");
    }

    /// All of it is over by itself: nothing that was accepted is lost, and nothing was issued twice.
    async fn assert_mended(&mut self, accepted: Vec<String>) {
        let ready = self.site.until_all_ready(&mut self.program, 1 + 2 * COUNT).await;
        for id in &accepted {
            assert!(ready.iter().any(|one| one["id"] == **id), "{id} was accepted: {ready:#?}");
        }
        for one in &ready {
            let (chain, key) = self.site.download(&self.program, one).await;
            assert_key_signs_for(&key, &chain);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0, "{one:#}");
        }
        assert_eq!(self.site.pebble.certificates_issued(), ready.len());
        assert_eq!(self.site.left_in_dns(), [""; 0]);
        self.prometheus.until_alert("CertwrightDatabaseDown", false).await;
        until("readiness", async || self.readiness().await.0 == 200).await;
        let told = async || {
            let mut told: Vec<_> =
                self.receiver.got().iter().map(|got| subject(&got.body)).collect();
            told.sort_unstable();
            told.dedup();
            told.len() == ready.len()
        };
        until("a message of each", told).await;
        let events = self.site.get(&self.program, "/events?limit=500").await.unwrap().body;
        let issued = events["items"].as_array().unwrap().iter();
        let issued = issued
            .filter(|event| event["message"].as_str().unwrap().contains("successfully issued"));
        let issued = issued.count();
        assert_eq!(issued, ready.len(), "{events:#}");
        let alarming = warnings(&self.program);
        let about_it = |line: &String| line.contains("database");
        assert!(alarming.iter().any(about_it), "{alarming:#?}");
        assert!(
            alarming.len() <= 20,
            "a line when it changes, and none for each try: {alarming:#?}"
        );
        let found = found_by(&said(&self.site, &self.program, &["doctor"]));
        assert!(!found.iter().any(|line| line.starts_with("fail")), "{found:#?}");
    }
}

/// Whether a check of readiness says that this instance cannot work.
fn blocks(readiness: &Value, name: &str) -> bool {
    let checks = readiness["checks"].as_array().unwrap();
    checks.iter().any(|check| check["name"] == name && check["blocks"] == true)
}

/// The certificate that a message is about.
fn subject(body: &str) -> String {
    let message: Value = serde_json::from_str(body).unwrap();
    message["data"]["name"].as_str().unwrap().to_owned()
}
