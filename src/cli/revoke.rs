//! `certwright revoke`

use clap::Args;
use serde_json::json;

use super::output::{print, text};
use super::remote::{Session, Within};
use crate::manifest::kind::Kind;

/// RFC 5280's reasons that an ACME CA takes.
const REASONS: [&str; 5] =
    ["unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright revoke www --reason keyCompromise
  certwright revoke www --revision 3 --reason superseded")]
pub(super) struct Revoke {
    /// The certificate
    name: String,
    /// Why
    #[arg(long, default_value = "unspecified", value_parser = REASONS)]
    reason: String,
    /// Which revision [default: the one that is served]
    #[arg(long, value_name = "N")]
    revision: Option<u32>,
    #[command(flatten)]
    place: Within,
}

impl Revoke {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let found = session.find(Kind::Certificate, Some(&namespace), &self.name).await?;
        let path = format!("/certificates/{}/revoke", text(&found, "/id"));
        let mut body = json!({"reason": self.reason});
        if let Some(revision) = self.revision {
            body["revision"] = revision.into();
        }
        session.client.post(&path, &body).await?;
        print(&format!("certificate/{} is being revoked\n", self.name))
    }
}
