//! Somebody at a shell, who knows nothing but the real binary.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::patience::PATIENCE;
use super::process::output;
use super::site::Site;

/// Somebody at a shell, in a folder and a clean environment of their own.
pub struct Person {
    pub home: TempDir,
    pub server: String,
    pub key: String,
}

#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Person {
    pub fn of(site: &Site) -> Self {
        let server = format!("http://{}", site.api);
        Self { home: tempfile::tempdir().unwrap(), server, key: site.key().to_owned() }
    }

    pub fn nowhere() -> Self {
        Self { home: tempfile::tempdir().unwrap(), server: String::new(), key: String::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Begins a command that does not end by itself; what it says goes into a file.
    pub fn begin(&self, arguments: &[&str], file: &str) -> Child {
        let out = fs::File::create(self.path(file)).unwrap();
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_certwright")])
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("CERTWRIGHT_SERVER", &self.server)
            .env("CERTWRIGHT_API_KEY", &self.key)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .unwrap()
    }

    /// What stands in a file, once this is in it.
    pub async fn until(&self, file: &str, part: &str) -> String {
        self.until_line(file, &[part]).await
    }

    /// What stands in a file, once a line of it has all these parts.
    pub async fn until_line(&self, file: &str, parts: &[&str]) -> String {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            tick.tick().await;
            let text = fs::read_to_string(self.path(file)).unwrap();
            if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                return text;
            }
        }
        panic!(
            "{file} never came to say {parts:?}: {}",
            fs::read_to_string(self.path(file)).unwrap()
        );
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    pub fn run_with(&self, arguments: &[&str], more: &[(String, String)]) -> Ended {
        let given = [("CERTWRIGHT_SERVER", &self.server), ("CERTWRIGHT_API_KEY", &self.key)];
        let mut command = Command::new(env!("CARGO_BIN_EXE_certwright"));
        command.args(arguments).current_dir(self.home.path()).env_clear().stdin(Stdio::null());
        command
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(given.into_iter().filter(|(_, value)| !value.is_empty()));
        command.envs(more.iter().cloned());
        // The installation lives on the same threads.
        let mut blocking = || output(&mut command);
        let output = match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(blocking),
            Err(_) => blocking(),
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// With the exit status and the manners of an error.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.err.contains("certwright: error: "), "{self:?}");
        self
    }

    /// On its output.
    #[track_caller]
    pub fn says_all(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.out.contains(part), "{part}: {self:?}");
        }
    }

    pub fn everything(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
