//! `certwright renew`

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::exit::Complaint;
use super::get::{failed, selected, selector};
use super::issue::{Goal, wait_for};
use super::moments::shown;
use super::output::{moment, print, text};
use super::remote::{Session, Where};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright renew www
  certwright renew www api --wait --timeout 5m
  certwright renew -l team=web -n shop
  certwright renew --failed -A
  certwright renew --all -A

An issuance that is under way is joined: what waits is tried now, unless the CA asked to wait.")]
pub(super) struct Renew {
    /// Names of certificates
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "all", "failed"])]
    names: Vec<String>,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with_all = ["names", "all"])]
    selector: Option<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Those whose last attempt failed, that wait for a person, or that have expired
    #[arg(long, conflicts_with_all = ["names", "all"])]
    failed: bool,
    #[command(flatten)]
    place: Where,
    /// Wait until they are there, or have failed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::moments::span)]
    timeout: Duration,
}

impl Renew {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.namespace(&self.place);
        let namespace = namespace.as_deref();
        let mut certificates = Vec::new();
        if self.names.is_empty() {
            let selector = self.selector.as_deref().map(selector).transpose()?;
            certificates = if self.failed {
                failed(session, namespace, selector.as_ref()).await?
            } else {
                selected(session, Kind::Certificate, namespace, selector.as_ref()).await?
            };
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
            let renewed = session.client.post(&path, &json!({})).await?;
            print(&told(session, certificate, &renewed).await)?;
            let revision = certificate.pointer("/status/revision").and_then(Value::as_i64);
            goals.push(Goal::of(certificate, revision.unwrap_or_default() + 1));
        }
        if self.wait {
            wait_for(session, goals, self.timeout, None).await?;
        }
        Ok(())
    }
}

/// What came of it: a new issuance, or one that was under way already and what that waits for.
async fn told(session: &Session, before: &Value, after: &Value) -> String {
    let name = format!("{}/{}", text(before, "/namespace"), text(before, "/name"));
    let began = |one: &Value| {
        let conditions = one.pointer("/status/conditions").and_then(Value::as_array);
        let issuing = conditions.into_iter().flatten().find(|one| one["type"] == "Issuing");
        issuing.filter(|one| one["status"] == "True").map(|one| text(one, "/lastTransitionTime"))
    };
    if began(before).is_none() || began(before) != began(after) {
        return format!("Manually triggered issuance of Certificate {name}\n");
    }
    let path = format!("/certificates/{}/explain", text(before, "/id"));
    let explained = session.client.get(&path, &[]).await.unwrap_or_default();
    let mut line =
        format!("Certificate {name} is being issued already: {}", text(&explained, "/summary"));
    if let (Some(at), what) = (moment(&explained, "/next/at"), text(&explained, "/next/what")) {
        line.extend([" Next, at ", &shown(at), ": ", &what]);
    }
    line.push('\n');
    line
}
