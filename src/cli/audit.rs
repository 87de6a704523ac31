//! `certwright audit`: who did what, and whether the log of it is whole.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::moments::since;
use super::output::{moment, now, print, table, text};
use super::remote::{Remote, Session};
use super::{Source, block_on};
use crate::config::Config;
use crate::domain::audit::{ChainKey, Entry, Head, Seal, hexadecimal};
use crate::domain::duration;
use crate::storage::Db;
use crate::{audit, bootstrap};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List entries of the audit log
    List(Filter),
    /// Verify that nothing of the audit log was changed, removed or reordered
    ///
    /// Reads the database itself, as the service does, with its settings and master key. That the end of the log was
    /// not cut off shows with `--head`: give one that the service's log or an export has told before.
    Verify(Known),
    /// Verify the audit log, and print it: a JSON object a line, the head as the last one
    ///
    /// Reads the database itself, as `verify` does. Nothing is to be trusted of what is printed unless the exit
    /// status is 0.
    Export(Known),
    /// Remove the beginning of the audit log, and leave a signed checkpoint there
    ///
    /// For the owner of the database: the service's own role need not be able to. Verifies the log first, and removes
    /// nothing of one that is not whole. What is left still verifies, and a head that was told before still counts.
    Prune(Retention),
}

#[derive(Debug, Args)]
pub(super) struct Retention {
    /// How old an entry has to be, such as 400d
    #[arg(long, value_name = "DURATION")]
    older_than: String,
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// From this moment on: how long ago, such as 10m, or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Of this principal: its name or identifier
    #[arg(long)]
    principal: Option<String>,
    /// Such as certificates.create
    #[arg(long)]
    action: Option<String>,
    /// COLLECTION/ID
    #[arg(long)]
    resource: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Known {
    /// A head that was told before
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<Head>,
}

impl Audit {
    pub(super) fn run(self, source: &Source, remote: &Remote) -> anyhow::Result<()> {
        match self {
            Self::List(filter) => remote.run(async |session| filter.list(session).await),
            Self::Verify(known) => known.run(source, false),
            Self::Export(known) => known.run(source, true),
            Self::Prune(retention) => retention.run(source),
        }
    }
}

impl Filter {
    async fn list(&self, session: &Session) -> anyhow::Result<()> {
        let since = self.since.as_deref().map(|text| since(text, now())).transpose()?;
        let given = [
            ("since", &since),
            ("principal", &self.principal),
            ("action", &self.action),
            ("resource", &self.resource),
        ];
        let query: Vec<_> =
            given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        let found = session.client.list("/audit", &query).await?;
        let rows: Vec<_> = found.iter().map(row).collect();
        let header =
            ["AT", "PRINCIPAL", "FROM", "ACTION", "RESOURCE", "OUTCOME", "COUNT", "REASON"];
        print(&table(&header, &rows))
    }
}

fn row(entry: &Value) -> Vec<String> {
    let at = moment(entry, "/at").and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default();
    let cells =
        ["/principal/name", "/from", "/action", "/resource", "/outcome", "/count", "/reason"];
    std::iter::once(at).chain(cells.map(|pointer| text(entry, pointer))).collect()
}

/// Does something with the log in the database itself.
fn with_log(
    source: &Source,
    run: impl AsyncFnOnce(&Db, &ChainKey) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        let db = bootstrap::database(&config).await?;
        let sealer = bootstrap::master_key(&config, &db).await?;
        let key = bootstrap::audit_key(&db, &sealer).await?;
        let done = run(&db, &key).await;
        db.close().await;
        done
    })
}

impl Retention {
    fn run(self, source: &Source) -> anyhow::Result<()> {
        let age = duration::parse(&self.older_than)
            .map_err(|problem| anyhow::anyhow!("--older-than {problem}"))?;
        let now = now();
        let before = now.checked_sub(age).context("--older-than is longer than time")?;
        with_log(source, async |db, key| {
            let removed = audit::prune(db, key, before, now).await?;
            print(&format!("certwright: removed {removed} entries of the audit log\n"))
        })
    }
}

impl Known {
    fn run(self, source: &Source, is_export: bool) -> anyhow::Result<()> {
        with_log(source, async |db, key| {
            if is_export { self.export(db, key).await } else { self.verify(db, key).await }
        })
    }

    async fn verify(self, db: &Db, key: &ChainKey) -> anyhow::Result<()> {
        let verified = audit::verify(db, key, self.head, |_, _| {}).await?;
        let audit::Verified { head, unsealed } = verified;
        print(&format!("certwright: the audit log is whole; head {head}\n"))?;
        if unsealed > 0 {
            print(&format!(
                "{unsealed} entries are not sealed yet: a running service does that within a second\n"
            ))?;
        }
        Ok(())
    }

    async fn export(self, db: &Db, key: &ChainKey) -> anyhow::Result<()> {
        let mut printed = Ok(());
        let show = |seal: &Seal, entry: &Entry| {
            if printed.is_ok() {
                printed = line(seal, entry).and_then(|line| print(&line));
            }
        };
        let verified = audit::verify(db, key, self.head, show).await?;
        printed?;
        print(&format!("{}\n", json!({"head": verified.head.to_string()})))
    }
}

/// An entry as `GET /audit` has it.
fn line(seal: &Seal, entry: &Entry) -> anyhow::Result<String> {
    let at = entry.at.format(&Rfc3339).context("a time that cannot be written")?;
    let line = json!({
        "id": entry.id, "seq": seal.seq, "at": at, "principal": entry.principal, "from": entry.from,
        "action": entry.action, "resource": entry.resource, "namespace": entry.namespace,
        "outcome": entry.outcome, "reason": entry.reason, "requestId": entry.request_id,
        "count": entry.count, "hash": hexadecimal(&seal.hash), "previous": hexadecimal(&seal.previous),
    });
    Ok(format!("{line}\n"))
}
