//! The command line: one file for each subcommand.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Values};

mod migrate;
mod openapi;
mod secrets;
mod serve;
mod settings;

/// Issues and renews TLS certificates over ACME, for whoever asks over HTTP.
#[derive(Debug, Parser)]
#[command(name = "certwright", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  certwright serve                             SQLite below ./data, API on 127.0.0.1:8080
  certwright serve --database-url postgres://certwright@db/certwright
  certwright config                            what is in force, and where it comes from
  certwright --config /etc/certwright/certwright.toml migrate

`certwright config --markdown` describes every setting; the API describes itself under /docs.";

/// Where settings are read from.
#[derive(Debug, Args)]
struct Source {
    /// TOML file with settings [default: certwright.toml here, or in /etc/certwright]
    #[arg(short, long, value_name = "FILE", env = "CERTWRIGHT_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Sets one setting, as in `--set log.level=debug`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM
    Serve(serve::Serve),
    /// Bring the database's schema up to date, and stop
    Migrate,
    /// Look after the secrets in the database
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Print the settings that are in force, without secrets
    Config(settings::Show),
    /// Print the OpenAPI document
    Openapi,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> anyhow::Result<()> {
        crate::failpoint::set_up();
        match self.command {
            Command::Serve(serve) => serve.run(&self.source),
            Command::Migrate => migrate::run(&self.source),
            Command::Secrets(secrets) => secrets.run(&self.source),
            Command::Config(show) => show.run(&self.source),
            Command::Openapi => openapi::run(),
        }
    }
}

impl Source {
    /// Every setting, with flags over everything else.
    fn values(&self, flags: &[(String, String)]) -> anyhow::Result<Values> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let flags: Vec<_> = self.set.iter().chain(flags).cloned().collect();
        Ok(config::read(self.config.as_deref(), environment, &flags)?)
    }
}

/// Runs on as many threads as there are processors, with logging as configured.
fn block_on(config: &Config, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    crate::telemetry::start(config).map_err(anyhow::Error::msg)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(work)
}

/// To standard output; a reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "expected KEY=VALUE, as in log.level=debug".to_owned())
}
