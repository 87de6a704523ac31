//! `certwright delete`

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::exit::Complaint;
use super::get::selected;
use super::output::{print, text};
use super::remote::{Remote, Session, Where, run};
use super::selector;
use super::targets::targets;
use crate::client::{Ask, Body};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright delete certificate www
  certwright delete certs -l team=web
  certwright delete cert/www issuer/le secret/cloudflare
  certwright delete certificate www --revoke
  certwright delete clusterissuer letsencrypt-staging --deactivate

What was issued stays valid, unless it is revoked first. With --revoke and --deactivate the CA is
told in the background, and the resource is there until that is done.")]
pub(super) struct Delete {
    /// KIND NAME…, or KIND/NAME…; KIND alone with a selector
    #[arg(required = true, value_name = "KIND NAME…")]
    what: Vec<String>,
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
        let selector = self.selector.as_deref().map(selector::parse).transpose()?;
        let targets = targets(&self.what)?;
        // Refuses before anything is deleted.
        targets.iter().try_for_each(|(kind, _)| self.check(*kind))?;
        for (kind, name) in targets {
            let resources = match (&name, &selector) {
                (Some(name), _) => vec![session.find(kind, namespace, name).await?],
                (None, Some(_)) => selected(session, kind, namespace, selector.as_ref()).await?,
                (None, None) => {
                    let problem = "say which: NAME…, or -l SELECTOR";
                    return Err(Complaint::Usage(problem.to_owned()).into());
                }
            };
            for one in &resources {
                self.delete_one(session, kind, one).await?;
            }
        }
        Ok(())
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
