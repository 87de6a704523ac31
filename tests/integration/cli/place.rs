//! The real binary in a folder and an environment of its own, and what it says there.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::patience::PATIENCE;
use crate::support::person::Ended;

pub(super) const KEY_LINE: &str = "certwright: admin API key, shown this once: ";
pub(super) const ADDRESS_LINE: &str = "certwright: listening on http://";

/// A working folder of its own, with what is in it and around it.
pub(super) struct Place {
    pub(super) dir: TempDir,
    env: Vec<(String, String)>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ports of its own, for a start that is to fail for another reason.
    pub(super) fn ports(self) -> Self {
        self.env("CERTWRIGHT_HTTP_LISTEN", "127.0.0.1:0")
            .env("CERTWRIGHT_HTTP01_LISTEN", "127.0.0.1:0")
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn master_key(&self) -> PathBuf {
        self.data().join("master.key")
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(&[], arguments, None, None).end()
    }

    pub(super) fn start_with(&self, arguments: &[&str], stdout: Stdio) -> Running {
        self.start(&[], arguments, Some(stdout), None)
    }

    pub(super) fn start_logging_to(&self, stderr: Stdio, arguments: &[&str]) -> Running {
        self.start(&[], arguments, None, Some(stderr))
    }

    pub(super) fn start_on(&self, http: u16, http01: u16, arguments: &[&str]) -> Running {
        let ports = [
            ("CERTWRIGHT_HTTP_LISTEN", format!("127.0.0.1:{http}")),
            ("CERTWRIGHT_HTTP01_LISTEN", format!("127.0.0.1:{http01}")),
        ];
        self.start(&ports, arguments, None, None)
    }

    pub(super) fn serve(&self) -> Running {
        self.serve_with(&[])
    }

    /// A service that listens.
    pub(super) fn serve_with(&self, flags: &[&str]) -> Running {
        let mut child = self.start_on(0, 0, &[&["serve"], flags].concat());
        child.until("it listens", |child| child.out().contains(ADDRESS_LINE));
        child
    }

    /// A service that may fail to start, on ports of its own.
    pub(super) fn start_serving(&self) -> Running {
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
pub(super) struct Running {
    pub(super) child: Child,
    said: TempDir,
}

impl Running {
    pub(super) fn out(&self) -> String {
        fs::read_to_string(self.said.path().join("out")).unwrap_or_default()
    }

    pub(super) fn err(&self) -> String {
        fs::read_to_string(self.said.path().join("err")).unwrap_or_default()
    }

    pub(super) fn key(&self) -> Option<String> {
        self.out().lines().find_map(|line| line.strip_prefix(KEY_LINE)).map(str::to_owned)
    }

    pub(super) fn address(&self) -> String {
        let out = self.out();
        out.lines().find_map(|line| line.strip_prefix(ADDRESS_LINE)).unwrap().to_owned()
    }

    /// True if `holds` comes true before the child ends.
    pub(super) fn comes_to(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
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
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        assert!(self.comes_to(holds), "it ended before {what}: {}{}", self.out(), self.err());
    }

    /// As `systemctl stop` does it.
    pub(super) fn stop(self) -> Ended {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.end()
    }

    pub(super) fn end(mut self) -> Ended {
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

pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(super) fn whoami(address: &str, key: &str) -> u16 {
    status_of(address, "/whoami", key)
}

pub(super) fn status_of(address: &str, path: &str, key: &str) -> u16 {
    let request = reqwest::Client::new()
        .get(format!("http://{address}{path}"))
        .bearer_auth(key)
        .timeout(PATIENCE);
    block_on(async { request.send().await.unwrap().status().as_u16() })
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
