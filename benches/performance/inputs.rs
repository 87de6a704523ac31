//! Requests that are made to cost more than their size.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::Options;
use super::database;
use super::report::{Report, Target};
use super::service::{Service, Setup};

/// Fields that no manifest has: 429 kB of them.
const FIELDS: usize = 40_000;

/// Such requests at the same time.
const AT_ONCE: usize = 4;

pub async fn measure(options: &Options, report: &mut Report) {
    let database = database::sqlite();
    let service = Service::start(&Setup { database: &database.url, ..Setup::default() });
    let manifest = manifest();
    let [mut times, mut sizes, mut alive]: [Vec<f64>; 3] = Default::default();
    for _ in 0..options.runs {
        let is_over = AtomicBool::new(false);
        let load = async {
            let answers = join_all((0..AT_ONCE).map(|_| apply(&service, &manifest))).await;
            is_over.store(true, Ordering::Relaxed);
            answers
        };
        let (answers, slowest) = join(load, slowest_health(&service, &is_over)).await;
        times.push(answers.iter().map(|(took, _)| took.as_secs_f64() * 1e3).fold(0.0, f64::max));
        sizes.push(answers.iter().map(|(_, size)| *size as f64 / 1024.0).fold(0.0, f64::max));
        alive.push(slowest.as_secs_f64() * 1e3);
    }
    let title = |what: &str| format!("{FIELDS} unknown fields, {AT_ONCE} at once: {what}");
    report.promise(title("slowest answer"), "ms", times, Target::AtMost(1000.0));
    report.promise(title("answer"), "KiB", sizes, Target::AtMost(64.0));
    report.promise(title("slowest /healthz"), "ms", alive, Target::AtMost(50.0));
}

fn manifest() -> String {
    let mut text = String::from(
        "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: many}\nspec:\n  \
         secretName: many\n  dnsNames: [a.example.com]\n  issuerRef: {name: le}\n",
    );
    for field in 0..FIELDS {
        let _ = writeln!(text, "  f{field}: 1");
    }
    text
}

/// How long the answer took, and its bytes.
async fn apply(service: &Service, manifest: &str) -> (Duration, usize) {
    let url = format!("http://{}/apply?dryRun=true", service.api);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        http.post(url).bearer_auth(&service.key).header("content-type", "application/yaml");
    let begun = Instant::now();
    let answer = request.body(manifest.to_owned()).send().await.unwrap();
    assert!(answer.status().is_client_error(), "{}", answer.status());
    let size = answer.bytes().await.unwrap().len();
    (begun.elapsed(), size)
}

/// The longest that `/healthz` took meanwhile.
async fn slowest_health(service: &Service, is_over: &AtomicBool) -> Duration {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut slowest = Duration::ZERO;
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        http.get(format!("http://{}/healthz", service.api)).send().await.unwrap();
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    slowest
}
