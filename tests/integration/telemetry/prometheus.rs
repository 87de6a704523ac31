//! Prometheus' own judgement: of the alert rules, and of the page that they are about.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::installation::{Database, Installation};
use crate::support::patience::until;
use crate::support::process::output;
use crate::support::prometheus::Prometheus;

/// Fails with what `promtool check metrics` has to say.
#[track_caller]
pub(crate) fn assert_taken(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().expect("promtool starts (package prometheus; run scripts/setup)");
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let judged = child.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_alert_comes_when_it_should_and_not_before() {
    let folder = rules().parent().unwrap().to_owned();
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let mut command = Command::new("promtool");
        output(command.args(arguments).current_dir(&folder));
    }
}

/// Each panel's query, asked of a real Prometheus that has scraped an issuance and a failure.
#[tokio::test]
async fn every_panel_of_the_dashboard_has_something_to_show() {
    let mut installation = Installation::on(Database::Sqlite).await;
    installation.set("METRICS_LISTEN", "127.0.0.1:0");
    let mut program = installation.start().await;
    let prometheus = Prometheus::scraping(&program.metrics()).await;
    installation.set_up(&program).await;
    installation.ask_for(&program, "web").await.unwrap();
    installation.until_all_ready(&mut program, 1).await;
    // What has begun can be seen to grow.
    until("the first scrape", async || {
        !prometheus.ask("certwright_issuance_duration_seconds_count").await.is_empty()
    })
    .await;
    installation.ask_for(&program, "again").await.unwrap();
    installation.until_all_ready(&mut program, 2).await;
    let foreign = json!({"name": "foreign", "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
        "dnsNames": ["www.elsewhere.test"]});
    installation.post(&program, "/certificates", &foreign).await.unwrap();

    let text = std::fs::read_to_string(dashboard()).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            until(&format!("{} of {}", query, panel["title"]), async || {
                !prometheus.ask(&query).await.is_empty()
            })
            .await;
        }
    }
}

/// An alert without a test might never come; one without a section leaves whoever it wakes alone.
#[test]
fn every_alert_is_tested_and_has_a_section_in_the_runbook() {
    let alerts = std::fs::read_to_string(rules()).unwrap();
    let tests = std::fs::read_to_string(rules().with_file_name("alerts_test.yaml")).unwrap();
    let runbook = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let names: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        assert!(runbook.contains(&format!("### {name}\n")), "{name} has no section");
        let link = format!("docs/operations.md#{}", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} leads to no section");
    }
}

/// Alerts, and how the line of `doctor` begins that looks at the same thing. Its tests see these lines.
const DOCTORED: &[(&str, &str)] = &[
    ("CertwrightDown", "\"service\""),
    ("CertwrightAbsent", "\"service\""),
    ("CertwrightCertificateExpired", "Phase::Expired"),
    ("CertwrightCertificateExpiring", "\"certificates, ends\""),
    ("CertwrightRenewalLate", "\"certificates, ends\""),
    ("CertwrightRenewalFailing", "Phase::Failed"),
    ("CertwrightCertificateBlocked", "Phase::Blocked"),
    ("CertwrightIssuerNotReady", "\"its account is registered\""),
    ("CertwrightIssuanceLate", "\"certificates, wanted\""),
    ("CertwrightIssuanceFailing", "Phase::Failed"),
    ("CertwrightQueueStuck", "\"queue `{}`\""),
    ("CertwrightInternalFailure", "\"certwright_internal_failures_total\""),
    ("CertwrightCircuitBreakerOpen", "\"certwright_circuit_breakers_open\""),
    ("CertwrightThrottled", "\"throttle\""),
    ("CertwrightBudgetLow", "\"{} {}, limits\""),
    ("CertwrightWebhookDead", "certwright_webhook_deliveries_total"),
    ("CertwrightWebhookNotAnswering", "\"webhooks\""),
    ("CertwrightDatabaseDown", "\"database\""),
    ("CertwrightRowRefused", "\"database, API keys and policies\""),
    ("CertwrightAuditLogBroken", "\"audit log\""),
    ("CertwrightDatabaseSlow", "a row was written, in "),
    ("CertwrightClockOff", "the clocks agree"),
    ("CertwrightDiskFilling", "\"database, disk\""),
];

#[test]
fn doctor_looks_at_whatever_alarms() {
    let alerts = std::fs::read_to_string(rules()).unwrap();
    let doctor = sources(&root().join("src/cli/doctor"));
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let line = DOCTORED.iter().find(|(alert, _)| *alert == name);
        let (_, line) = line.unwrap_or_else(|| panic!("{name}: doctor has no line for it"));
        assert!(doctor.contains(line), "{name}: {line}");
    }
}

/// What rules and dashboard ask for is what the code writes.
#[test]
fn rules_and_documentation_name_only_metrics_that_there_are() {
    let documented = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let known: Vec<_> = names_in(&documented);
    assert!(known.len() > 30, "{known:?}");
    let code = ["src/telemetry/metrics", "src/api/metrics"]
        .map(|folder| sources(&root().join(folder)))
        .concat();
    for name in &known {
        // Those of calls are put together.
        let subject = name.trim_start_matches("certwright_").trim_end_matches("_total");
        let subject = subject.trim_end_matches("_duration_seconds");
        assert!(
            code.contains(name) || code.contains(&format!("\"{subject}\"")),
            "{name} is not in the code"
        );
    }
    let dashboard = std::fs::read_to_string(dashboard()).unwrap();
    let alerts = std::fs::read_to_string(rules()).unwrap();
    for name in names_in(&format!("{alerts} {dashboard}")) {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let base = base.unwrap_or(&name).to_owned();
        assert!(known.contains(&base), "{name} is not documented");
    }
}

fn names_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut names: Vec<_> =
        words.filter(|word| word.starts_with("certwright_")).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn sources(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn dashboard() -> PathBuf {
    root().join("deploy/grafana/certwright.json")
}

fn rules() -> PathBuf {
    root().join("deploy/prometheus/alerts.yaml")
}
