//! `certwright secrets`

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use indicatif::ProgressBar;

use super::credentials::Credentials;
use super::output::now;
use super::remote::Remote;
use super::{Source, block_on, print};
use crate::config::Config;
use crate::domain::text::foreign_words;
use crate::secret::Sealer;
use crate::storage::Db;
use crate::verify::{Broken, Finding, Verified};
use crate::{bootstrap, reseal, verify};

/// Characters of a row's name that are shown.
const LONGEST_NAME: usize = 200;

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// Seal every secret, and sign every API key and policy, anew under the first master key
    ///
    /// Give the new key first and the old one after it (`master_key = "NEW,OLD"`, or a line for each in
    /// the key file), restart every replica, run this, then take the old key away. It can be stopped and
    /// started again at any time, and beside the service.
    Rotate,
    /// Verify that every secret opens, and that nobody else has written an API key or a policy
    ///
    /// Reads the database itself, as the service does, with its settings and master key, beside a service at work. Each
    /// row that is broken is named; then the exit status is not 0.
    Verify,
    #[command(flatten)]
    Stored(Credentials),
}

impl Secrets {
    pub(super) fn run(self, source: &Source, remote: &Remote) -> anyhow::Result<()> {
        match self {
            Self::Stored(credentials) => remote.run(async |session| credentials.run(session).await),
            Self::Rotate => at_rest(source, rotate),
            Self::Verify => at_rest(source, async |_, db, sealer| verify_all(db, sealer).await),
        }
    }
}

/// Does something with the database itself and the master key.
fn at_rest(
    source: &Source,
    run: impl AsyncFnOnce(&Config, &Db, &Sealer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let config = Config::parse(&source.values(&[])?)?;
    block_on(&config.clone(), async move {
        let db = bootstrap::database(&config).await?;
        let sealer = Arc::new(bootstrap::master_key(&config, &db).await?);
        bootstrap::authenticate_grants(&db, &sealer, now()).await?;
        let done = run(&config, &db, &sealer).await;
        db.close().await;
        done
    })
}

async fn rotate(config: &Config, db: &Db, sealer: &Sealer) -> anyhow::Result<()> {
    bootstrap::rewrap_master_key(config, db).await?;
    let done = reseal::reseal(db, sealer, now());
    let done = done.await.context("not every secret is sealed anew")?;
    let (changed, all, signed) = (done.changed, done.all, done.signed);
    print(&format!(
        "certwright: sealed {changed} of {all} secrets and signed {signed} API keys and policies anew; all are under \
         the first master key, and no other is needed\n"
    ))?;
    if done.refused > 0 {
        print(&format!(
            "{} API keys and policies were not written by the service and stay refused; `certwright secrets verify` \
             names them\n",
            done.refused
        ))?;
    }
    Ok(())
}

async fn verify_all(db: &Db, sealer: &Sealer) -> anyhow::Result<()> {
    let progress = ProgressBar::new_spinner();
    let mut printed = Ok(());
    let tell = |finding| match finding {
        Finding::Looked(rows) => progress.set_message(format!("{rows} rows verified")),
        Finding::Broken(row) if printed.is_ok() => {
            printed = progress.suspend(|| print(&line(&row)));
        }
        Finding::Broken(_) => {}
    };
    let done = verify::verify(db, sealer, tell).await;
    progress.finish_and_clear();
    printed?;
    let Verified { secrets, grants, broken } = done?;
    let all = format!("{secrets} secrets, {grants} API keys and policies");
    if broken > 0 {
        bail!(
            "{broken} of {all} are broken, and are not used: find out who writes the database; create API keys and \
             policies again, and restore secrets from a backup or store them anew"
        );
    }
    print(&format!("certwright: {all} are whole\n"))
}

/// A row that is broken, by kind and name.
fn line(Broken { kind, name, id, problem }: &Broken) -> String {
    let name = foreign_words(name, LONGEST_NAME).unwrap_or_default();
    format!("{kind} {name} ({id}): {problem}\n")
}
