//! `certwright secrets`

use anyhow::Context as _;
use clap::Subcommand;

use super::credentials::Credentials;
use super::remote::Remote;
use super::{Source, block_on, print};
use crate::config::Config;
use crate::{bootstrap, reseal};

#[derive(Debug, Subcommand)]
pub(super) enum Secrets {
    /// Seal every secret anew under the first master key
    ///
    /// Give the new key first and the old one after it (`master_key = "NEW,OLD"`, or a line for each in
    /// the key file), restart every replica, run this, then take the old key away. It can be stopped and
    /// started again at any time, and beside the service.
    Rotate,
    #[command(flatten)]
    Stored(Credentials),
}

impl Secrets {
    pub(super) fn run(self, source: &Source, remote: &Remote) -> anyhow::Result<()> {
        if let Self::Stored(credentials) = self {
            return remote.run(async |session| credentials.run(session).await);
        }
        let config = Config::parse(&source.values(&[])?)?;
        block_on(&config.clone(), async move {
            let db = bootstrap::database(&config).await?;
            let sealer = bootstrap::master_key(&config, &db).await?;
            let done =
                reseal::reseal(&db, &sealer).await.context("not every secret is sealed anew")?;
            print(&format!(
                "certwright: sealed {} of {} secrets anew; all are under the first master key, and no \
                 other is needed\n",
                done.changed, done.all
            ))?;
            db.close().await;
            Ok(())
        })
    }
}
