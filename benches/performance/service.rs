//! certwright as its users run it: the program itself, in its own process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwright::domain::api_key;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ground::{Front, Ground};
use super::support::pebble::bearable;

/// A running certwright; it ends with this value.
pub struct Service {
    child: Child,
    pub api: SocketAddr,
    pub key: String,
    http: reqwest::Client,
    folder: TempDir,
}

/// How a service is started.
#[derive(Default)]
pub struct Setup<'a> {
    /// `sqlite://` or `postgres://`.
    pub database: &'a str,
    /// What it proves names with; without one it is not able to issue anything.
    pub ground: Option<&'a Ground>,
    /// The API key and the master key of a service on the same database.
    pub keys: Option<(&'a str, &'a str)>,
    /// The program; the one that was built with the benchmark where it is `None`.
    pub program: Option<&'a Path>,
    /// Further settings.
    pub more: &'a [(&'a str, &'a str)],
}

/// Seals what a measurement makes; nothing that is worth keeping from anybody.
pub const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// What has not come to an end by then counts as one that did not work.
const LONGEST: Duration = Duration::from_mins(15);

/// Namespace of the credentials; named, because the default is not the same in every build.
const CREDENTIALS: &str = "credentials";

impl Service {
    /// Starts it and waits until it listens.
    pub fn start(setup: &Setup<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = match setup.keys {
            Some((key, _)) => key.to_owned(),
            // Without its checksum, so that a build from before there was one takes it, too.
            None => api_key::generate_key().unwrap().expose()[..46].to_owned(),
        };
        let master = setup.keys.map_or(MASTER_KEY, |(_, master)| master);
        let mut settings = vec![
            ("data_dir", folder.path().display().to_string()),
            ("database.url", setup.database.to_owned()),
            ("http.listen", "127.0.0.1:0".to_owned()),
            ("http01.listen", "127.0.0.1:0".to_owned()),
            ("outbound.allow", "127.0.0.0/8".to_owned()),
            ("cluster_resource_namespace", CREDENTIALS.to_owned()),
            ("bootstrap.api_key", key.clone()),
            ("master_key", master.to_owned()),
        ];
        settings.extend(setup.more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        if let Some(ground) = setup.ground {
            let dns = ground.cloudflare.dns_addr();
            settings.push(("dns.nameservers", dns.to_string()));
            settings.push(("dns.authority_port", dns.port().to_string()));
        }
        let program = setup.program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_certwright")));
        // The proxy before a far CA lets new orders through one by one: that CA bears whatever comes.
        if !setup.ground.is_some_and(|ground| matches!(ground.front, Front::Distance(_))) {
            // A tree of before has no such setting, and does not need it.
            let known = Command::new(program).arg("config").output().unwrap().stdout;
            if String::from_utf8_lossy(&known).contains("new_orders_ceiling") {
                settings.extend(bearable());
            }
        }
        // `setpriv` becomes certwright: the process is the one whose time is counted.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command.arg("serve");
        for (name, value) in settings {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        let log = File::create(folder.path().join("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let address = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("listening on http://").map(|(_, at)| at.to_owned()));
        let Some(address) = address else {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("certwright did not start:\n{log}");
        };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, api: address.parse().unwrap(), key, http, folder }
    }

    /// Starts it with a `ClusterIssuer` `dns` for the ground's CA, and waits until that is ready.
    pub async fn ready(ground: &Ground, database: &str) -> Self {
        Self::ready_by(None, ground, database).await
    }

    /// The same of another program.
    pub async fn ready_by(program: Option<&Path>, ground: &Ground, database: &str) -> Self {
        let setup = Setup { database, ground: Some(ground), program, ..Setup::default() };
        Self::ready_as(&setup, ground).await
    }

    /// The same of any kind.
    pub async fn ready_as(setup: &Setup<'_>, ground: &Ground) -> Self {
        let service = Self::start(setup);
        service.create_issuer(ground).await;
        service
    }

    async fn create_issuer(&self, ground: &Ground) {
        let secret = json!({"namespace": CREDENTIALS, "name": "cloudflare",
                "stringData": {"api-token": ground.cloudflare.token()}});
        self.ask(Method::POST, "/secrets", Some(&secret)).await;
        let issuer = json!({"kind": "ClusterIssuer", "name": "dns", "acme": {
            "server": ground.directory_url(), "caBundle": STANDARD.encode(ground.ca_pem()),
            "email": "user@example.com",
            "solvers": [{"dns01": {"cloudflare": {
                "baseURL": ground.cloudflare.base_url(),
                "apiTokenSecretRef": {"name": "cloudflare", "key": "api-token"}}}}],
        }});
        let made = self.ask(Method::POST, "/issuers", Some(&issuer)).await;
        let path = format!("/issuers/{}", made["id"].as_str().unwrap());
        for _ in 0..500 {
            if self.ask(Method::GET, &path, None).await["status"]["conditions"][0]["status"]
                == "True"
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the issuer does not get ready: {}", self.ask(Method::GET, &path, None).await);
    }

    /// An issuer that nothing can be issued from: its CA is not there.
    pub async fn create_dead_issuer(&self) {
        let issuer = json!({"kind": "ClusterIssuer", "name": "dead", "acme": {
            "server": "https://127.0.0.1:9/dir", "solvers": [{"http01": {}}]}});
        self.ask(Method::POST, "/issuers", Some(&issuer)).await;
    }

    /// Asks for a certificate, and waits until it is there; how long that took, and its id.
    pub async fn issue(&self, name: &str) -> (Duration, String) {
        self.issue_for(&[name]).await
    }

    /// The same for several names.
    pub async fn issue_for(&self, names: &[&str]) -> (Duration, String) {
        let wanted = certificate_for(names);
        let begun = Instant::now();
        let url = format!("http://{}/certificates", self.api);
        let request = self.http.post(url).bearer_auth(&self.key).header("prefer", "wait=120");
        let answer = request.json(&wanted).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let took = begun.elapsed();
        assert_eq!(answer["status"]["phase"], "Ready", "{answer:#}\n{}", self.log_tail());
        (took, answer["id"].as_str().unwrap().to_owned())
    }

    /// Asks for a certificate, and looks until it has come to an end, however long that takes; whether it
    /// is there.
    pub async fn issue_at_length(&self, name: &str) -> bool {
        let made = self.ask(Method::POST, "/certificates", Some(&certificate(name))).await;
        let path = format!("/certificates/{}", made["id"].as_str().unwrap());
        let until = Instant::now() + LONGEST;
        while Instant::now() < until {
            let seen = self.ask(Method::GET, &path, None).await;
            match seen["status"]["phase"].as_str() {
                Some("Ready") => return true,
                Some("Issuing") => tokio::time::sleep(Duration::from_millis(250)).await,
                _ => return false,
            }
        }
        false
    }

    /// One request that has to succeed.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let url = format!("http://{}{path}", self.api);
        let mut request = self.http.request(method, url).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}\n{}", self.log_tail());
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    /// The `ETag` of what is at `path`.
    pub async fn tag(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.api);
        let answer = self.http.get(url).bearer_auth(&self.key).send().await.unwrap();
        answer.headers()["etag"].to_str().unwrap().to_owned()
    }

    /// Whether it says that it can work.
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("http://{}/readyz", self.api)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Processor time that it has used, in seconds: its own and no other process's.
    pub fn cpu(&self) -> f64 {
        // Linux counts in hundredths of a second towards user space, whatever its own tick is.
        self.cpu_ticks() as f64 / 100.0
    }

    /// The same in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        [11, 12].map(|index: usize| fields[index].parse::<u64>().unwrap()).iter().sum()
    }

    /// Waits until it has nothing to do, for a minute at most.
    pub async fn rests(&self) {
        for _ in 0..120 {
            let before = self.cpu_ticks();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.cpu_ticks() - before <= 1 {
                return;
            }
        }
        eprintln!("certwright is still busy after a minute");
    }

    /// Resident memory now, in MiB.
    pub fn rss(&self) -> f64 {
        self.status("VmRSS:") / 1024.0
    }

    /// The most resident memory so far, in MiB.
    pub fn peak_rss(&self) -> f64 {
        self.status("VmHWM:") / 1024.0
    }

    fn status(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What a client posts.
pub fn certificate(name: &str) -> Value {
    certificate_for(&[name])
}

fn certificate_for(names: &[&str]) -> Value {
    json!({"issuerRef": {"name": "dns", "kind": "ClusterIssuer"}, "dnsNames": names})
}
