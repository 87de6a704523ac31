//! The real program with a data directory of its own, to be killed, stopped, paused and started again,
//! beside a real Pebble and a double of Cloudflare that remember what it did.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use certwright::domain::api_key;
use certwright::secret::Sealer;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cloudflare::Cloudflare;
use super::patience::{PATIENCE, until};
use super::pebble::{BEARS, Pebble, PebbleOptions};
use super::process::{output, spawn};

const ADDRESS_LINE: &str = "certwright: listening on http://";

/// Which database, a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

pub struct Installation {
    pub pebble: Pebble,
    pub cloudflare: Cloudflare,
    pub database_url: String,
    pub folder: TempDir,
    settings: HashMap<String, String>,
    descriptors: Option<u32>,
    /// The size of the disk that the database has to itself.
    pub(super) disk: Option<u64>,
    key: String,
    http: reqwest::Client,
}

/// A process of it; killed when dropped.
pub struct Program {
    pub api: String,
    pub(super) child: Child,
    said: TempDir,
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub replayed: bool,
    pub body: Value,
}

impl Installation {
    pub async fn on(database: Database) -> Self {
        let url = match database {
            Database::Sqlite => None,
            Database::Postgres => Some(super::postgres::fresh_database().await),
        };
        Self::with(url, PebbleOptions::default()).await
    }

    /// On a given database; SQLite in its own folder otherwise.
    pub async fn with(database_url: Option<String>, pebble: PebbleOptions) -> Self {
        let cloudflare = Cloudflare::start(&["example.com", "example.org"]).await;
        let dns = Some(cloudflare.dns_addr());
        let pebble = Pebble::start(PebbleOptions { dns, ..pebble }).await;
        let folder = TempDir::with_prefix("certwright-installation-").unwrap();
        let database_url = database_url.unwrap_or_else(|| {
            format!("sqlite://{}", folder.path().join("certwright.db").display())
        });
        let key = api_key::generate_key().unwrap().expose().clone();
        let dns = cloudflare.dns_addr();
        let settings = [
            ("DATABASE_URL", database_url.clone()),
            ("DATA_DIR", folder.path().display().to_string()),
            ("HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("HTTP01_LISTEN", "127.0.0.1:0".to_owned()),
            ("DNS_NAMESERVERS", dns.to_string()),
            ("DNS_AUTHORITY_PORT", dns.port().to_string()),
            ("OUTBOUND_ALLOW", "127.0.0.0/8".to_owned()),
            ("BOOTSTRAP_API_KEY", key.clone()),
            ("MASTER_KEY", Sealer::generate().unwrap().expose().clone()),
            ("WORKER_LEASE", "1s".to_owned()),
            ("WORKER_NEW_ORDERS_START", BEARS.start.to_string()),
            ("WORKER_NEW_ORDERS_CEILING", BEARS.ceiling.to_string()),
            ("LOG_FORMAT", "json".to_owned()),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            pebble,
            cloudflare,
            database_url,
            settings,
            descriptors: None,
            disk: None,
            key,
            http,
            folder,
        }
    }

    /// Another value of a setting for whatever starts from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another database of the same kind, empty, for whatever starts from now on.
    pub async fn change_database(&mut self) {
        self.database_url = if self.database_url.starts_with("postgres") {
            super::postgres::fresh_database().await
        } else {
            format!("{}-next.db", self.database_url.trim_end_matches(".db"))
        };
        self.set("DATABASE_URL", &self.database_url.clone());
    }

    /// So many descriptors for whatever starts from now on.
    pub fn limit_descriptors(&mut self, most: u32) {
        self.descriptors = Some(most);
    }

    pub fn setting(&self, name: &str) -> String {
        self.settings[name].clone()
    }

    /// The program, with nothing to fear.
    pub async fn start(&self) -> Program {
        self.start_with("").await
    }

    /// The program, which dies at these places (`name=action`, as crate `fail` has it).
    pub async fn start_with(&self, failpoints: &str) -> Program {
        let mut program = self.launch(&["serve"], failpoints);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(api) = program.address() {
                program.api = api;
                return program;
            }
            assert!(program.child.try_wait().unwrap().is_none(), "it ended: {}", program.log());
            tick().await;
        }
        panic!("it does not listen: {}", program.log());
    }

