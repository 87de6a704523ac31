//! PostgreSQL: one cluster for the test process, a database for each test.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

use super::free_port;

static SERVER: OnceCell<String> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new, empty database. `TEST_POSTGRES_URL` names a server to use instead of our own,
/// as `postgres://USER@HOST:PORT`.
pub async fn fresh_database() -> String {
    let server = SERVER
        .get_or_init(|| async {
            match std::env::var("TEST_POSTGRES_URL") {
                Ok(url) => url,
                Err(_) => tokio::task::spawn_blocking(start).await.unwrap(),
            }
        })
        .await;
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("certwright_{}_{number}", std::process::id());
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    format!("{server}/{name}")
}

/// Starts a cluster that ends with this process, however that ends, and then removes its files.
fn start() -> String {
    let bin = binaries();
    let folder = tempfile::Builder::new().prefix("certwright-pg-").tempdir().unwrap().keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let data = folder.join("data");
    let made = as_postgres(&bin.join("initdb"))
        .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    // A shell that waits for the end of our standard input, which comes with the end of this process.
    let script =
        "\"$@\" & server=$!; read -r _; kill -QUIT $server; wait $server; rm -rf \"$FOLDER\"";
    let mut watch = as_postgres(Path::new("/bin/sh"))
        .args(["-c", script, "sh"])
        .arg(bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""])
        .args(["-c", "fsync=off", "-c", "max_connections=600", "-c", "shared_buffers=64MB"])
        .env("FOLDER", &folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            // Kept open, and so kept from being closed, until the process ends.
            std::mem::forget(watch.stdin.take());
            return format!("postgres://postgres@127.0.0.1:{port}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    watch.stdin.take().unwrap().flush().ok();
    panic!(
        "PostgreSQL does not start: {}",
        std::fs::read_to_string(folder.join("log")).unwrap_or_default()
    );
}

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max();
    newest.expect("PostgreSQL is not there; run scripts/setup")
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command.current_dir("/");
        command
    } else {
        Command::new(program)
    }
}
