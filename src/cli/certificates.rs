//! `certwright certificates`: changes of certificates.

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::exit::Complaint;
use super::output::{print, text};
use super::remote::{Remote, Session, Within, run};
use crate::client::{Ask, Body};
use crate::manifest::kind::Kind;

#[derive(Debug, Subcommand)]
pub(super) enum Certificates {
    /// Change what a certificate is to be; where that makes another one, it is issued at once
    #[command(after_help = "Examples:
  certwright certificates set www --issuer letsencrypt
  certwright certificates set www --dns-name www.example.com --dns-name example.com
  certwright certificates set www --renew-before 240h --label team=web --label old-")]
    Set(Set),
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The certificate
    name: String,
    /// Who issues it
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// What the issuer is
    #[arg(long, value_name = "KIND", requires = "issuer", value_parser = ["Issuer", "ClusterIssuer"])]
    kind: Option<String>,
    /// Its DNS names, instead of those that it has
    #[arg(long = "dns-name", value_name = "NAME")]
    dns_names: Vec<String>,
    /// The CA's certificate profile; empty for the issuer's
    #[arg(long, value_name = "NAME")]
    acme_profile: Option<String>,
    /// Renew this long before the end, such as 720h; empty for the default
    #[arg(long, value_name = "DURATION")]
    renew_before: Option<String>,
    /// How long it is to live, where its issuer asks that of the CA; empty leaves it to the CA
    #[arg(long, value_name = "DURATION")]
    duration: Option<String>,
    /// KEY=VALUE sets a label, KEY- removes it
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    place: Within,
}

impl Certificates {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        let Self::Set(set) = self;
        run(async move { set.change(&session).await })
    }
}

impl Set {
    async fn change(&self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let found = session.find(Kind::Certificate, Some(&namespace), &self.name).await?;
        let patch = self.patch(&found)?;
        if patch.is_empty() {
            let problem = "say what to change; `certwright certificates set --help` lists it";
            return Err(Complaint::Usage(problem.to_owned()).into());
        }
        let address = format!("/certificates/{}", text(&found, "/id"));
        let body = Value::Object(patch);
        let ask = Ask { method: &Method::PATCH, body: Body::Json(&body), ..Ask::get(&address) };
        let changed = session.client.json(ask).await?;
        let same = |field| changed.get(field) == found.get(field);
        let word = if same("generation") && same("labels") { "unchanged" } else { "configured" };
        print(&format!("{}/{} {word}\n", Kind::Certificate.full(), self.name))
    }

    /// A JSON merge patch.
    fn patch(&self, found: &Value) -> anyhow::Result<Map<String, Value>> {
        let mut patch = Map::new();
        if let Some(issuer) = &self.issuer {
            let kind = self.kind.clone().unwrap_or_else(|| text(found, "/issuerRef/kind"));
            patch.insert("issuerRef".to_owned(), json!({"name": issuer, "kind": kind}));
        }
        if !self.dns_names.is_empty() {
            patch.insert("dnsNames".to_owned(), json!(self.dns_names));
        }
        for (field, given) in [
            ("profile", &self.acme_profile),
            ("renewBefore", &self.renew_before),
            ("duration", &self.duration),
        ] {
            if let Some(given) = given {
                let value = if given.is_empty() { Value::Null } else { given.clone().into() };
                patch.insert(field.to_owned(), value);
            }
        }
        let mut labels = Map::new();
        for label in &self.labels {
            match (label.split_once('='), label.strip_suffix('-')) {
                (Some((key, value)), _) => labels.insert(key.to_owned(), value.into()),
                (None, Some(key)) => labels.insert(key.to_owned(), Value::Null),
                (None, None) => {
                    bail!("`{label}` is no label: write KEY=VALUE, or KEY- to remove it")
                }
            };
        }
        if !labels.is_empty() {
            patch.insert("labels".to_owned(), Value::Object(labels));
        }
        Ok(patch)
    }
}
