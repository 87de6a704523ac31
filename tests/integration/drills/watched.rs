//! The real program, watched by a real Prometheus and a webhook: what database and disk do to it.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{found_by, warnings};
use crate::issuance::assert_key_signs_for;
use crate::support::installation::{Installation, Program};
use crate::support::patience::until;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;

/// Certificates that are asked for in peace, and in the middle of the trouble.
pub(super) const COUNT: usize = 8;

/// The real program, watched by a real Prometheus and a webhook.
pub(super) struct Watched {
    pub(super) site: Installation,
    pub(super) program: Program,
    prometheus: Prometheus,
    receiver: Receiver,
}

/// What there is to see of a trouble.
pub(super) struct Trouble {
    pub alert: &'static str,
    /// Words of `/readyz`.
    pub readiness: &'static str,
    /// Words of a failure that `doctor` finds.
    pub doctor: &'static str,
    /// Words of a warning in the log.
    pub log: &'static str,
}

impl Watched {
    /// With one certificate issued.
    pub(super) async fn on(mut site: Installation) -> Self {
        site.set("METRICS_LISTEN", "127.0.0.1:0");
        let mut program = site.start().await;
        let receiver = Receiver::start().await;
        let hook = json!({"url": receiver.url(), "events": ["certificate.issued"]});
        let made = site.post(&program, "/webhooks", &hook).await.unwrap();
        assert_eq!(made.status, 201, "{made:?}");
        site.set_up(&program).await;
        site.ask_for(&program, "calm").await.unwrap();
        site.until_all_ready(&mut program, 1).await;
        // From here on only: what it forecasts goes by all that it has seen, however long the beginning took.
        let prometheus = Prometheus::scraping(&program.metrics()).await;
        let watched = Self { site, program, prometheus, receiver };
        assert_eq!(watched.readiness().await.0, 200);
        assert_eq!(warnings(&watched.program), [""; 0]);
        watched
    }

    pub(super) async fn readiness(&self) -> (u16, Value) {
        let ready = self.site.get(&self.program, "/readyz").await.unwrap();
        (ready.status, ready.body)
    }

    pub(super) async fn ask_for(&self, name: &str, numbers: std::ops::Range<usize>) {
        let names: Vec<_> = numbers.map(|n| format!("{name}-{n}")).collect();
        for asked in join_all(names.iter().map(|name| self.site.ask_for(&self.program, name))).await
        {
            assert_eq!(asked.unwrap().status, 202);
        }
    }

    /// Asks like a client that does as it is told, until all are accepted; the ids.
    pub(super) async fn persist(&self, name: &str) -> Vec<String> {
        let names: Vec<_> = (0..COUNT).map(|n| format!("{name}-{n}")).collect();
        join_all(names.iter().map(async |name| {
            let mut id = String::new();
            until(&format!("acceptance of {name}"), async || {
                let answer = self.site.ask_for(&self.program, name).await.unwrap();
                let is_told = [503, 507].contains(&answer.status) && answer.retry_after.is_some();
                assert!(answer.status == 202 || is_told, "{answer:#?}");
                answer.body["id"].as_str().unwrap_or_default().clone_into(&mut id);
                answer.status == 202
            })
            .await;
            id
        }))
        .await
    }

    /// The alarm is raised, and names the cause.
    pub(super) async fn assert_alarmed(&self, trouble: &Trouble) {
        self.prometheus.until_alert(trouble.alert, true).await;
        let (status, why) = self.readiness().await;
        assert_eq!(status, 503, "{why}");
        assert!(why.to_string().contains(trouble.readiness), "{why}");
        let alive = self.site.get(&self.program, "/healthz").await.unwrap();
        assert_eq!(alive.status, 200, "no restart would help");
        let found = found_by(&self.doctor());
        let named = |line: &String| line.starts_with("fail") && line.contains(trouble.doctor);
        assert!(found.iter().any(named), "{found:#?}");
    }

    fn doctor(&self) -> String {
        self.program.doctor(&self.site)
    }

    /// All of it is over by itself: nothing that was accepted is lost, and nothing was issued twice.
    pub(super) async fn assert_mended(&mut self, trouble: &Trouble, accepted: Vec<String>) {
        let ready = self.site.until_all_ready(&mut self.program, 1 + 2 * COUNT).await;
        for id in &accepted {
            assert!(ready.iter().any(|one| one["id"] == **id), "{id} was accepted: {ready:#?}");
        }
        for one in &ready {
            let (chain, key) = self.site.download(&self.program, one).await;
            assert_key_signs_for(&key, &chain);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0, "{one:#}");
        }
        assert_eq!(self.site.pebble.certificates_issued(), ready.len());
        assert_eq!(self.site.left_in_dns(), [""; 0]);
        self.prometheus.until_alert(trouble.alert, false).await;
        until("readiness", async || self.readiness().await.0 == 200).await;
        let told = async || {
            let mut told: Vec<_> =
                self.receiver.got().iter().map(|got| subject(&got.body)).collect();
            told.sort_unstable();
            told.dedup();
            told.len() == ready.len()
        };
        until("a message of each", told).await;
        let events = self.site.get(&self.program, "/events?limit=500").await.unwrap().body;
        let issued = events["items"].as_array().unwrap().iter();
        let issued = issued
            .filter(|event| event["message"].as_str().unwrap().contains("successfully issued"));
        let issued = issued.count();
        assert_eq!(issued, ready.len(), "{events:#}");
        let alarming = warnings(&self.program);
        let about_it = |line: &String| line.contains(trouble.log);
        assert!(alarming.iter().any(about_it), "{alarming:#?}");
        assert!(
            alarming.len() <= 20,
            "a line when it changes, and none for each try: {alarming:#?}"
        );
        let found = found_by(&self.doctor());
        assert!(!found.iter().any(|line| line.starts_with("fail")), "{found:#?}");
    }
}

/// Whether a check of readiness says that this instance cannot work.
pub(super) fn blocks(readiness: &Value, name: &str) -> bool {
    let checks = readiness["checks"].as_array().unwrap();
    checks.iter().any(|check| check["name"] == name && check["blocks"] == true)
}

/// The certificate that a message is about.
pub(super) fn subject(body: &str) -> String {
    let message: Value = serde_json::from_str(body).unwrap();
    message["data"]["name"].as_str().unwrap().to_owned()
}
