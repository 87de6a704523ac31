//! `certwright export`: resources as cert-manager's manifests.

use clap::Args;

use super::output::{note, print};
use super::remote::{Session, Where};
use super::targets::kinds;
use crate::client::ClientError;
use crate::manifest::kind::Kind;
use crate::manifest::write;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright export -A > backup.yaml
  certwright export certificates -n team
  certwright export issuers,clusterissuers | kubectl apply -f -

What is exported can be applied again, and changes nothing then. Values of Secrets are never handed
out: their names stand in comments.")]
pub(super) struct Export {
    /// KINDs: secrets, issuers, clusterissuers, policies, certificates [default: all that may be read]
    #[arg(value_name = "KIND[,KIND…]")]
    kinds: Vec<String>,
    #[command(flatten)]
    place: Where,
}

impl Export {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for text in &self.kinds {
            wanted.extend(kinds(text)?);
        }
        let namespace = session.namespace(&self.place);
        let mut documents = Vec::new();
        for kind in
            Kind::IN_MANIFESTS.into_iter().filter(|kind| wanted.is_empty() || wanted.contains(kind))
        {
            let found = match session.list(kind, namespace.as_deref(), &[]).await {
                // Policies are for administrators; whoever names no kinds wants what there is for them.
                Err(error) if kind == Kind::Policy && wanted.is_empty() && is_refused(&error) => {
                    note("policies are left out: this API key may not read them");
                    continue;
                }
                found => found?,
            };
            for resource in found {
                documents.push(write::manifest(kind, &resource));
            }
        }
        print(&documents.join("---\n"))
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().and_then(ClientError::status) == Some(403)
}
