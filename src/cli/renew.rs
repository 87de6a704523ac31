//! `certwright renew`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::exit::Complaint;
use super::get::selected;
use super::issue::{Goal, wait_for};
use super::output::{print, text};
use super::remote::{Session, Where};
use super::selector;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright renew www
  certwright renew www api --wait --timeout 5m
  certwright renew -l team=web -n shop
  certwright renew --all -A")]
pub(super) struct Renew {
    /// Names of certificates
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "all"])]
    names: Vec<String>,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["names", "all"])]
    selector: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    place: Where,
    /// Wait until they are there, or have failed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Renew {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.namespace(&self.place);
        let namespace = namespace.as_deref();
        let mut certificates = Vec::new();
        if self.names.is_empty() {
            let selector = self.selector.as_deref().map(selector::parse).transpose()?;
            certificates =
                selected(session, Kind::Certificate, namespace, selector.as_ref()).await?;
            if certificates.is_empty() {
                return Err(Complaint::not_found("no certificate is chosen"));
            }
        }
        for name in &self.names {
            certificates.push(session.find(Kind::Certificate, namespace, name).await?);
        }
        let mut goals = Vec::new();
        for certificate in &certificates {
            let path = format!("/certificates/{}/renew", text(certificate, "/id"));
            session.client.post(&path, &json!({})).await?;
            print(&format!(
                "Manually triggered issuance of Certificate {}/{}\n",
                text(certificate, "/namespace"),
                text(certificate, "/name")
            ))?;
            let revision = certificate.pointer("/status/revision").and_then(Value::as_i64);
            goals.push(Goal::of(certificate, revision.unwrap_or_default() + 1));
        }
        if self.wait {
            wait_for(session, goals, self.timeout, None).await?;
        }
        Ok(())
    }
}
