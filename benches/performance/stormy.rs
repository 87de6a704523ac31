//! A CA that refuses three requests in ten: what each certificate costs it, beside a calm day.
//!
//! Both by the same proxy before the CA, so that the requests are counted at the same place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use super::against;
use super::database::Kind;
use super::ground::{Front, Ground};
use super::issuance::{at_once, names};
use super::report::{Report, Target};
use super::service::Service;

/// Certificates in each run: most of the time of a stormy one is pauses.
const CERTIFICATES: usize = 100;

/// A tenth each: cut off, a page of HTML with 502, and 503 with a second to wait. The second is drawn from
/// what the first has left over, and so on.
const CUT: u64 = 10;
const PAGES: u64 = 11;
const BUSY: u64 = 12;

/// Requests under refusals may be so many times those of a calm day: with three in ten refused, each has to
/// be put 1.43 times, and what was refused is read back before it is repeated.
const MOST: Target = Target::AtMost(2.5);

/// What a run came to.
struct Weather {
    requests: f64,
    /// Of those that were asked for.
    issued: f64,
    /// Until the last one had come to an end, in seconds.
    took: f64,
}

pub async fn measure(options: &Options, report: &mut Report) {
    let mut runs = Sides::default();
    for run in 0..options.runs {
        eprintln!(
            "stormy, run {} of {}, {CERTIFICATES} certificates, minutes",
            run + 1,
            options.runs
        );
        runs.measure(options, None).await;
    }
    let ratios = runs.describe("certwright", report);
    report.promise("requests/certificate, stormy / calm", "", ratios, MOST);
}

/// The same for this build and another one by turns.
pub async fn by_turns(options: &Options, other: &Path, report: &mut Report) {
    let [mut this, mut theirs] = [Sides::default(), Sides::default()];
    for pair in 0..against::pairs(options) {
        eprintln!("stormy by turns, pair {}, {CERTIFICATES} certificates, minutes", pair + 1);
        for program in against::turns(pair, other) {
            let runs = if program.is_none() { &mut this } else { &mut theirs };
            runs.measure(options, program).await;
        }
    }
    let ratios = this.describe("this", report);
    report.promise("this: requests/certificate, stormy / calm", "", ratios, MOST);
    let ratios = theirs.describe("other", report);
    report.add("other: requests/certificate, stormy / calm", "", ratios);
    let [this, theirs] =
        [this, theirs].map(|runs| runs.stormy.iter().map(|run| run.requests).collect::<Vec<_>>());
    let ratios = against::ratios(&this, &theirs);
    report.add("stormy, this / other: requests/certificate", "", ratios);
}

/// Calm and stormy runs of one program.
#[derive(Default)]
struct Sides {
    calm: Vec<Weather>,
    stormy: Vec<Weather>,
}

impl Sides {
    async fn measure(&mut self, options: &Options, program: Option<&Path>) {
        self.calm.push(run(options, program, false).await);
        self.stormy.push(run(options, program, true).await);
    }

    /// Notes what was seen; requests under refusals by those without.
    fn describe(&self, name: &str, report: &mut Report) -> Vec<f64> {
        for (weather, runs) in [("calm", &self.calm), ("stormy", &self.stormy)] {
            let each =
                |value: fn(&Weather) -> f64| -> Vec<f64> { runs.iter().map(value).collect() };
            let title = |what: &str| format!("{name}, {weather}: {what}");
            report.add(title("ACME requests/certificate"), "", each(|run| run.requests));
            report.add(title("share that was issued"), "", each(|run| run.issued));
            report.add(title("until all had ended"), "s", each(|run| run.took));
        }
        let requests =
            |runs: &[Weather]| -> Vec<f64> { runs.iter().map(|run| run.requests).collect() };
        against::ratios(&requests(&self.stormy), &requests(&self.calm))
    }
}

async fn run(options: &Options, program: Option<&Path>, is_stormy: bool) -> Weather {
    let (ground, database) = (Ground::behind_a_proxy().await, Kind::Sqlite.empty().await);
    let service = Arc::new(Service::ready_by(program, &ground, &database.url).await);
    if let (true, Front::Faults(proxy)) = (is_stormy, &ground.front) {
        proxy.cut(CUT);
        proxy.html_502(PAGES);
        proxy.busy(BUSY, Duration::from_secs(1));
    }
    let (before, issued, begun) = (ground.acme_requests(), AtomicUsize::new(0), Instant::now());
    let issue = async |name: String| {
        if service.issue_at_length(&name).await {
            issued.fetch_add(1, Ordering::Relaxed);
        }
        begun.elapsed()
    };
    at_once(names("stormy", CERTIFICATES), options.concurrency, issue).await;
    Weather {
        requests: (ground.acme_requests() - before) as f64 / CERTIFICATES as f64,
        issued: issued.into_inner() as f64 / CERTIFICATES as f64,
        took: begun.elapsed().as_secs_f64(),
    }
}
