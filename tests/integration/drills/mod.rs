//! Drills: what whoever is on call sees of a trouble, by metrics, readiness, log, events, webhooks and `doctor`, and
//! that all of it ends by itself once the trouble does.
//!
//! Of the metrics, and of what a real Prometheus makes of them, only those are looked at that come from the drill's own
//! database: others are counted for the whole process, in which other tests run. Some drills need a process of their own.

pub(crate) mod clock;
pub(crate) mod database;
pub(crate) mod descriptors;
pub(crate) mod disk;
pub(crate) mod neighbours;
pub(crate) mod outside;
pub(crate) mod replicas;
mod watched;

use std::collections::HashSet;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::support::driven::Driven;
use crate::support::installation::{Installation, Program};
use crate::support::log::Log;
use crate::support::person::Person;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;
use crate::webhooks::hooked;

/// Expands each drill once per database.
macro_rules! on_each_drill {
    ($($(#[$attribute:meta])* async fn $name:ident($drill:ident: Drill) $body:block)*) => {
        mod sqlite {
            use super::*;
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                let (_folder, url) = $crate::support::databases::sqlite_url();
                let mut $drill = Drill::on(&url).await;
                $body
            })*
        }
        mod postgres {
            use super::*;
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                let url = $crate::support::postgres::fresh_database().await;
                let mut $drill = Drill::on(&url).await;
                $body
            })*
        }
    };
}
use on_each_drill;

/// What a webhook is told of certificates.
const TOLD: [&str; 4] =
    ["certificate.issued", "certificate.failed", "certificate.blocked", "certificate.expiring"];

/// What of it alarms.
const ALARMING: &[&str] = TOLD.split_at(1).1;

/// Many more moves of the clock than anything takes.
const MOVES: usize = 2_000;

/// An installation whose clock the test moves, with a webhook and a socket for `doctor`.
struct Drill {
    driven: Driven,
    receiver: Receiver,
    log: Log,
    database: String,
    address: SocketAddr,
    served: JoinHandle<()>,
    prometheus: Prometheus,
    seen: Seen,
}

/// What was looked at before.
#[derive(Default)]
struct Seen {
    lines: usize,
    events: HashSet<String>,
    messages: usize,
}

/// Everything that there is to look at: gauges, and what is new since the last look.
#[derive(Debug)]
struct Picture {
    metrics: String,
    /// The status of `/readyz`.
    ready: u16,
    /// Level, code and message of what the log says of certificates, issuers and webhooks.
    log: Vec<String>,
    /// Reasons and messages.
    events: Vec<String>,
    /// The types of what the webhook got.
    messages: Vec<String>,
    /// The lines of `doctor` that are not `ok`.
    doctor: Vec<String>,
}

impl Drill {
    async fn on(database: &str) -> Self {
        let driven = Driven::on(database, &json!({})).await;
        let (receiver, _) = hooked(&driven.world, json!({})).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service =
            driven.world.router.clone().into_make_service_with_connect_info::<SocketAddr>();
        let served = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let prometheus = Prometheus::scraping_with(&driven.world.admin, &address.to_string()).await;
        let (log, seen, database) = (Log::begin(), Seen::default(), database.to_owned());
        Self { driven, receiver, log, database, address, served, prometheus, seen }
    }

    /// Works on what is due, messages included, until the clock has moved so far.
    async fn pass(&self, time: Duration) {
        let end = self.driven.world.now() + time;
        for _ in 0..MOVES {
            self.work().await;
            if self.driven.world.now() >= end {
                return;
            }
            self.driven.pass_until(end).await;
        }
        panic!("there is always something to do: {:#?}", self.driven.world.certificates().await);
    }

    /// The same with a look at what is due every hour only: by itself, an outage of hours has thousands of tries, each of
    /// which waits a second for the other side.
    async fn scale(&self, time: Duration) {
        for _ in 0..time.whole_hours() {
            self.work().await;
            self.driven.world.clock.advance(Duration::HOUR);
        }
        self.work().await;
    }

    /// Works on what is due at this moment, messages included.
    async fn work(&self) {
        self.driven.step().await;
        self.driven.world.deliver().await;
    }

    /// Asks for certificates of these names.
    async fn ask_for(&self, names: &[&str]) {
        for name in names {
            self.driven.ask_for(name).await;
        }
    }

    async fn until_all_ready(&self) {
        self.driven.until_all_ready().await;
        self.work().await;
    }

