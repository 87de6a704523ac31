//! One PostgreSQL cluster for the whole run, and a database of its own for each test.
//!
//! The cluster is made when the first test asks, listens on a socket in its own directory only, and ends with the
//! process. `TEST_POSTGRES_URL` names a server to use instead; its databases named `certwright_test_…` stay behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

use super::process::Server;

/// What every script begins with: where the programs and the files are, and as whom a server runs.
const BEGIN: &str = r#"
set -eu
bin=$1 data=$2 unprivileged=
if [ "$(id -u)" = 0 ]; then
    install -d -m 700 -o postgres "$data"
    unprivileged="setpriv --reuid postgres --regid postgres --init-groups --"
fi
cd /
initialize() {
    $unprivileged "$bin/initdb" -D "$data" --auth=trust --username=postgres --encoding=UTF8 --no-locale --no-sync
}
"#;

const SCRIPT: &str = r#"
initialize
exec $unprivileged "$bin/postgres" -D "$data" -k "$data" -h '' -F -N 300 \
    -c synchronous_commit=off -c full_page_writes=off -c dynamic_shared_memory_type=mmap
"#;

/// A server that comes back by itself, and that loses nothing it has said to be committed.
#[cfg(feature = "failpoints")]
const RESTARTING: &str = r#"
stopping=
initialize
trap 'stopping=1; kill -QUIT "$server" 2>/dev/null' TERM
while [ -z "$stopping" ]; do
    $unprivileged "$bin/postgres" -D "$data" -k "$data" -h '' -F -N 100 -c dynamic_shared_memory_type=mmap & server=$!
    wait "$server" || true
done
wait
"#;

struct Cluster {
    url: Url,
    /// Statics are not dropped: the supervisor stops the server when this process ends.
    _server: Option<Server>,
}

/// A cluster of one's own, to be restarted.
#[cfg(feature = "failpoints")]
pub struct OwnCluster {
    cluster: Cluster,
    data: PathBuf,
}

#[cfg(feature = "failpoints")]
impl OwnCluster {
    pub async fn start() -> Self {
        let (cluster, data) = Cluster::launch(RESTARTING, "TERM").await;
        Self { cluster, data }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.data
    }

    /// Its only database.
    pub fn url(&self) -> String {
        self.cluster.url.to_string()
    }

    /// As `pg_ctl restart -m immediate` does it: every connection is cut off, and what was under way
    /// is undone.
    pub async fn restart(&self) {
        let started = || fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let before = started();
        let pid: i32 = before.lines().next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).unwrap();
        let options: PgConnectOptions = self.cluster.url.as_str().parse().unwrap();
        super::patience::until("PostgreSQL", async || {
            started() != before && options.connect().await.is_ok()
        })
        .await;
    }

    /// Ends every connection but this one.
    pub async fn cut_connections(&self) {
        let mut connection = PgConnection::connect(self.cluster.url.as_str()).await.unwrap();
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

/// The URL of a new, empty database.
pub async fn fresh_database() -> String {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    let cluster = CLUSTER.get_or_init(Cluster::start).await;
    let name =
        format!("certwright_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection =
        PgConnection::connect(cluster.url.as_str()).await.expect("the test cluster answers");
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let mut url = cluster.url.clone();
    url.set_path(&name);
    url.into()
}

impl Cluster {
    async fn start() -> Self {
        if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
            return Self { url: url.parse().expect("TEST_POSTGRES_URL is a URL"), _server: None };
        }

        Self::launch(SCRIPT, "QUIT").await.0
    }

    async fn launch(script: &str, stop_signal: &str) -> (Self, PathBuf) {
        let (url, server, data) = launch(script, stop_signal).await;
        (Self { url, _server: Some(server) }, data)
    }
}

/// Starts a server by a script, which finds `$bin`, `$data`, `$unprivileged` and `initialize`.
pub async fn launch(script: &str, stop_signal: &str) -> (Url, Server, PathBuf) {
    let dir = TempDir::with_prefix("certwright-postgres-").unwrap();
    // PostgreSQL refuses to run as root, and its own user has to get at its files.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = dir.path().join("data");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{BEGIN}{script}")).arg("postgres").arg(binaries()).arg(&data);
    let mut server = Server::start(dir, stop_signal, &command);

    let mut url: Url = "postgres://postgres@localhost/postgres".parse().unwrap();
    url.query_pairs_mut().append_pair("host", data.to_str().expect("a UTF-8 path"));
    let options: PgConnectOptions = url.as_str().parse().unwrap();
    let answers = async || options.connect().await.is_ok();
    server.until_ready(answers).await.unwrap_or_else(|error| panic!("PostgreSQL {error}"));
    (url, server, data)
}

/// Debian keeps the servers of each version apart and off the `PATH`; the newest one is taken.
fn binaries() -> PathBuf {
    let version =
        |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let debian = installed
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(|path| version(path));

    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || {
        std::env::split_paths(&path)
            .find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
    };
    debian
        .map(|path| path.join("bin"))
        .or_else(on_path)
        .expect("PostgreSQL is missing: run scripts/setup")
}
