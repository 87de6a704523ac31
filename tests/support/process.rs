//! Child processes that cannot outlive the tests, however these end: by return, by panic or by `kill -9`.
//!
//! Each server runs under a small shell that the kernel tells about the death of its parent (`setpriv --pdeathsig`). The
//! shell stops the server and removes its directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::timeout;

use super::patience::PATIENCE;

const SUPERVISOR: &str = r#"
dir=$1 signal=$2; shift 2
stop() {
    trap '' TERM INT HUP
    rounds=0
    while kill -s "$signal" "$server" 2>/dev/null; do
        sleep 0.05
        rounds=$((rounds + 1))
        if [ $rounds -ge 200 ]; then signal=KILL; fi
    done
    rm -rf "$dir"
    exit 0
}
trap stop TERM INT HUP
"$@" & server=$!
echo "$server" > "$dir/server"
wait "$server"
"#;

/// A running server with a directory of its own, which holds its configuration, its data and its log.
pub struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// Starts `command`; `stop_signal` (a name such as `KILL`) is what ends it. Its output goes to the log.
    pub fn start(dir: TempDir, stop_signal: &str, command: &Command) -> Self {
        let log = File::create(dir.path().join("log")).expect("a log file");

        let mut supervisor = Command::new("setpriv");
        supervisor.args(["--pdeathsig", "TERM", "--", "sh", "-c", SUPERVISOR, "supervisor"]);
        supervisor
            .arg(dir.path())
            .arg(stop_signal)
            .arg(command.get_program())
            .args(command.get_args());
        supervisor.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        supervisor
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);

        let child =
            spawn(supervisor).expect("setpriv starts (package util-linux; run scripts/setup)");
        Self { child, dir: dir.keep() }
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal to the server itself.
    pub fn send(&self, signal: Signal) {
        let server = fs::read_to_string(self.dir.join("server")).expect("the supervisor has begun");
        let server = Pid::from_raw(server.trim().parse().expect("a process"));
        kill_process(server.expect("a process"), signal).expect("the server runs");
    }

    /// The end of the log, for the message of a failed test.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks `is_ready` again and again. An `Err` means that the server ended by itself, which is
    /// what a lost race for a port looks like.
    pub async fn until_ready(&mut self, is_ready: impl AsyncFn() -> bool) -> Result<(), String> {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            tick.tick().await;
            if let Some(status) = self.child.try_wait().expect("the supervisor is ours") {
                return Err(format!("ended with {status}:\n{}", self.log_tail()));
            }
            if timeout(Duration::from_secs(5), is_ready()).await.unwrap_or(false) {
                return Ok(());
            }
        }
        panic!("does not answer; the end of its log:\n{}", self.log_tail());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command to its end with this input. One that does not end is killed, and the test fails.
pub fn output_with(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: run scripts/setup"));
    let (pid, mut stdin) = (Pid::from_child(&child), child.stdin.take().unwrap());
    let (done, ended) = channel::<()>();
    thread::scope(|scope| {
        // It may answer before it has read everything, or without reading.
        scope.spawn(move || stdin.write_all(input));
        let watch = scope.spawn(move || {
            let is_late = ended.recv_timeout(2 * PATIENCE) == Err(RecvTimeoutError::Timeout);
            if is_late {
                let _ = kill_process(pid, Signal::KILL);
            }
            is_late
        });
        let output = child.wait_with_output().unwrap();
        drop(done);
        assert!(!watch.join().unwrap(), "{command:?} did not end: {output:?}");
        output
    })
}

/// Like [`output_with`], without input.
pub fn output(command: &mut Command) -> Output {
    output_with(command, b"")
}

type Job = (Command, Sender<io::Result<Child>>);

/// Starts a process from a thread that lives as long as this process does: the kernel sends the death signal when the
/// thread that forked ends, and a test's own thread ends with its test.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
        let (jobs, queue) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });

    let (answer, child) = channel();
    SPAWNER
        .lock()
        .unwrap()
        .send((command, answer))
        .expect("the spawner lives as long as the process");
    child.recv().expect("the spawner answers every job")
}
