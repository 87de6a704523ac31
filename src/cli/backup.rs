//! `certwright backup`, `certwright restore` and `certwright resume`

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use time::format_description::well_known::Rfc3339;

use super::output::{note, print};
use super::{Source, block_on};
use crate::backup::{self, Manifest};
use crate::bootstrap;
use crate::config::Config;
use crate::storage::{Db, StorageError, pause};

pub(super) const BACKUP_EXAMPLES: &str = "Examples:
  certwright backup /var/backups/certwright-$(date +%F).gz
  certwright --config /etc/certwright/certwright.toml backup certwright.gz

Run it where the service runs, as the same user and with the same settings; the service goes on meanwhile. The file
holds everything but the master key, without which its secrets are of no use: keep that one apart.";

pub(super) const RESTORE_EXAMPLES: &str = "Examples:
  certwright restore --check certwright.gz
  certwright restore certwright.gz
  certwright --set database.url=postgres://certwright@db/certwright restore certwright.gz

The database has to be empty, of either kind, and the master key that of the installation that the backup was made
from. What is restored is paused until `certwright resume`, since two that go on from the same state would do
everything twice.";

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The file that is made; there must be none of that name
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file that `certwright backup` made
    file: PathBuf,
    /// Only see whether the file is whole, and what is in it; needs neither database nor master key
    #[arg(long)]
    check: bool,
}

impl Backup {
    pub(super) fn run(self, source: &Source) -> anyhow::Result<()> {
        let config = expecting_long_statements(Config::parse(&source.values(&[])?)?);
        block_on(&config.clone(), async move {
            let bar = bar();
            let made =
                backup::create(&config, &self.file, &mut |done, all| show(&bar, done, all)).await;
            bar.finish_and_clear();
            let (made, file) = (made?, self.file.display());
            print(&format!("certwright: wrote {file}, and read it again: {}\n", summary(&made)))
        })
    }
}

impl Restore {
    pub(super) fn run(self, source: &Source) -> anyhow::Result<()> {
        let file = self.file.display();
        if self.check {
            let manifest = backup::check(&self.file)?;
            return print(&format!("certwright: {file} is whole: {}\n", summary(&manifest)));
        }
        let config = expecting_long_statements(Config::parse(&source.values(&[])?)?);
        block_on(&config.clone(), async {
            let bar = bar();
            let restored =
                backup::restore(&config, &self.file, &mut |done, all| show(&bar, done, all)).await;
            bar.finish_and_clear();
            print(&format!("certwright: restored {file}: {}\n", summary(&restored?)))?;
            note(
                "It is paused: `certwright serve` answers, and works on nothing. Make sure that the instance which the \
                 backup was made from has ended, then run `certwright resume`.",
            );
            Ok(())
        })
    }
}

/// Ends the pause of the configured database; says whether there was one.
pub(super) async fn end_pause(config: &Config) -> anyhow::Result<bool> {
    let db = bootstrap::database(config).await?;
    let was_paused = lift(&db).await?;
    db.close().await;
    Ok(was_paused)
}

async fn lift(db: &Db) -> Result<bool, StorageError> {
    let mut tx = db.begin();
    let was_paused = pause::lift(&mut tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

pub(super) fn resume(source: &Source) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        print(if end_pause(&config).await? {
            "certwright: resumed; a service that runs takes up its work within seconds\n"
        } else {
            "certwright: it was not paused\n"
        })
    })
}

/// That a statement over a whole table takes long is no news.
fn expecting_long_statements(mut config: Config) -> Config {
    config.log_level.push_str(",sqlx=error");
    config
}

/// Nothing is drawn where nobody looks.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} rows, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, done: u64, all: &Manifest) {
    bar.set_length(all.rows());
    bar.set_position(done);
}

fn summary(manifest: &Manifest) -> String {
    let Manifest { database, schema, version, created_at, tables, .. } = manifest;
    let at = created_at.format(&Rfc3339).unwrap_or_default();
    let rows = |name: &str| tables.iter().find(|table| table.name == name).map_or(0, |it| it.rows);
    format!(
        "{} certificates, {} rows in {} tables, from {database} (schema {schema}) by certwright {version} at {at}",
        rows("certificates"),
        manifest.rows(),
        tables.len()
    )
}
