//! `certwright delete`

use std::path::PathBuf;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::exit::{Complaint, is_missing};
use super::get::{selected, selector};
use super::output::{note, print, text};
use super::remote::{Remote, Session, Where, run};
use super::stream::Stream;
use super::targets::targets;
use crate::client::{Ask, Body};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright delete certificate www
  certwright delete certs -l team=web
  certwright delete cert/www issuer/le secret/cloudflare
  certwright delete -f manifests/
  certwright delete certificates --all -n shop
  certwright delete certificate www --revoke
  certwright delete clusterissuer letsencrypt-staging --deactivate

What was issued stays valid, unless it is revoked first. With --revoke and --deactivate the CA is
told in the background, and the resource is there until that is done.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Delete {
    /// KIND NAME…, or KIND/NAME…; KIND alone with --all or a selector
    #[arg(required_unless_present = "files", value_name = "KIND NAME…")]
    what: Vec<String>,
    /// What the manifests in this file or folder describe
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["what", "all", "selector"])]
    files: Vec<PathBuf>,
    /// All of the kind, in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Do not fail if something is not there
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    place: Where,
    /// Labels that certificates must have
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Certificates: have the CA revoke first what is still valid (`cessationOfOperation`)
    #[arg(long)]
    revoke: bool,
    /// Issuers: give the account up at the CA first, for good
    #[arg(long, conflicts_with = "revoke")]
    deactivate: bool,
}

impl Delete {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.delete(&session))
    }

    async fn delete(&self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.namespace(&self.place);
        let namespace = namespace.as_deref();
        let selector = self.selector.as_deref().map(selector).transpose()?;
        if !self.files.is_empty() {
            return self.delete_described(session, namespace).await;
        }
        let targets = targets(&self.what)?;
        // Refuses before anything is deleted.
        targets.iter().try_for_each(|(kind, _)| self.check(*kind))?;
        for (kind, name) in targets {
            let resources = match &name {
                Some(name) => {
                    self.named(session, kind, namespace, name).await?.into_iter().collect()
                }
                None if self.all || selector.is_some() => {
                    selected(session, kind, namespace, selector.as_ref()).await?
                }
                None => {
                    let problem = "say which: NAME…, --all, or -l SELECTOR";
                    return Err(Complaint::Usage(problem.to_owned()).into());
                }
            };
            if resources.is_empty() && name.is_none() {
                note(&format!("No {} found.", kind.plural()));
            }
            for one in &resources {
                self.delete_one(session, kind, one).await?;
            }
        }
        Ok(())
    }

    /// The resource, unless it may be missing.
    async fn named(
        &self,
        session: &Session,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> anyhow::Result<Option<Value>> {
        match session.find(kind, namespace, name).await {
            Err(error) if self.ignore_not_found && is_missing(&error) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Deletes what manifests describe: certificates before their issuers, and those before their Secrets.
    async fn delete_described(
        &self,
        session: &Session,
        default: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut described = Stream::read(&self.files)?.described()?;
        described.sort_by_key(|(kind, ..)| std::cmp::Reverse(*kind));
        described.iter().try_for_each(|(kind, ..)| self.check(*kind))?;
        let mut missing = None;
        for (kind, namespace, name) in described {
            let namespace = namespace.as_deref().or(default);
            match self.named(session, kind, namespace, &name).await {
                Ok(Some(one)) => self.delete_one(session, kind, &one).await?,
                Ok(None) => {}
                // The rest is deleted all the same, as by kubectl.
                Err(error) if is_missing(&error) => {
                    note(&format!("certwright: {error}"));
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        missing.map_or(Ok(()), Err)
    }

    /// Refuses options that the kind does not have.
    fn check(&self, kind: Kind) -> Result<(), Complaint> {
        let problem = match kind {
            Kind::Request | Kind::Order | Kind::Challenge | Kind::Event => {
                format!("{} come and go with their certificates", kind.plural())
            }
            kind if self.revoke && kind != Kind::Certificate => {
                format!("--revoke goes with certificates; {} are not revoked", kind.plural())
            }
            kind if self.deactivate && !matches!(kind, Kind::Issuer | Kind::ClusterIssuer) => {
                format!("--deactivate goes with issuers; {} have no account", kind.plural())
            }
            _ => return Ok(()),
        };
        Err(Complaint::Usage(problem))
    }

    async fn delete_one(&self, session: &Session, kind: Kind, one: &Value) -> anyhow::Result<()> {
        let (id, name) = (text(one, "/id"), text(one, "/name"));
        let (query, then): (&[_], _) = if self.revoke {
            (&[("revoke", "true")], "what was issued is revoked")
        } else if self.deactivate {
            (&[("deactivate", "true")], "its account is deactivated")
        } else {
            (&[], "")
        };
        let path = &format!("{}/{id}", kind.path());
        let ask = Ask { method: &Method::DELETE, path, query, headers: &[], body: Body::None };
        let response = session.client.send(ask).await?;
        let shown = format!("{} \"{}\"", kind.full(), if name.is_empty() { &id } else { &name });
        // If the CA need not be told, the resource is deleted at once.
        print(&match response.status() {
            StatusCode::ACCEPTED => format!("{shown} is deleted once {then}\n"),
            _ => format!("{shown} deleted\n"),
        })
    }
}
