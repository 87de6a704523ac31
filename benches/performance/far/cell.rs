//! So many certificates at a time from a CA so far away: certwright and the floor by turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::against;
use super::super::database::Kind as Database;
use super::super::floor::Floor;
use super::super::ground::{Front, Ground, ZONE};
use super::super::issuance::{at_once, settle};
use super::super::numbers::{median, millis, percentile};
use super::super::report::{Report, Target};
use super::super::service::Service;
use super::super::support::fault_proxy::Kind;
use super::proxy::Distance;

/// What a CA is asked for a certificate, in this order.
const KINDS: [(&str, Kind); 7] = [
    ("newNonce", Kind::Other),
    ("newOrder", Kind::NewOrder),
    ("authz", Kind::Authorization),
    ("challenge", Kind::Challenge),
    ("order", Kind::Order),
    ("finalize", Kind::Finalize),
    ("certificate", Kind::Certificate),
];

/// One line of the table.
pub struct Cell {
    pub distance: Distance,
    pub kind: Database,
    pub at_a_time: usize,
    pub certificates: usize,
    pub runs: usize,
}

/// What one run of one side came to.
struct Run {
    /// Certificates per second.
    rate: f64,
    /// Of each certificate, in milliseconds.
    latencies: Vec<f64>,
    /// ACME requests per certificate: all, and of each of `KINDS`.
    requests: f64,
    kinds: [f64; KINDS.len()],
    /// Calls of Cloudflare's API per certificate.
    calls: f64,
}

impl Cell {
    /// On SQLite, once; several times as many certificates as at a time, so that the steady state counts.
    pub fn of(distance: Distance, at_a_time: usize, certificates: Option<usize>) -> Self {
        let certificates = certificates.unwrap_or_else(|| (4 * at_a_time).max(20));
        Self { distance, kind: Database::Sqlite, at_a_time, certificates, runs: 1 }
    }

    pub async fn measure(&self, report: &mut Report) {
        let [mut floor, mut ours] = [Vec::new(), Vec::new()];
        for run in 0..self.runs {
            eprintln!("far, {}, run {} of {}", self.title(), run + 1, self.runs);
            // In changing order, as the machine's speed drifts.
            if run.is_multiple_of(2) {
                floor.push(self.by_floor(run).await);
                ours.push(self.by_certwright(run).await);
            } else {
                ours.push(self.by_certwright(run).await);
                floor.push(self.by_floor(run).await);
            }
        }
        self.describe("floor", &floor, report);
        self.describe("certwright", &ours, report);
        self.compare(&floor, &ours, report);
    }

    async fn by_floor(&self, run: usize) -> Run {
        let ground = Ground::far(self.distance).await;
        let floor = Arc::new(Floor::start(&ground).await);
        self.run(&ground, run, |name| Arc::clone(&floor).issue(name)).await
    }

    async fn by_certwright(&self, run: usize) -> Run {
        let (ground, database) = (Ground::far(self.distance).await, self.kind.empty().await);
        let service = Service::ready(&ground, &database.url).await;
        self.run(&ground, run, async |name: String| service.issue(&name).await.0).await
    }

    /// As many as at a time come first, and do not count.
    async fn run(
        &self,
        ground: &Ground,
        run: usize,
        issue: impl AsyncFn(String) -> Duration,
    ) -> Run {
        // Both sides have the same names, and so the same validations, each from a CA of its own.
        let names = |kind: &str, count: usize| -> VecDeque<_> {
            (0..count).map(|n| format!("{kind}-{run}-{n}.{ZONE}")).collect()
        };
        at_once(names("warm", self.at_a_time), self.at_a_time, &issue).await;
        settle(ground).await;
        let (asked, calls) = (requests(ground), ground.cloudflare.calls().total());
        let (took, latencies) =
            at_once(names("far", self.certificates), self.at_a_time, &issue).await;
        settle(ground).await;
        assert!(latencies.iter().all(|took| *took >= self.distance.least()), "the CA is not far");
        let now = requests(ground);
        let count = self.certificates as f64;
        let since = |kind: &Kind| {
            let [now, before] = [&now, &asked].map(|of| of.get(kind).copied().unwrap_or_default());
            (now - before) as f64 / count
        };
        Run {
            rate: count / took.as_secs_f64(),
            latencies: millis(&latencies),
            requests: now.keys().map(since).sum(),
            kinds: KINDS.map(|(_, kind)| since(&kind)),
            calls: f64::from(ground.cloudflare.calls().total() - calls) / count,
        }
    }