    /// The settings, for others on its machine.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let settings = self.settings.iter();
        settings.map(|(name, value)| (format!("CERTWRIGHT_{name}"), value.clone()))
    }

    /// Any subcommand, without waiting for anything.
    pub fn launch(&self, arguments: &[&str], failpoints: &str) -> Program {
        let said = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(said.path().join(name)).unwrap());
        let mut command = Command::new("setpriv");
        if let Some(most) = self.descriptors {
            command = Command::new("prlimit");
            command.args([&format!("--nofile={most}:{most}"), "--", "setpriv"]);
        }
        if let Some(size) = self.disk {
            command = super::small_disk::mounting(size);
        }
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_certwright")]);
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment());
        if !failpoints.is_empty() {
            command.env("FAILPOINTS", failpoints);
        }
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let child = spawn(command).expect("setpriv starts (package util-linux; run scripts/setup)");
        Program { api: String::new(), child, said }
    }

    /// A credential and the `ClusterIssuer` `dns`. With a program that is to die meanwhile, answers
    /// may fail.
    pub async fn set_up(&self, program: &Program) {
        let ca = (self.pebble.directory_url(), self.pebble.ca_bundle());
        self.set_up_at(program, ca).await;
    }

    /// The same at whatever stands before the CA: its directory and its `caBundle`.
    pub async fn set_up_at(&self, program: &Program, (server, bundle): (String, String)) {
        let secret = json!({"namespace": "certwright", "name": "cloudflare", "stringData": {"api-token": self.cloudflare.token()}});
        self.post(program, "/secrets", &secret).await.ok();
        let issuer = json!({"kind": "ClusterIssuer", "name": "dns", "acme": {
            "server": server, "caBundle": bundle, "email": "user@example.com",
            "solvers": [{"dns01": {"cloudflare": {
                "baseURL": self.cloudflare.base_url(),
                "apiTokenSecretRef": {"name": "cloudflare", "key": "api-token"}}}}],
        }});
        self.post(program, "/issuers", &issuer).await.ok();
    }

    /// Asks for a certificate for `NAME.example.com`, of that name and under that `Idempotency-Key`.
    pub async fn ask_for(&self, program: &Program, name: &str) -> reqwest::Result<Answer> {
        let wanted = json!({
            "name": name, "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
            "dnsNames": [format!("{name}.example.com")],
        });
        let request = self.request(program, Method::POST, "/certificates").json(&wanted);
        answer(request.header("idempotency-key", name)).await
    }

    /// The same as a part of a trace.
    pub async fn ask_in(&self, program: &Program, name: &str, traceparent: &str) {
        let wanted = json!({
            "name": name, "issuerRef": {"name": "dns", "kind": "ClusterIssuer"},
            "dnsNames": [format!("{name}.example.com")],
        });
        let request = self.request(program, Method::POST, "/certificates").json(&wanted);
        // A program that is to die may be gone before it has answered.
        answer(request.header("traceparent", traceparent)).await.ok();
    }

    pub async fn post(
        &self,
        program: &Program,
        path: &str,
        body: &Value,
    ) -> reqwest::Result<Answer> {
        answer(self.request(program, Method::POST, path).json(body)).await
    }

    pub async fn get(&self, program: &Program, path: &str) -> reqwest::Result<Answer> {
        answer(self.request(program, Method::GET, path)).await
    }

    pub async fn delete(&self, program: &Program, path: &str) -> reqwest::Result<Answer> {
        answer(self.request(program, Method::DELETE, path)).await
    }

    fn request(&self, program: &Program, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", program.api);
        self.http.request(method, url).bearer_auth(&self.key).timeout(PATIENCE)
    }

    /// Until `holds` says so of what is at `path`.
    pub async fn until(
        &self,
        program: &mut Program,
        path: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        self.until_within(PATIENCE, program, path, holds).await
    }

    pub async fn until_within(
        &self,
        patience: Duration,
        program: &mut Program,
        path: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < patience {
            if let Ok(found) = self.get(program, path).await {
                if found.status == 200 && holds(&found.body) {
                    return found.body;
                }
                last = Some(found);
            }
            assert!(program.child.try_wait().unwrap().is_none(), "it ended: {}", program.log());
            tick().await;
        }
        panic!("{path} never came to it: {last:#?}\n{}", program.log());
    }

    /// Every certificate, once all are ready and nothing is left to be cleaned up.
    pub async fn until_all_ready(&self, program: &mut Program, count: usize) -> Vec<Value> {
        let found = self
            .until_within(3 * PATIENCE, program, "/certificates?limit=500", |found| {
                let items = items(found);
                items.len() == count && items.iter().all(is_ready)
            })
            .await;
        self.until(program, "/orders?limit=500", |found| {
            items(found).iter().all(|order| order["nextActionAt"].is_null())
        })
        .await;
        items(&found).to_vec()
    }

    /// Chain and key of what is served for a certificate.
    pub async fn download(&self, program: &Program, certificate: &Value) -> (String, String) {
        let id = certificate["id"].as_str().unwrap();
        // A renewal may end between the two.
        let revision = &certificate["status"]["revision"];
        let mut texts = Vec::new();
        for what in ["fullchain.pem", "privkey.pem"] {
            let path = format!("/certificates/{id}/{what}?revision={revision}");
            let found = self.get(program, &path).await.unwrap();
            assert_eq!(found.status, 200, "{found:?}");
            texts.push(found.body.as_str().unwrap().to_owned());
        }
        (texts.remove(0), texts.remove(0))
    }

    /// What is left in the DNS of what this installation wrote.
    pub fn left_in_dns(&self) -> Vec<String> {
        let ours = self.cloudflare.records("example.com").into_iter();
        ours.filter(|record| {
            record.comment.as_deref().is_some_and(|c| c.starts_with("certwright "))
        })
        .map(|record| record.name)
        .collect()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let answer = request.send().await?;
    let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (status, retry_after) = (answer.status().as_u16(), header("retry-after"));
    let replayed = header("idempotency-replayed").is_some();
    let text = answer.text().await?;
    super::asking::assert_no_words_of_rust(&text);
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, retry_after, replayed, body })
}

