//! This build and another one by turns: what a change has brought, or cost.
//!
//! The machine's speed drifts, so each pair is measured one after the other, in changing order, and only the
//! pairs' own ratios are looked at.

use std::path::Path;

use super::Options;
use super::database::Kind;
use super::issuance::{self, Run, Runs};
use super::report::{Report, Target};

/// Fewer say little.
const FEWEST_PAIRS: usize = 7;

/// A change may cost so much of the throughput that there was before.
const THROUGHPUT: Target = Target::AtLeast(0.93);

/// And so much of what the API answered in a second.
pub const API: Target = Target::AtLeast(0.9);

/// How many pairs are measured.
pub fn pairs(options: &Options) -> usize {
    options.runs.max(FEWEST_PAIRS)
}

/// Which goes first in a pair: `None` is this build.
pub fn turns(pair: usize, other: &Path) -> [Option<&Path>; 2] {
    if pair.is_multiple_of(2) { [None, Some(other)] } else { [Some(other), None] }
}

/// Each pair's ratio, this build's by the other's.
pub fn ratios(this: &[f64], other: &[f64]) -> Vec<f64> {
    this.iter().zip(other).map(|(this, other)| this / other).collect()
}

pub async fn issuance(options: &Options, other: &Path, report: &mut Report) {
    for &kind in options.databases() {
        let [mut this, mut theirs] = [Runs::default(), Runs::default()];
        for pair in 0..pairs(options) {
            eprintln!("issuance on {} by turns, pair {}", kind.name(), pair + 1);
            for program in turns(pair, other) {
                let runs = if program.is_none() { &mut this } else { &mut theirs };
                issuance::by_certwright(options, program, kind, runs).await;
            }
        }
        compare(options, kind, &this, &theirs, report);
    }
}

fn compare(options: &Options, kind: Kind, this: &Runs, other: &Runs, report: &mut Report) {
    let title = |what: &str| format!("{}, this / other: {what}", kind.name());
    let each =
        |runs: &[Run], value: fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(value).collect() };
    let many = |value| ratios(&each(&this.many, value), &each(&other.many, value));
    let queued = |value| ratios(&each(&this.queued, value), &each(&other.queued, value));
    let (concurrency, count) = (options.concurrency, options.certificates());

    report.add(title("this, certificates/s"), "/s", each(&this.many, |run| run.rate));
    report.add(title("other, certificates/s"), "/s", each(&other.many, |run| run.rate));
    let what = title(&format!("throughput at {concurrency}"));
    report.promise(what, "", many(|run| run.rate), THROUGHPUT);
    let what = title(&format!("throughput, {count} at once"));
    report.promise(what, "", queued(|run| run.rate), THROUGHPUT);
    report.add(title("one alone, time"), "", ratios(&this.single, &other.single));
    report.add(title("CPU/certificate"), "", many(|run| run.cpu));
    report.add(title("ACME requests/certificate"), "", many(|run| run.requests));
    report.add(title("Cloudflare calls/certificate"), "", many(|run| run.calls));
    report.add(title("peak memory"), "", many(|run| run.rss));
}
