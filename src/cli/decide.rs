//! `certwright approve` and `certwright deny`: decide about certificate requests that wait for approval.

use clap::Args;
use serde_json::json;

use super::output::{print, text};
use super::remote::{Session, Within};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
pub(super) struct Decide {
    /// Names or identifiers of certificate requests
    #[arg(required = true, value_name = "NAME")]
    requests: Vec<String>,
    /// Why, in a sentence for whoever reads it later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    place: Within,
}

pub(super) const APPROVE_EXAMPLES: &str = "Examples:
  certwright get certificaterequests
  certwright describe certificaterequest www-1
  certwright approve www-1 --reason 'agreed in CHG-4711'
  certwright approve www-1 api-3 -n payments --reason 'names of the new shop'

Whoever asked for the certificate cannot approve its request. A decision is final.";

pub(super) const DENY_EXAMPLES: &str = "Examples:
  certwright deny www-1 --reason 'that name belongs to another team'

No other request is made until the certificate is changed, or renewed by hand. A decision is final.";

impl Decide {
    pub(super) async fn approve(self, session: &Session) -> anyhow::Result<()> {
        self.run(session, "approve", "approved").await
    }

    pub(super) async fn deny(self, session: &Session) -> anyhow::Result<()> {
        self.run(session, "deny", "denied").await
    }

    async fn run(self, session: &Session, verb: &str, done: &str) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        for name in &self.requests {
            let request = session.find(Kind::Request, Some(&namespace), name).await?;
            let path = format!("/requests/{}/{verb}", text(&request, "/id"));
            let decided = session.client.post(&path, &json!({"reason": self.reason})).await?;
            let (namespace, name) = (text(&decided, "/namespace"), text(&decided, "/name"));
            print(&format!("CertificateRequest {namespace}/{name} {done}\n"))?;
        }
        Ok(())
    }
}