pub fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}

pub fn is_ready(certificate: &Value) -> bool {
    certificate["status"]["phase"] == "Ready"
}

#[expect(clippy::disallowed_methods, reason = "whoever polls does sleep")]
pub async fn tick() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[expect(clippy::disallowed_methods, reason = "time that has to pass in the real world")]
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

impl Program {
    fn address(&self) -> Option<String> {
        let out = fs::read_to_string(self.said.path().join("out")).unwrap_or_default();
        let line = out.lines().find_map(|line| line.strip_prefix(ADDRESS_LINE))?;
        out.ends_with('\n').then(|| line.to_owned())
    }

    /// Where the HTTP-01 responder listens.
    pub fn responder(&self) -> String {
        self.listens("http01")
    }

    /// Where the metrics have a listener of their own.
    pub fn metrics(&self) -> String {
        self.listens("metrics")
    }

    fn listens(&self, what: &str) -> String {
        let log = self.log();
        let mut lines =
            log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = lines.find_map(|line| line[what].as_str().map(str::to_owned));
        found.expect("it says where when it is ready")
    }

    /// Memory that it has taken, in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.said.path().join("err")).unwrap_or_default()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(self.said.path().join("out")).unwrap_or_default()
    }

    /// What `doctor` finds where the program runs.
    pub fn doctor(&self, site: &Installation) -> String {
        let mut command = self.beside(site, env!("CARGO_BIN_EXE_certwright"));
        command.arg("doctor").current_dir("/").env_clear().envs(site.environment());
        command.env("CERTWRIGHT_SERVER", format!("http://{}", self.api));
        command.env("CERTWRIGHT_API_KEY", site.setting("BOOTSTRAP_API_KEY"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        String::from_utf8(output(&mut command).stdout).unwrap()
    }

    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets it have so many files open from now on.
    pub fn limit_descriptors(&self, most: u32) {
        let (id, most) = (self.child.id().to_string(), format!("--nofile={most}:"));
        let done = Command::new("prlimit").args(["--pid", &id, &most]).status().unwrap();
        assert!(done.success());
    }

    /// Waits until it has stopped at a place that was chosen.
    pub async fn until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        until("the stop", async || {
            // The state comes after the name, which is in brackets.
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
        .await;
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended by itself.
    pub async fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tick().await;
        }
        panic!("it goes on and on: {}", self.log());
    }

    /// Waits until it has died at a place that was chosen.
    pub async fn die(mut self) {
        let status = self.end().await;
        assert_eq!(status.signal(), Some(6), "{status}: {}", self.log());
    }

    /// As `kill -9` does it.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As `systemctl stop` does it.
    pub async fn stop(mut self) {
        self.send(Signal::TERM);
        let status = self.end().await;
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
