//! The command line: one file for each subcommand.
//!
//! `serve`, `migrate`, `backup`, `restore`, `resume`, `config`, `doctor`, `healthcheck` and `openapi` belong to the service's own machine; all others
//! are clients of its HTTP API, through [`crate::client`].

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{self, Config, Values};

mod apply;
mod audit;
mod backup;
mod can;
mod certificates;
mod columns;
mod complete;
mod completion;
mod credentials;
mod decide;
mod delete;
mod describe;
mod diff;
mod doctor;
mod document;
mod download;
mod edit;
mod events;
mod exit;
mod export;
mod format;
mod get;
mod healthcheck;
mod import;
mod inspect;
mod issue;
mod issuers;
mod jsonpath;
mod keys;
mod login;
mod logs;
mod manual;
mod migrate;
mod moments;
mod names;
mod openapi;
mod output;
mod pairs;
mod remote;
mod renew;
mod revoke;
mod secrets;
mod serve;
mod settings;
mod status;
mod stream;
mod targets;
mod throttles;
mod token_file;
mod version;
mod wait;
mod webhooks;
mod words;

pub use complete::complete;
pub use exit::{message, status_of};

use output::print;
use remote::Remote;

/// Issues and renews TLS certificates over ACME, for whoever asks over HTTP.
#[derive(Debug, Parser)]
#[command(
    name = "certwright",
    version,
    about,
    max_term_width = 100,
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  certwright serve                             SQLite below ./data, API on 127.0.0.1:8080
  certwright serve --database-url postgres://certwright@db/certwright
  certwright config                            what is in force, and where it comes from
  certwright --config /etc/certwright/certwright.toml migrate
  certwright apply -f manifests/               cert-manager's manifests, as they are
  certwright get certificates -A
  certwright issue www.example.com --issuer letsencrypt --wait --out .

`certwright config --markdown` describes every setting, docs/cli.md every command and exit status; the
API describes itself under /docs.";

