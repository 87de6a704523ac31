//! Schemathesis asks for whatever the description of the API allows, and for what it does not: nothing fails inside, and
//! all answers are as they are described.

use std::process::{Command, Stdio};

use crate::support::databases;
use crate::support::patience::PATIENCE;
use crate::support::postgres::fresh_database;
use crate::support::site::Site;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/schemathesis/bin/python");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis/schemathesis.toml");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

/// How much is asked for.
struct Extent {
    phases: &'static str,
    /// Of each operation, where chance chooses.
    examples: u32,
    /// Requests at least.
    cases: usize,
}

/// What the suite has time for.
const SHORT: Extent = Extent { phases: "examples,fuzzing,stateful", examples: 2, cases: 200 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_by_the_description_is_answered_by_it_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    conforms(&url, SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_by_the_description_is_answered_by_it_on_postgres() {
    conforms(&fresh_database().await, SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make api-fuzz"]
async fn every_check_and_phase_on_sqlite() {
    let (_folder, url) = databases::sqlite_url();
    conforms(&url, all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make api-fuzz"]
async fn every_check_and_phase_on_postgres() {
    conforms(&fresh_database().await, all()).await;
}

fn all() -> Extent {
    let cases = std::env::var("API_FUZZ_CASES").map_or(30_000, |count| count.parse().unwrap());
    Extent { phases: "examples,coverage,fuzzing,stateful", examples: 200, cases }
}

async fn conforms(database: &str, extent: Extent) {
    // It sends wrong keys and much else, all from one address.
    let unlimited = [("limits.failed_authentications", "0"), ("limits.requests_per_second", "0")];
    let site = Site::configured(database, &unlimited).await;
    let folder = tempfile::tempdir().unwrap();

    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--", PYTHON]);
    command.args(["-m", "schemathesis.cli", "--no-color", "--config-file", RULES, "run", DOCUMENT]);
    command.arg("--url").arg(format!("http://{}", site.api));
    command.arg("--header").arg(format!("Authorization: Bearer {}", site.key()));
    command.args(["--checks", "all", "--phases", extent.phases]);
    command.args(["--max-examples", &extent.examples.to_string()]);
    command.args(["--continue-on-failure", "--no-shrink", "--seed", "1", "--warnings", "off"]);
    // A machine that is slow, or busy with something else, is no finding.
    command.args(["--suppress-health-check", "all"]);
    command.arg("--request-timeout").arg(PATIENCE.as_secs().to_string());
    // It keeps what it found where it stands.
    command.current_dir(&folder).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);

    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let count =
        said.split(" generated").next().and_then(|before| before.rsplit([' ', '\n']).next());
    let count: usize = count.unwrap().replace(',', "").parse().unwrap();
    assert!(count >= extent.cases, "{count} requests\n{said}");
    println!("{count} requests, and nothing found");
}
