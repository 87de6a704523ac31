//! A real Prometheus that scrapes one target every second, and goes by our alert rules.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::free_port;
use super::patience::until;
use super::process::Server;

/// The name that the alert rules know.
const JOB: &str = "certwright";

pub struct Prometheus {
    address: String,
    http: reqwest::Client,
    _server: Server,
}

impl Prometheus {
    /// Where the metrics are open.
    pub async fn scraping(target: &str) -> Self {
        Self::start(json!({"job_name": JOB, "static_configs": [{"targets": [target]}]})).await
    }

    /// Where they want a key.
    pub async fn scraping_with(key: &str, target: &str) -> Self {
        Self::start(json!({
            "job_name": JOB,
            "authorization": {"credentials": key},
            "static_configs": [{"targets": [target]}],
        }))
        .await
    }

    async fn start(scraped: Value) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        loop {
            let dir = tempfile::tempdir().unwrap();
            let address = format!("127.0.0.1:{}", free_port());
            let config = dir.path().join("prometheus.yaml");
            std::fs::write(dir.path().join("alerts.yaml"), impatient_rules()).unwrap();
            let scrape = json!({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["alerts.yaml"],
                "scrape_configs": [scraped],
            });
            std::fs::write(&config, scrape.to_string()).unwrap();
            let mut command = Command::new("prometheus");
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
            command.arg(format!("--web.listen-address={address}"));
            let mut server = Server::start(dir, "KILL", &command);
            let ready = format!("http://{address}/-/ready");
            let is_ready =
                async || http.get(&ready).send().await.is_ok_and(|it| it.status() == 200);
            // An `Err` is a port that somebody else has taken meanwhile.
            if server.until_ready(is_ready).await.is_ok() {
                return Self { address, http, _server: server };
            }
        }
    }

    /// The series that a query returns, but for those without a number.
    pub async fn ask(&self, query: &str) -> Vec<Value> {
        let url = format!("http://{}/api/v1/query", self.address);
        let answer = self.http.get(url).query(&[("query", query)]).send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let found = answer["data"]["result"].as_array().unwrap().iter();
        found.filter(|one| one["value"][1] != "NaN").cloned().collect()
    }

    /// Waits until an alert fires, or does not.
    pub async fn until_alert(&self, name: &str, fires: bool) {
        let query = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
        let what = if fires { "the alert" } else { "the end of the alert" };
        until(&format!("{what} {name}"), async || self.ask(&query).await.is_empty() != fires).await;
    }
}

/// Our rules, which wait for nothing: what has to hold for minutes before somebody is woken is tested by promtool.
fn impatient_rules() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yaml");
    let rules = std::fs::read_to_string(file).unwrap();
    let kept = rules.lines().filter(|line| !line.trim_start().starts_with("for: "));
    kept.flat_map(|line| [line, "\n"]).collect()
}
