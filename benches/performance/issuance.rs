//! From POST to issued, beside the floor: throughput, latency, and what each certificate costs.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Options;
use super::database::{Database, Kind};
use super::floor::Floor;
use super::ground::{Ground, ZONE};
use super::numbers::{median, millis, percentile};
use super::report::{Report, Target};
use super::service::Service;

/// What one run of many certificates came to.
#[derive(Debug, Default, Clone)]
pub struct Run {
    /// Certificates per second.
    pub rate: f64,
    /// Of each certificate, in milliseconds.
    latencies: Vec<f64>,
    /// ACME requests per certificate.
    pub requests: f64,
    /// Calls of Cloudflare's API per certificate.
    pub calls: f64,
    /// Processor time of certwright per certificate, in milliseconds.
    pub cpu: f64,
    /// The most memory, in MiB.
    pub rss: f64,
}

/// The runs of one of those that are compared.
#[derive(Default)]
pub struct Runs {
    pub many: Vec<Run>,
    pub single: Vec<f64>,
    /// All asked for at the same time.
    pub queued: Vec<Run>,
}

pub async fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut bare = Runs::default();
    let mut ours: Vec<(Kind, Runs)> =
        options.databases().iter().map(|kind| (*kind, Runs::default())).collect();
    for run in 0..options.runs {
        eprintln!("issuance, run {} of {}", run + 1, options.runs);
        by_floor(options, &mut bare).await;
        for (kind, runs) in &mut ours {
            by_certwright(options, None, *kind, runs).await;
        }
    }
    describe(report, "floor", &bare, options);
    for (kind, runs) in &ours {
        let name = format!("certwright, {}", kind.name());
        let least = match kind {
            Kind::Sqlite => 0.85,
            Kind::Postgres => 0.80,
        };
        describe(report, &name, runs, options);
        let each = |value: fn(&Run) -> f64| -> Vec<f64> {
            runs.many
                .iter()
                .zip(&bare.many)
                .map(|(ours, floor)| value(ours) / value(floor))
                .collect()
        };
        let title = format!("{name}: throughput / floor's");
        report.promise(title, "", each(|run| run.rate), Target::AtLeast(least));
        let ratios = runs.queued.iter().zip(&bare.many).map(|(ours, floor)| ours.rate / floor.rate);
        let title = format!("{name}: throughput with {} at once / floor's", options.certificates());
        report.add(title, "", ratios.collect());
        let ratios = runs.single.iter().zip(&bare.single).map(|(ours, floor)| ours / floor);
        let title = format!("{name}: single certificate / floor's");
        report.promise(title, "", ratios.collect(), Target::AtMost(1.3));
        let extra =
            runs.many.iter().zip(&bare.many).map(|(run, bare)| run.requests - bare.requests);
        let title = format!("{name}: ACME requests per certificate beyond floor's");
        report.promise(title, "", extra.collect(), Target::AtMost(1.0));
        let calls = runs.queued.iter().map(|run| run.calls).collect();
        let title =
            format!("{name}: Cloudflare calls per certificate, {} at once", options.certificates());
        report.promise(title, "", calls, Target::AtMost(0.05));
        let peak = runs.queued.iter().map(|run| run.rss).collect();
        report.add(format!("{name}: peak memory, {} at once", options.certificates()), "MiB", peak);
    }
    Ok(())
}

fn describe(report: &mut Report, name: &str, runs: &Runs, options: &Options) {
    let each = |value: fn(&Run) -> f64| -> Vec<f64> { runs.many.iter().map(value).collect() };
    let concurrency = options.concurrency;
    report.add(format!("{name}: certificates/s at {concurrency}"), "/s", each(|run| run.rate));
    report.add(format!("{name}: p50"), "ms", each(|run| percentile(&run.latencies, 50.0)));
    report.add(format!("{name}: p99"), "ms", each(|run| percentile(&run.latencies, 99.0)));
    report.add(format!("{name}: one alone"), "ms", runs.single.clone());
    report.add(format!("{name}: ACME requests/certificate"), "", each(|run| run.requests));
    report.add(format!("{name}: Cloudflare calls/certificate"), "", each(|run| run.calls));
    if runs.many.iter().any(|run| run.cpu > 0.0) {
        report.add(format!("{name}: CPU/certificate"), "ms", each(|run| run.cpu));
        report.add(format!("{name}: peak memory"), "MiB", each(|run| run.rss));
    }
}

