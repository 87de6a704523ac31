//! `certwright delete`

use clap::Args;

use super::exit::Complaint;
use super::get::selected;
use super::kind::{Kind, targets};
use super::output::{print, text};
use super::remote::{Remote, Session, Where, run};
use super::selector;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright delete certificate www
  certwright delete certs -l team=web
  certwright delete cert/www issuer/le secret/cloudflare

What was issued stays valid; `certwright revoke` ends it.")]
pub(super) struct Delete {
    /// KIND NAME…, or KIND/NAME…; KIND alone with a selector
    #[arg(required = true, value_name = "KIND NAME…")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Labels that certificates must have
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
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
        for (kind, name) in targets(&self.what)? {
            let may = !matches!(kind, Kind::Request | Kind::Order | Kind::Challenge | Kind::Event);
            let resources = match (&name, &selector) {
                _ if !may => {
                    let problem = format!("{} come and go with their certificates", kind.plural());
                    return Err(Complaint::Usage(problem).into());
                }
                (Some(name), _) => vec![session.find(kind, namespace, name).await?],
                (None, Some(_)) => selected(session, kind, namespace, selector.as_ref()).await?,
                (None, None) => {
                    let problem = "say which: NAME…, or -l SELECTOR";
                    return Err(Complaint::Usage(problem.to_owned()).into());
                }
            };
            for one in resources {
                let id = text(&one, "/id");
                session.client.delete(&format!("{}/{id}", kind.path())).await?;
                let name = text(&one, "/name");
                let shown = if name.is_empty() { &id } else { &name };
                print(&format!("{} \"{shown}\" deleted\n", kind.full()))?;
            }
        }
        Ok(())
    }
}
