//! The program itself as an operator sees it: the real binary, in an empty folder and a clean
//! environment.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::patience::PATIENCE;
use crate::support::{ClosedPort, databases, postgres};

const SUBCOMMANDS: [&str; 5] = ["serve", "migrate", "secrets", "config", "openapi"];
const KEY_LINE: &str = "certwright: admin API key, shown this once: ";
const ADDRESS_LINE: &str = "certwright: listening on http://";
/// A well-formed master key that nobody uses: 32 bytes of base64.
const OTHER_MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

// Help

#[test]
fn help_shows_examples_and_every_subcommand() {
    let ended = Place::new().run(&["--help"]).succeeded();

    assert!(ended.out.contains("Examples:\n  certwright serve"), "{ended:?}");
    for subcommand in SUBCOMMANDS {
        let described = |line: &str| line.trim_start().starts_with(&format!("{subcommand} "));
        assert!(ended.out.lines().any(described), "{subcommand}: {ended:?}");
        let own = Place::new().run(&[subcommand, "--help"]).succeeded();
        assert!(own.out.contains(&format!("Usage: certwright {subcommand}")), "{own:?}");
    }
}

#[test]
fn the_version_is_one_line() {
    let ended = Place::new().run(&["--version"]).succeeded();

    assert_eq!(ended.out, format!("certwright {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    for (arguments, named) in
        [(&["sevre"][..], "sevre"), (&["serve", "--prot"], "--prot"), (&[], "Usage:")]
    {
        let ended = Place::new().run(arguments);

        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(named) && ended.out.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in [&["openapi"][..], &["config"], &["config", "--markdown"], &["migrate"]] {
        let place = Place::new();
        let mut child = place.start_with(arguments, Stdio::piped());
        drop(child.child.stdout.take());

        let ended = child.end();
        assert!(!ended.err.contains("panic"), "{arguments:?}: {ended:?}");
        ended.succeeded();
    }
}

#[test]
fn a_service_outlives_the_reader_of_its_output() {
    let place = Place::new().ports();
    let mut child = place.start_with(&["serve"], Stdio::piped());
    drop(child.child.stdout.take());
    child.until("it is ready", |child| child.err().contains("\"ready\""));

    let ended = child.stop();
    assert!(!ended.err.contains("panic"), "{ended:?}");
    ended.succeeded();
}

#[test]
fn a_service_outlives_the_reader_of_its_log_and_stops_when_it_is_told_to() {
    let place = Place::new().ports();
    let mut child = place.start_logging_to(Stdio::piped(), &["serve"]);
    drop(child.child.stderr.take());
    child.until("it listens", |child| child.out().contains(ADDRESS_LINE));

    child.stop().succeeded();
}

// Settings

#[test]
fn settings_are_shown_with_their_sources_and_without_secrets() {
    let place = Place::new()
        .file("certwright.toml", "[bootstrap]\napi_key = \"hunter1\"\n[log]\nlevel = \"debug\"\n")
        .env("CERTWRIGHT_DATABASE_URL", "postgres://certwright:hunter2@db/certwright")
        .env("CERTWRIGHT_MASTER_KEY", "hunter3")
        .env("CERTWRIGHT_WORKER_CONCURRENCY", "7");
    let ended = place.run(&["config", "--set", "log.format=json"]).succeeded();

    for line in [
        "data_dir = \"./data\" # default",
        "level = \"debug\" # certwright.toml",
        "concurrency = \"7\" # environment variable CERTWRIGHT_WORKER_CONCURRENCY",
        "format = \"json\" # flag",
        "api_key = \"(redacted)\" # certwright.toml",
        "url = \"(redacted)\" # environment variable CERTWRIGHT_DATABASE_URL",
        "master_key = \"(redacted)\" # environment variable CERTWRIGHT_MASTER_KEY",
    ] {
        assert!(ended.out.lines().any(|shown| shown == line), "{line}: {ended:?}");
    }
    assert!(!ended.everything().contains("hunter"), "{ended:?}");
    assert!(!place.data().exists(), "showing settings makes nothing");
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let text = "[http]\nlisten = \"127.0.0.1:1\"\n[http01]\nlisten = \"127.0.0.1:2\"\n[log]\nlevel = \"warn\"\n";
    for flag in ["--config", "-c"] {
        let place = Place::new()
            .file("my.toml", text)
            .file("certwright.toml", "[log]\nlevel = \"trace\"\n")
            .env("CERTWRIGHT_HTTP_LISTEN", "127.0.0.1:3")
            .env("CERTWRIGHT_HTTP01_LISTEN", "127.0.0.1:4");
        let set = ["--set", "http.listen=127.0.0.1:5"];
        let ended = place.run(&[&[flag, "my.toml", "config"], &set[..]].concat()).succeeded();

        for line in [
            "listen = \"127.0.0.1:5\" # flag",
            "listen = \"127.0.0.1:4\" # environment variable CERTWRIGHT_HTTP01_LISTEN",
            "level = \"warn\" # my.toml",
        ] {
            assert!(ended.out.lines().any(|shown| shown == line), "{line}: {ended:?}");
        }
        // The same flags after the subcommand, and the file from the environment.
        let after = place.run(&[&["config", flag, "my.toml"], &set[..]].concat()).succeeded();
        assert_eq!(after.out, ended.out);
        let place = place.env("CERTWRIGHT_CONFIG", "my.toml");
        assert_eq!(place.run(&[&["config"], &set[..]].concat()).succeeded().out, ended.out);
    }
}

#[test]
fn a_variable_that_nobody_knows_stops_every_command() {
    for command in ["config", "migrate", "serve"] {
        let place = Place::new().env("CERTWRIGHT_HTTP_LISSTEN", "127.0.0.1:1");
        let ended = place.run(&[command]).failed();

        assert!(ended.err.contains("CERTWRIGHT_HTTP_LISSTEN"), "{ended:?}");
        assert!(ended.err.contains("did you mean \"CERTWRIGHT_HTTP_LISTEN\"?"), "{ended:?}");
        assert!(!place.data().exists(), "{command} made something");
    }
}

#[test]
fn a_key_that_nobody_knows_is_named_with_its_file() {
    let place = Place::new().file("certwright.toml", "[http]\nlissten = \"127.0.0.1:1\"\n");
    let ended = place.run(&["config"]).failed();

    assert!(ended.err.contains("certwright.toml"), "{ended:?}");
    assert!(ended.err.contains("\"http.lissten\"; did you mean \"http.listen\"?"), "{ended:?}");
    let flag = Place::new().run(&["config", "--set", "log.levle=debug"]).failed();
    assert!(flag.err.contains("flag: there is no setting \"log.levle\""), "{flag:?}");
}

#[test]
fn a_value_that_makes_no_sense_is_named_with_where_it_came_from() {
    for command in ["config", "migrate", "serve"] {
        let place = Place::new().env("CERTWRIGHT_HTTP_LISTEN", "8080");
        let ended = place.run(&[command]).failed();

        assert!(ended.err.contains("CERTWRIGHT_HTTP_LISTEN: http.listen = \"8080\""), "{ended:?}");
        assert!(!place.data().exists(), "{command} made something");
    }
    let text = "[worker]\nconcurrency = 0\n";
    let ended = Place::new().file("my.toml", text).run(&["-c", "my.toml", "config"]).failed();
    assert!(ended.err.contains("my.toml: worker.concurrency = \"0\""), "{ended:?}");
}

#[test]
fn a_log_level_that_is_none_is_named() {
    let place = Place::new().env("CERTWRIGHT_LOG_LEVEL", "certwright=loud");

    let ended = place.run(&["serve"]).failed();
    assert!(ended.err.contains("log.level = \"certwright=loud\""), "{ended:?}");
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let ended = Place::new().run(&["--config", "missing.toml", "config"]).failed();

    assert!(ended.err.contains("missing.toml"), "{ended:?}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_without_showing_what_it_holds() {
    for text in [
        "[log]\nlevel = \"info\"\n[bootstrap]\napi_key = \"hunter2\n",
        "master_key = hunter2\n",
        "[database]\nurl = \"postgres://u:hunter2@h/d\" x\n",
    ] {
        let ended = Place::new().file("certwright.toml", text).run(&["config"]).failed();

        assert!(ended.err.contains("certwright.toml"), "{ended:?}");
        assert!(ended.err.contains(&format!("line {}", text.lines().count())), "{ended:?}");
        assert!(!ended.everything().contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_refused_without_its_password() {
    let closed = ClosedPort::new();
    for url in [
        format!("postgres://certwright:hunter2@{}/certwright", closed.address()),
        "postgres://certwright:hunter2@127.0.0.1:port/certwright".to_owned(),
        "postgres://certwright:hunter2@127.0.0.1/certwright?sslmode=hunter2x".to_owned(),
        "mysql://certwright:hunter2@127.0.0.1/certwright".to_owned(),
    ] {
        let ended = Place::new().env("CERTWRIGHT_DATABASE_URL", &url).run(&["migrate"]).failed();

        assert!(ended.err.contains("database"), "{ended:?}");
        assert!(!ended.everything().contains("certwright:hunter2"), "{ended:?}");
    }
}

// The first start, and the next ones

#[test]
fn the_first_start_needs_no_configuration() {
    let place = Place::new();
    let child = place.serve();
    let out = child.out();
    let lines: Vec<_> = out.lines().collect();

    let [key, address] = lines[..] else { panic!("{out}") };
    let key = key.strip_prefix(KEY_LINE).unwrap();
    let address = address.strip_prefix(ADDRESS_LINE).unwrap();
    let secret = key.strip_prefix("cw_").unwrap();
    assert_eq!(secret.len(), 43, "{out}");
    assert!(secret.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{out}");
    assert_eq!(whoami(address, key), 200);
    assert_eq!(whoami(address, &format!("cw_{}", "A".repeat(43))), 401);
    assert_eq!(mode(&place.data()), 0o700);
    assert_eq!(mode(&place.master_key()), 0o600);
    assert!(place.data().join("certwright.db").is_file());
    let ended = child.stop().succeeded();
    assert!(!ended.err.contains(secret), "the key is in no log");

    let child = place.serve();
    assert_eq!(child.out(), format!("{ADDRESS_LINE}{}\n", child.address()));
    assert_eq!(whoami(&child.address(), key), 200);
    child.stop().succeeded();
}

#[test]
fn flags_of_serve_are_settings() {
    let place = Place::new();
    let child = place.serve_with(&["--data-dir", "elsewhere", "--log-format", "text"]);

    assert!(!place.data().exists());
    assert_eq!(mode(&place.dir.path().join("elsewhere/master.key")), 0o600);
    let ended = child.stop().succeeded();
    assert!(ended.err.contains("INFO") && !ended.err.contains("{\""), "{ended:?}");
}

#[test]
fn a_bootstrap_key_is_taken_and_never_printed() {
    let key = format!("cw_{}", "A".repeat(43));
    let place = Place::new().env("CERTWRIGHT_BOOTSTRAP_API_KEY", &key);
    for _ in 0..2 {
        let child = place.serve();
        assert_eq!(whoami(&child.address(), &key), 200);

        let ended = child.stop().succeeded();
        assert!(!ended.everything().contains(&key), "{ended:?}");
    }
}

#[test]
fn a_bootstrap_key_that_is_none_is_refused_without_printing_it() {
    for wrong in ["hunter2", "cw_hunter2", &format!("cw_hunter2{}", "=".repeat(36))] {
        let place = Place::new().ports().env("CERTWRIGHT_BOOTSTRAP_API_KEY", wrong);
        let ended = place.run(&["serve"]).failed();

        assert!(ended.err.contains("`bootstrap.api_key` is not an API key"), "{ended:?}");
        assert!(!ended.everything().contains("hunter2"), "{ended:?}");
        assert!(!ended.out.contains(ADDRESS_LINE), "{ended:?}");
    }
}

#[test]
fn of_two_first_starts_at_once_on_sqlite_one_serves_and_the_other_says_so() {
    let place = Place::new();
    let started: Vec<_> = (0..2).map(|_| place.start_serving()).collect();
    let (children, others): (Vec<_>, Vec<_>) = started
        .into_iter()
        .map(|mut child| {
            let listens = child.comes_to(|child| child.out().contains(ADDRESS_LINE));
            (listens, child)
        })
        .partition(|(listens, _)| *listens);

    assert_eq!(children.len(), 1);
    let children: Vec<_> = children.into_iter().map(|(_, child)| child).collect();
    for (_, other) in others {
        let ended = other.end().failed();
        assert!(ended.err.contains("another certwright serves from this database"), "{ended:?}");
        assert!(!ended.out.contains(KEY_LINE), "{ended:?}");
    }
    let key = children[0].key().expect("one key was made");
    assert_eq!(whoami(&children[0].address(), &key), 200);
    let names = fs::read_dir(place.data()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let keys: Vec<_> = names.filter(|name| name.contains("master.key")).collect();
    assert_eq!(keys, ["master.key"]);
    for child in children {
        child.stop().succeeded();
    }
}

// Master key

#[test]
fn a_master_key_that_others_can_read_is_refused() {
    let place = Place::new();
    place.serve().stop().succeeded();
    for open in [0o644, 0o604, 0o660] {
        fs::set_permissions(place.master_key(), fs::Permissions::from_mode(open)).unwrap();
        let ended = place.start_serving().end().failed();

        assert!(ended.err.contains("`chmod 600 ./data/master.key`"), "{ended:?}");
    }
    fs::set_permissions(place.master_key(), fs::Permissions::from_mode(0o600)).unwrap();
    place.serve().stop().succeeded();
}

#[test]
fn another_master_key_is_refused() {
    let place = Place::new();
    place.serve().stop().succeeded();
    let right = fs::read_to_string(place.master_key()).unwrap();

    let place = place.env("CERTWRIGHT_MASTER_KEY", OTHER_MASTER_KEY);
    let ended = place.start_serving().end().failed();
    assert!(ended.err.contains("the master key is not the one"), "{ended:?}");
    assert!(!ended.everything().contains(OTHER_MASTER_KEY), "{ended:?}");

    // It may stand behind the right one; then the file is not needed.
    fs::remove_file(place.master_key()).unwrap();
    let both = format!("{},{OTHER_MASTER_KEY}", right.trim());
    place.env("CERTWRIGHT_MASTER_KEY", &both).serve().stop().succeeded();
}

#[test]
fn a_master_key_that_is_none_is_refused_without_printing_it() {
    let place = Place::new().ports().env("CERTWRIGHT_MASTER_KEY", "hunter2");
    let ended = place.run(&["serve"]).failed();

    assert!(ended.err.contains("openssl rand -base64 32"), "{ended:?}");
    assert!(!ended.everything().contains("hunter2"), "{ended:?}");
}

#[test]
fn a_master_key_that_went_missing_is_not_made_anew() {
    let place = Place::new();
    place.serve().stop().succeeded();
    fs::remove_file(place.master_key()).unwrap();

    let ended = place.start_serving().end().failed();
    assert!(ended.err.contains("should be in ./data/master.key"), "{ended:?}");
    assert!(ended.err.contains("`master_key_file`"), "{ended:?}");
    assert!(!place.master_key().exists());
}

#[test]
fn a_master_key_file_that_is_named_is_not_made() {
    let place = Place::new().ports().env("CERTWRIGHT_MASTER_KEY_FILE", "my.key");

    let ended = place.run(&["serve"]).failed();
    assert!(ended.err.contains("my.key"), "{ended:?}");
    assert!(!place.dir.path().join("my.key").exists());
}

// Databases and ports

#[test]
fn migrating_again_changes_nothing() {
    let (_folder, sqlite) = databases::sqlite_url();
    let postgres = block_on(postgres::fresh_database());
    for (url, dialect) in [(sqlite, "sqlite"), (postgres, "postgres")] {
        let place = Place::new().env("CERTWRIGHT_DATABASE_URL", &url);
        let first = place.run(&["migrate"]).succeeded();
        let version = newest_migration(dialect);
        let made =
            format!("certwright: made the schema of the {dialect} database (version {version})\n");
        assert_eq!(first.out, made);
        let second = place.run(&["migrate"]).succeeded();
        let same =
            format!("certwright: the {dialect} database is up to date (version {version})\n");
        assert_eq!(second.out, same);
        assert!(!place.master_key().exists(), "a schema needs no master key");
        assert!(place.serve().key().is_some(), "the first start is still to come");
    }
}

/// The number of the last file in the dialect's folder of migrations.
fn newest_migration(dialect: &str) -> u32 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/").to_owned() + dialect;
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.split('_').next()?.parse().ok();
    files.filter_map(number).max().unwrap()
}

#[test]
fn migrating_without_configuration_makes_the_usual_database() {
    let place = Place::new();
    place.run(&["migrate"]).succeeded();

    assert_eq!(mode(&place.data()), 0o700);
    assert!(place.data().join("certwright.db").is_file());
    assert!(place.serve().key().is_some());
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    for setting in ["http.listen", "http01.listen"] {
        let place = Place::new();
        let ports = if setting == "http.listen" { (taken, 0) } else { (0, taken) };
        let ended = place.start_on(ports.0, ports.1, &["serve"]).end().failed();

        assert!(ended.err.contains(&format!("127.0.0.1:{taken}")), "{ended:?}");
        assert!(ended.err.contains(&format!("`{setting}`")), "{ended:?}");
        assert!(ended.out.is_empty(), "{ended:?}");
        // The key is not lost by a failed start.
        assert!(place.serve().key().is_some());
    }
}

// Support

/// A working folder of its own, with what is in it and around it.
struct Place {
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ports of its own, for a start that is to fail for another reason.
    fn ports(self) -> Self {
        self.env("CERTWRIGHT_HTTP_LISTEN", "127.0.0.1:0")
            .env("CERTWRIGHT_HTTP01_LISTEN", "127.0.0.1:0")
    }

    fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn master_key(&self) -> PathBuf {
        self.data().join("master.key")
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.start(&[], arguments, None, None).end()
    }

    fn start_with(&self, arguments: &[&str], stdout: Stdio) -> Running {
        self.start(&[], arguments, Some(stdout), None)
    }

    fn start_logging_to(&self, stderr: Stdio, arguments: &[&str]) -> Running {
        self.start(&[], arguments, None, Some(stderr))
    }

    fn start_on(&self, http: u16, http01: u16, arguments: &[&str]) -> Running {
        let ports = [
            ("CERTWRIGHT_HTTP_LISTEN", format!("127.0.0.1:{http}")),
            ("CERTWRIGHT_HTTP01_LISTEN", format!("127.0.0.1:{http01}")),
        ];
        self.start(&ports, arguments, None, None)
    }

    fn serve(&self) -> Running {
        self.serve_with(&[])
    }

    /// A service that listens.
    fn serve_with(&self, flags: &[&str]) -> Running {
        let mut child = self.start_on(0, 0, &[&["serve"], flags].concat());
        child.until("it listens", |child| child.out().contains(ADDRESS_LINE));
        child
    }

    /// A service that may fail to start, on ports of its own.
    fn start_serving(&self) -> Running {
        self.start_on(0, 0, &["serve"])
    }

    fn start(
        &self,
        more: &[(&str, String)],
        arguments: &[&str],
        out: Option<Stdio>,
        err: Option<Stdio>,
    ) -> Running {
        let said = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(said.path().join(name)).unwrap());
        // The kernel ends the child with the test's thread, however that comes about.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_certwright")])
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.env.iter().cloned())
            .envs(more.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out.unwrap_or_else(|| file("out")))
            .stderr(err.unwrap_or_else(|| file("err")))
            .spawn()
            .expect("setpriv starts (package util-linux; run scripts/setup)");
        Running { child, said }
    }
}

/// A child that does not outlive its test.
struct Running {
    child: Child,
    said: TempDir,
}

impl Running {
    fn out(&self) -> String {
        fs::read_to_string(self.said.path().join("out")).unwrap_or_default()
    }

    fn err(&self) -> String {
        fs::read_to_string(self.said.path().join("err")).unwrap_or_default()
    }

    fn key(&self) -> Option<String> {
        self.out().lines().find_map(|line| line.strip_prefix(KEY_LINE)).map(str::to_owned)
    }

    fn address(&self) -> String {
        let out = self.out();
        out.lines().find_map(|line| line.strip_prefix(ADDRESS_LINE)).unwrap().to_owned()
    }

    /// True if `holds` comes true before the child ends.
    fn comes_to(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap().is_some();
            if ended || holds(self) {
                return holds(self);
            }
            assert!(begun.elapsed() < PATIENCE, "it never came: {}{}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        assert!(self.comes_to(holds), "it ended before {what}: {}{}", self.out(), self.err());
    }

    /// As `systemctl stop` does it.
    fn stop(self) -> Ended {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.end()
    }

    fn end(mut self) -> Ended {
        self.comes_to(|_| false);
        let code = self.child.wait().unwrap().code();
        Ended { code, out: self.out(), err: self.err() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// With the exit status and the manners of an error.
    #[track_caller]
    fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.contains("certwright: error: "), "{self:?}");
        self
    }

    fn everything(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn whoami(address: &str, key: &str) -> u16 {
    let request = reqwest::Client::new()
        .get(format!("http://{address}/whoami"))
        .bearer_auth(key)
        .timeout(PATIENCE);
    block_on(async { request.send().await.unwrap().status().as_u16() })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
