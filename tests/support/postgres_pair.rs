//! A PostgreSQL primary and its standby, with synchronous replication: a commit is answered once both have it.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};
use url::Url;

use super::patience::until;
use super::postgres::launch;
use super::process::Server;
use super::relay::Relay;

const PRIMARY: &str = r#"
initialize
exec $unprivileged "$bin/postgres" -D "$data" -k "$data" -h '' -F -N 50 \
    -c synchronous_standby_names='*' -c dynamic_shared_memory_type=mmap
"#;

/// PRIMARY stands for the primary's folder.
const STANDBY: &str = r#"
$unprivileged "$bin/pg_basebackup" -h 'PRIMARY' -U postgres -D "$data" -R --checkpoint=fast --no-sync
rm -f "$data"/.s.PGSQL.*
exec $unprivileged "$bin/postgres" -D "$data" -k "$data" -h '' -F -N 50 -c dynamic_shared_memory_type=mmap
"#;

/// Both behind one address, as clients know them.
pub struct Pair {
    primary: Member,
    standby: Member,
    relay: Relay,
}

struct Member {
    url: Url,
    server: Server,
    data: PathBuf,
}

impl Pair {
    pub async fn start() -> Self {
        let primary = Member::launch(PRIMARY).await;
        let script = STANDBY.replace("PRIMARY", primary.data.to_str().unwrap());
        let standby = Member::launch(&script).await;
        let mut connection = PgConnection::connect(primary.url.as_str()).await.unwrap();
        until("the replication", async || {
            let states = sqlx::query_scalar("SELECT sync_state FROM pg_stat_replication");
            let states: Vec<String> = states.fetch_all(&mut connection).await.unwrap();
            states == ["sync"]
        })
        .await;
        let relay = Relay::before(socket(&primary.data)).await;
        Self { primary, standby, relay }
    }

    /// Where clients find whichever is the primary.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.relay.address)
    }

    /// The primary dies as by `kill -9`, and nobody answers.
    pub fn lose_primary(&self) {
        self.primary.server.send(Signal::KILL);
        self.relay.cut();
    }

    /// Clients are led to the standby, which can only be read.
    pub fn lead_to_standby(&self) {
        self.relay.lead_to(socket(&self.standby.data));
    }

    /// The standby becomes the primary.
    pub async fn promote_standby(&self) {
        let mut connection = PgConnection::connect(self.standby.url.as_str()).await.unwrap();
        let promoted: bool =
            sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut connection).await.unwrap();
        assert!(promoted, "{}", self.standby.server.log());
    }
}

impl Member {
    async fn launch(script: &str) -> Self {
        let (url, server, data) = launch(script, "QUIT").await;
        Self { url, server, data }
    }
}

/// The socket of the server that has its files there.
pub fn socket(data: &Path) -> PathBuf {
    data.join(".s.PGSQL.5432")
}