    fn describe(&self, side: &str, runs: &[Run], report: &mut Report) {
        let title = |what: &str| format!("{}: {side}, {what}", self.title());
        let each = |value: &dyn Fn(&Run) -> f64| -> Vec<f64> { runs.iter().map(value).collect() };
        report.add(title("certificates/s"), "/s", each(&|run| run.rate));
        report.add(title("p50"), "ms", each(&|run| percentile(&run.latencies, 50.0)));
        report.add(title("p99"), "ms", each(&|run| percentile(&run.latencies, 99.0)));
        let kinds = KINDS.iter().enumerate();
        let kinds = kinds.map(|(at, (name, _))| (*name, median(&each(&|run| run.kinds[at]))));
        let requests = each(&|run| run.requests);
        report.add_up(title("ACME requests/certificate"), requests, kinds.collect());
    }

    fn compare(&self, floor: &[Run], ours: &[Run], report: &mut Report) {
        let each = |value: fn(&Run) -> f64| -> Vec<f64> { ours.iter().map(value).collect() };
        let pairs = |value: fn(&Run) -> f64| {
            let theirs: Vec<_> = floor.iter().map(value).collect();
            (each(value), theirs)
        };
        let mut note = |what: &str, runs, target: Option<Target>| {
            let title = format!("{}: {what}", self.title());
            match target.filter(|_| self.is_promised()) {
                Some(target) => report.promise(title, "", runs, target),
                None => report.add(title, "", runs),
            }
        };
        if self.at_a_time == 1 {
            let (ours, theirs) = pairs(mean_latency);
            let ratios = against::ratios(&ours, &theirs);
            note("time / floor's", ratios, Some(Target::AtMost(1.05)));
        } else {
            let (ours, theirs) = pairs(|run| run.rate);
            let ratios = against::ratios(&ours, &theirs);
            note("rate / floor's", ratios, Some(Target::AtLeast(0.95)));
        }
        let (more, fewer) = pairs(|run| run.requests);
        let beyond = more.iter().zip(&fewer).map(|(ours, floor)| ours - floor).collect();
        note("ACME requests beyond floor's", beyond, Some(Target::AtMost(0.0)));
        note("newNonce/certificate", each(|run| run.kinds[0]), Some(Target::AtMost(0.05)));
        let most = (self.at_a_time == 32).then_some(Target::AtMost(0.1));
        note("Cloudflare calls/certificate", each(|run| run.calls), most);
    }

    /// Nothing is promised of PostgreSQL, nor of a CA that says itself when it wants to be asked.
    fn is_promised(&self) -> bool {
        self.kind == Database::Sqlite && self.distance.retry_after.is_none()
    }

    fn title(&self) -> String {
        let database = match self.kind {
            Database::Sqlite => String::new(),
            kind @ Database::Postgres => format!(", {}", kind.name()),
        };
        format!("{}, {} at a time{database}", self.distance, self.at_a_time)
    }
}

fn mean_latency(run: &Run) -> f64 {
    run.latencies.iter().sum::<f64>() / run.latencies.len() as f64
}

/// What the CA has been asked so far.
fn requests(ground: &Ground) -> HashMap<Kind, usize> {
    match &ground.front {
        Front::Distance(proxy) => proxy.requests(),
        Front::Nothing | Front::Faults(_) => HashMap::new(),
    }
}