async fn by_floor(options: &Options, runs: &mut Runs) {
    let ground = Ground::start().await;
    let floor = Arc::new(Floor::start(&ground).await);
    let issue = |name: String| Arc::clone(&floor).issue(name);
    at_once(names("warm", options.concurrency), options.concurrency, issue).await;
    let before = Before::now(&ground);
    let names_of_many = names("floor", options.certificates());
    let (took, latencies) = at_once(names_of_many, options.concurrency, issue).await;
    runs.many.push(before.run(&ground, took, &latencies));
    let mut singles = Vec::new();
    for name in names("floor-single", options.singles) {
        singles.push(issue(name).await);
    }
    runs.single.push(median(&millis(&singles)));
}

/// Each of both from a CA of its own, as the floor: Pebble looks at every authorization that it ever made with
/// each new order, and gets slower with each.
pub async fn by_certwright(options: &Options, program: Option<&Path>, kind: Kind, runs: &mut Runs) {
    let (ground, _database, service) = warm(options, program, kind).await;
    runs.many.push(many(&ground, &service, options.certificates(), options.concurrency).await);
    drop((service, ground));

    let (ground, _database, service) = warm(options, program, kind).await;
    runs.queued.push(many(&ground, &service, options.certificates(), options.certificates()).await);
    let mut singles = Vec::new();
    for name in names("single", options.singles) {
        // One alone is one that nothing else goes before.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        singles.push(service.issue(&name).await.0);
    }
    runs.single.push(median(&millis(&singles)));
}

/// A service for which connections, directory and caches are there.
async fn warm(
    options: &Options,
    program: Option<&Path>,
    kind: Kind,
) -> (Ground, Database, Arc<Service>) {
    let (ground, database) = (Ground::start().await, kind.empty().await);
    let service = Arc::new(Service::ready_by(program, &ground, &database.url).await);
    at_once(names("warm", options.concurrency), options.concurrency, by(&service)).await;
    settle(&ground).await;
    (ground, database, service)
}

/// Many certificates through the API of one service.
pub async fn many(
    ground: &Ground,
    service: &Arc<Service>,
    count: usize,
    concurrency: usize,
) -> Run {
    let before = Before::now(ground);
    let cpu = service.cpu();
    let (took, latencies) = at_once(names("many", count), concurrency, by(service)).await;
    settle(ground).await;
    let mut run = before.run(ground, took, &latencies);
    run.cpu = (service.cpu() - cpu) * 1e3 / count as f64;
    run.rss = service.peak_rss();
    run
}

fn by(service: &Arc<Service>) -> impl AsyncFn(String) -> Duration {
    let service = Arc::clone(service);
    async move |name: String| service.issue(&name).await.0
}

/// Until every proof is cleaned up, which is part of what a certificate costs.
pub async fn settle(ground: &Ground) {
    while !ground.cloudflare.records(ZONE).is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Names that were never used.
pub fn names(kind: &str, count: usize) -> VecDeque<String> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    (0..count).map(|n| format!("{kind}-{n}-{now}.{ZONE}")).collect()
}

/// Works through the names, so many at a time; how long all took, and each.
pub async fn at_once(
    names: VecDeque<String>,
    concurrency: usize,
    issue: impl AsyncFn(String) -> Duration,
) -> (Duration, Vec<Duration>) {
    let names = Mutex::new(names);
    let begun = Instant::now();
    let workers = (0..concurrency).map(|_| async {
        let mut latencies = Vec::new();
        loop {
            let Some(name) = names.lock().unwrap().pop_front() else { return latencies };
            latencies.push(issue(name).await);
        }
    });
    let latencies = join_all(workers).await.concat();
    (begun.elapsed(), latencies)
}

/// Counters before a run.
struct Before {
    requests: usize,
    calls: u32,
}

impl Before {
    fn now(ground: &Ground) -> Self {
        Self { requests: ground.acme_requests(), calls: ground.cloudflare.calls().total() }
    }

    fn run(&self, ground: &Ground, took: Duration, latencies: &[Duration]) -> Run {
        let count = latencies.len() as f64;
        Run {
            rate: count / took.as_secs_f64(),
            latencies: millis(latencies),
            requests: (ground.acme_requests() - self.requests) as f64 / count,
            calls: f64::from(ground.cloudflare.calls().total() - self.calls) / count,
            ..Run::default()
        }
    }
}