    async fn look(&mut self) -> Picture {
        let world = &self.driven.world;
        let metrics = world.get("/metrics").await;
        assert_eq!(metrics.status, 200, "{}", metrics.text);
        let told = self.log.told();
        let log = told[self.seen.lines..].to_vec();
        self.seen.lines = told.len();
        let found = world.get("/events?limit=500").await.json();
        let mut events = Vec::new();
        for event in found["items"].as_array().unwrap() {
            if self.seen.events.insert(event["id"].to_string()) {
                let text = |field: &str| event[field].as_str().unwrap().to_owned();
                events.push(format!("{}: {}", text("reason"), text("message")));
            }
        }
        let types = self.receiver.types();
        let messages = types[self.seen.messages..].to_vec();
        self.seen.messages = types.len();
        let ready = world.get("/readyz").await.status;
        let doctor = self.doctor().await;
        Picture { metrics: metrics.text, ready, log, events, messages, doctor }
    }

    /// Waits, in real time, until an alert fires, or does not.
    async fn until_alert(&self, name: &str, fires: bool) {
        self.prometheus.until_alert(name, fires).await;
    }

    /// What the real program finds, with the settings of this installation.
    async fn doctor(&self) -> Vec<String> {
        let dns = self.driven.cloudflare.dns_addr();
        let settings = [
            ("DATABASE_URL", self.database.clone()),
            ("MASTER_KEY", STANDARD.encode([7; 32])),
            ("HTTP01_LISTEN", "127.0.0.1:0".to_owned()),
            ("DNS_NAMESERVERS", dns.to_string()),
            ("DNS_AUTHORITY_PORT", dns.port().to_string()),
            ("OUTBOUND_ALLOW", "127.0.0.0/8".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (format!("CERTWRIGHT_{name}"), value));
        let (server, key) = (format!("http://{}", self.address), self.driven.world.admin.clone());
        let person = Person { server, key, ..Person::nowhere() };
        // This thread serves what it asks.
        let looked = spawn_blocking(move || person.run_with(&["doctor"], &settings)).await.unwrap();
        found_by(&looked.out)
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// The real program's warnings and errors.
fn warnings(program: &Program) -> Vec<String> {
    let is_alarming =
        |line: &&str| ["\"WARN\"", "\"ERROR\""].iter().any(|level| line.contains(level));
    program.log().lines().filter(is_alarming).map(str::to_owned).collect()
}

/// What a command of ours says, run where the service runs.
fn said(site: &Installation, program: &Program, command: &[&str]) -> String {
    let person = Person {
        server: format!("http://{}", program.api),
        key: site.setting("BOOTSTRAP_API_KEY"),
        ..Person::nowhere()
    };
    person.run_with(command, &site.environment().collect::<Vec<_>>()).out
}

/// The lines of a report that are not `ok`.
fn found_by(report: &str) -> Vec<String> {
    report.lines().filter(|line| !line.starts_with("ok")).map(str::to_owned).collect()
}

impl Picture {
    /// The value of a gauge, which is whole.
    #[track_caller]
    fn gauge(&self, series: &str) -> i64 {
        crate::telemetry::metrics::value(&self.metrics, series)
    }

    #[track_caller]
    fn assert_phase(&self, phase: &str, count: i64) {
        assert_eq!(self.gauge(&format!("certwright_certificates{{phase=\"{phase}\"}}")), count);
    }

    /// Nobody is in trouble. That the double's name servers know few names is a warning of `doctor`, and no failure.
    #[track_caller]
    fn assert_calm(&self) {
        assert_eq!(self.ready, 200, "{self:#?}");
        assert!(self.log.iter().all(|line| line.starts_with("INFO")), "{self:#?}");
        assert!(!self.doctor.iter().any(|line| line.starts_with("fail")), "{self:#?}");
        self.assert_phase("Blocked", 0);
        self.assert_phase("Failed", 0);
        assert_eq!(self.gauge("certwright_issuer_ready{issuer=\"le\",kind=\"ClusterIssuer\"}"), 1);
        assert_eq!(self.gauge("certwright_certificates_renewal_failing"), 0);
    }

    #[track_caller]
    fn assert_one_of(lines: &[String], words: &[&str]) {
        let found = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?}: {lines:#?}");
    }

    #[track_caller]
    fn assert_logged(&self, words: &[&str]) {
        let found = self.log.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?}: {self:#?}");
    }

    /// The log names the cause, in one warning.
    #[track_caller]
    fn assert_warned_once(&self, words: &[&str]) {
        let warnings: Vec<_> =
            self.log.iter().filter(|line| !line.starts_with("INFO")).cloned().collect();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        Self::assert_one_of(&warnings, words);
    }
}