/// Where settings are read from.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "it is shown as it stands")]
struct Source {
    /// TOML file with settings [default: certwright.toml here, or in /etc/certwright]
    /// [env: CERTWRIGHT_CONFIG]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Sets one setting, as in `--set log.level=debug`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM
    #[command(after_help = "Examples:
  certwright serve
  certwright serve --data-dir /var/lib/certwright --log-format json
  certwright -c /etc/certwright/certwright.toml serve")]
    Serve(serve::Serve),
    /// Bring the database's schema up to date, and stop
    #[command(after_help = "Examples:
  certwright migrate
  certwright --set database.url=postgres://certwright@db/certwright migrate")]
    Migrate,
    /// Write everything into a file, beside a service that goes on
    #[command(after_help = backup::BACKUP_EXAMPLES)]
    Backup(backup::Backup),
    /// Make an empty database, of either kind, of a backup
    #[command(after_help = backup::RESTORE_EXAMPLES)]
    Restore(backup::Restore),
    /// Take up the work of a restored installation
    #[command(after_help = "Examples:
  certwright resume")]
    Resume,
    /// Print the settings that are in force, without secrets
    #[command(after_help = "Examples:
  certwright config
  certwright config --markdown")]
    Config(settings::Show),
    /// Look for what would keep certificates from being issued
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Ask the service of this machine whether it lives: the health check of a container
    #[command(after_help = "Examples:
  certwright healthcheck
  HEALTHCHECK CMD [\"certwright\", \"healthcheck\"]

Asks /healthz where `http.listen` says. The exit status is 0 or 1.")]
    Healthcheck,
    /// Print the OpenAPI document
    #[command(after_help = "Examples:
  certwright openapi > openapi.json")]
    Openapi,
    /// Apply cert-manager's manifests
    Apply(apply::Apply),
    /// Show what `apply` would change
    Diff(diff::Diff),
    /// Print what is there as cert-manager's manifests
    Export(export::Export),
    /// Take over certificates and keys that exist
    Import(import::Import),
    /// List resources
    Get(get::Get),
    /// Show resources with all there is to know, and what happened
    Describe(describe::Describe),
    /// Show how one certificate stands, and why
    #[command(
        subcommand,
        after_help = "Examples:
  certwright status certificate www
  certwright status certificate www -n team"
    )]
    Status(status::Status),
    /// Want certificates, and wait for them
    Issue(issue::Issue),
    /// Ask whether policies allow a certificate
    Can(can::Can),
    /// Approve certificate requests that wait for it
    #[command(after_help = decide::APPROVE_EXAMPLES)]
    Approve(decide::Decide),
    /// Deny certificate requests that wait for approval
    #[command(after_help = decide::DENY_EXAMPLES)]
    Deny(decide::Decide),
    /// Issue certificates anew, now
    Renew(renew::Renew),
    /// Download a certificate or its key
    Download(download::Download),
    /// Revoke what was issued
    Revoke(revoke::Revoke),
    /// Delete resources
    Delete(delete::Delete),
    /// Print what happened
    Logs(logs::Logs),
    /// List what happened, in kubectl's columns
    Events(events::Events),
    /// Wait until resources are ready, or gone
    Wait(wait::Wait),
    /// Change a resource in an editor
    Edit(edit::Edit),
    /// Change certificates
    #[command(
        subcommand,
        after_help = "Examples:
  certwright certificates set www --issuer letsencrypt
  certwright certificates set www --dns-name www.example.com --dns-name example.com"
    )]
    Certificates(certificates::Certificates),
    /// Print the versions of this program and of the server
    #[command(after_help = version::EXAMPLES)]
    Version(version::Version),
    /// Look at a certificate in a file or at a server
    Inspect(inspect::Inspect),
    /// Manage issuers' accounts
    #[command(
        subcommand,
        after_help = "Examples:
  certwright issuers list
  certwright issuers rotate-account-key letsencrypt
  certwright issuers deactivate-account letsencrypt-staging"
    )]
    Issuers(issuers::Issuers),
    /// Manage API keys
    #[command(
        subcommand,
        after_help = "Examples:
  certwright keys list
  certwright keys create deploy --role requester --in-namespace payments --expires-in 2160h
  certwright keys rotate deploy
  certwright keys delete deploy"
    )]
    Keys(keys::Keys),
    /// See who did what, and verify the log of it
    #[command(
        subcommand,
        after_help = "Examples:
  certwright audit list --since 24h --principal payments-deploy
  certwright audit list --action certificates.readKey
  certwright audit verify
  certwright audit export > audit.jsonl
  certwright audit prune --older-than 400d"
    )]
    Audit(audit::Audit),
    /// See who is asked to wait by a CA, and lift it
    #[command(
        subcommand,
        after_help = "Examples:
  certwright throttles list
  certwright throttles lift 019ab000-0000-7000-8000-000000000000"
    )]
    Throttles(throttles::Throttles),
    /// Log in by an OIDC issuer that the server trusts
    #[command(after_help = "Examples:
  certwright --server https://certwright.example.com login
  certwright logout")]
    Login(login::Login),
    /// Forget the tokens of a login
    Logout,
    /// Show who you are, and what you may do
    #[command(after_help = "Examples:
  certwright whoami")]
    Whoami,
    /// Manage credentials of solvers, and seal secrets anew
    #[command(
        subcommand,
        after_help = "Examples:
  certwright secrets list -A
  certwright secrets create cloudflare --from-file api-token=token.txt
  certwright secrets delete cloudflare"
    )]
    Secrets(secrets::Secrets),
    /// Manage webhooks
    #[command(
        subcommand,
        after_help = "Examples:
  certwright webhooks list
  certwright webhooks create https://hooks.example.com/certs --name deploy --event certificate.issued
  certwright webhooks test deploy
  certwright webhooks deliveries deploy --state dead
  certwright webhooks redeliver deploy --since 2026-11-25T12:00:00Z"
    )]
    Webhooks(webhooks::Webhooks),
    /// Print a script that completes commands in a shell
    Completion(completion::Completion),
    /// Print the help of a command
    #[command(hide = true)]
    Help {
        /// The command
        command: Vec<String>,
        /// All of docs/cli.md
        #[arg(long)]
        markdown: bool,
        /// Write a man page for each command into a folder
        #[arg(long, value_name = "DIR")]
        man: Option<PathBuf>,
    },
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        crate::failpoint::set_up();
        let (source, remote) = (&self.source, &self.remote);
        match self.command {
            Command::Serve(serve) => serve.run(source),
            Command::Migrate => migrate::run(source),
            Command::Backup(backup) => backup.run(source),
            Command::Restore(restore) => restore.run(source),
            Command::Resume => backup::resume(source),
            Command::Config(show) => show.run(source),
            Command::Doctor => doctor::doctor(source, remote),
            Command::Healthcheck => healthcheck::run(source),
            Command::Openapi => openapi::run(),
            Command::Apply(apply) => remote.run(async |on| apply.run(on).await),
            Command::Diff(diff) => remote.run(async |on| diff.run(on).await),
            Command::Export(export) => remote.run(async |on| export.run(on).await),
            Command::Import(import) => remote.run(async |on| import.run(on).await),
            Command::Get(get) => get.run(remote),
            Command::Describe(describe) => remote.run(async |on| describe.run(on).await),
            Command::Status(status) => remote.run(async |on| status.run(on).await),
            Command::Issue(issue) => remote.run(async |on| issue.run(on).await),
            Command::Can(can) => remote.run(async |on| can.run(on).await),
            Command::Approve(decide) => remote.run(async |on| decide.approve(on).await),
            Command::Deny(decide) => remote.run(async |on| decide.deny(on).await),
            Command::Renew(renew) => remote.run(async |on| renew.run(on).await),
            Command::Download(download) => remote.run(async |on| download.run(on).await),
            Command::Revoke(revoke) => remote.run(async |on| revoke.run(on).await),
            Command::Delete(delete) => delete.run(remote),
            Command::Logs(logs) => logs.run(remote),
            Command::Events(events) => events.run(remote),
            Command::Wait(wait) => wait.run(remote),
            Command::Edit(edit) => edit.run(remote),
            Command::Certificates(certificates) => certificates.run(remote),
            Command::Version(version) => version.run(remote),
            Command::Inspect(inspect) => inspect.run(),
            Command::Issuers(issuers) => remote.run(async |on| issuers.run(on).await),
            Command::Keys(keys) => remote.run(async |on| keys.run(on).await),
            Command::Audit(audit) => audit.run(source, remote),
            Command::Throttles(throttles) => remote.run(async |on| throttles.run(on).await),
            Command::Login(login) => login.run(remote),
            Command::Logout => login::logout(remote),
            Command::Whoami => remote.run(keys::whoami),
            Command::Secrets(secrets) => secrets.run(source, remote),
            Command::Webhooks(webhooks) => remote.run(async |on| webhooks.run(on).await),
            Command::Completion(completion) => completion.run(),
            Command::Help { man: Some(folder), .. } => manual::write(Self::command(), &folder),
            Command::Help { markdown: true, .. } => print(&completion::markdown()),
            Command::Help { command, .. } => print(&completion::help(&command)?),
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
        let named = remote::from_environment("CERTWRIGHT_CONFIG").map(PathBuf::from);
        let file = self.config.clone().or(named);
        Ok(config::read(file.as_deref(), environment, &flags)?)
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

fn key_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "expected KEY=VALUE, as in log.level=debug".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Command;

    use super::*;

    /// Clap gives a global argument's value to whatever else has its id.
    #[test]
    fn no_argument_shares_the_id_of_a_global_one() {
        let root = Cli::command();
        let ids = |command: &Command, global: bool| -> BTreeSet<String> {
            let found = command.get_arguments().filter(|one| !global || one.is_global_set());
            found.map(|one| one.get_id().to_string()).collect()
        };
        let global = ids(&root, true);
        assert!(global.contains("profile") && global.len() >= 6, "{global:?}");
        let mut commands: Vec<&Command> = root.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            let shared: Vec<_> = ids(command, false).intersection(&global).cloned().collect();
            assert!(shared.is_empty(), "{}: {shared:?}", command.get_name());
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
