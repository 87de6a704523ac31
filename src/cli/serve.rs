//! `certwright serve`

use clap::Args;

use super::{Source, backup, block_on};
use crate::config::Config;
use crate::service;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address of the API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    http_listen: Option<String>,
    /// Address of the HTTP-01 responder [default: 127.0.0.1:8402]
    #[arg(long, value_name = "IP:PORT")]
    http01_listen: Option<String>,
    /// `sqlite://PATH` or `postgres://USER@HOST/NAME`; a password belongs into the environment
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Folder of the SQLite database and the master key [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text on a terminal]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// End the pause after a restore, as `certwright resume` does: the instance that the backup was made from has ended
    #[arg(long)]
    resume: bool,
}

impl Serve {
    pub(super) fn run(self, source: &Source) -> anyhow::Result<()> {
        let flags: Vec<_> = [
            ("http.listen", self.http_listen),
            ("http01.listen", self.http01_listen),
            ("database.url", self.database_url),
            ("data_dir", self.data_dir),
            ("log.level", self.log_level),
            ("log.format", self.log_format),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
        let source = source.clone();
        let read = move || Ok(Config::parse(&source.values(&flags)?)?);
        let config = read()?;
        block_on(&config.clone(), async {
            if self.resume {
                backup::end_pause(&config).await?;
            }
            service::run(config, Box::new(read)).await
        })
    }
}
