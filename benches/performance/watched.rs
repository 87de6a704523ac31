//! What it costs to be seen: an issuance as it comes, logged and scraped, beside one that nobody looks at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use certwright::telemetry::metrics::calls;
use reqwest::Method;
use serde_json::Value;

use super::Options;
use super::against;
use super::database::Kind;
use super::ground::Ground;
use super::issuance::{Run, at_once, many, names, settle};
use super::report::{Report, Target};
use super::service::{Service, Setup};

/// Much more often than a Prometheus out there scrapes.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);

/// What is counted is counted whether or not it is ever asked for: what that takes is measured by itself.
const SAMPLES: u32 = 200_000;

const BLIND: &[(&str, &str)] = &[("log.level", "off"), ("metrics.enabled", "false")];

/// Metrics and logs may cost so much of the throughput.
const THROUGHPUT: Target = Target::AtLeast(0.97);

/// The runs of one of both.
#[derive(Default)]
struct Side {
    runs: Vec<Run>,
    /// Samples that were counted for each certificate.
    samples: Vec<f64>,
}

pub async fn measure(options: &Options, report: &mut Report) {
    for &kind in options.databases() {
        let [mut watched, mut blind] = [Side::default(), Side::default()];
        for pair in 0..against::pairs(options) {
            eprintln!("watched and not, on {} by turns, pair {}", kind.name(), pair + 1);
            for first in [pair.is_multiple_of(2), !pair.is_multiple_of(2)] {
                if first {
                    watched.run(options, kind, true).await;
                } else {
                    blind.run(options, kind, false).await;
                }
            }
        }
        compare(kind, &watched, &blind, report);
    }
}

impl Side {
    async fn run(&mut self, options: &Options, kind: Kind, is_watched: bool) {
        let (ground, database) = (Ground::start().await, kind.empty().await);
        let more = if is_watched { &[][..] } else { BLIND };
        let setup =
            Setup { database: &database.url, ground: Some(&ground), more, ..Setup::default() };
        let service = Arc::new(Service::ready_as(&setup, &ground).await);
        let warm = names("warm", options.concurrency);
        at_once(warm, options.concurrency, async |name| service.issue(&name).await.0).await;
        settle(&ground).await;

        let issued = many(&ground, &service, options.certificates(), options.concurrency);
        if !is_watched {
            self.runs.push(issued.await);
            return;
        }
        let before = samples(&service).await;
        let run = tokio::select! {
            run = issued => run,
            never = scrape(&service) => match never {},
        };
        let after = samples(&service).await;
        self.samples.push((after - before) / options.certificates() as f64);
        self.runs.push(run);
    }
}

fn compare(kind: Kind, watched: &Side, blind: &Side, report: &mut Report) {
    let title = |what: &str| format!("{}, logged and scraped / neither: {what}", kind.name());
    let ratios = |value: fn(&Run) -> f64| -> Vec<f64> {
        watched.runs.iter().zip(&blind.runs).map(|(one, other)| value(one) / value(other)).collect()
    };
    report.promise(title("throughput"), "", ratios(|run| run.rate), THROUGHPUT);
    report.add(title("CPU/certificate"), "", ratios(|run| run.cpu));
    let each = sample_takes();
    let share = |(samples, run): (&f64, &Run)| samples * each * 1e5 / run.cpu;
    let shares = watched.samples.iter().zip(&watched.runs).map(share).collect();
    report.add(format!("{}: counting, of the CPU/certificate", kind.name()), "%", shares);
}

async fn scrape(service: &Service) -> std::convert::Infallible {
    loop {
        samples(service).await;
        tokio::time::sleep(SCRAPED_EVERY).await;
    }
}

/// Samples that all histograms have counted so far.
async fn samples(service: &Service) -> f64 {
    let Value::String(page) = service.ask(Method::GET, "/metrics", None).await else {
        panic!("metrics are text")
    };
    let counts = page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        name.ends_with("_count").then(|| value.parse::<f64>().ok())?
    });
    counts.sum()
}

/// Seconds that one sample takes, with the counter that goes with it.
fn sample_takes() -> f64 {
    let begun = Instant::now();
    for n in 0..SAMPLES {
        calls::acme("new_order", "201", Duration::from_millis(u64::from(n % 500)));
    }
    begun.elapsed().as_secs_f64() / f64::from(SAMPLES)
}
