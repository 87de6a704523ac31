//! `certwright issuers`: changes of their accounts.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{condition, print, table, text};
use super::remote::{Session, Where, Within};
use super::targets::kind;
use crate::manifest::kind::Kind;

#[derive(Debug, Subcommand)]
pub(super) enum Issuers {
    /// List issuers and cluster issuers, with their accounts
    List {
        #[command(flatten)]
        place: Where,
    },
    /// Replace the key of an issuer's account
    ///
    /// Account and issuer stay. The CA is told once the orders that are under way have ended, within ten
    /// minutes; new orders wait meanwhile.
    #[command(after_help = "Examples:
  certwright issuers rotate-account-key letsencrypt
  certwright issuers rotate-account-key le --kind Issuer -n shop")]
    RotateAccountKey {
        #[command(flatten)]
        which: Which,
    },
    /// Give an issuer's account up at the CA, for good
    ///
    /// Its key is of no use at that CA any more, and nothing is issued or renewed by the issuer. What was
    /// issued stays valid. `certwright delete clusterissuer NAME --deactivate` deletes the issuer with it.
    #[command(after_help = "Examples:
  certwright issuers deactivate-account letsencrypt-staging")]
    DeactivateAccount {
        #[command(flatten)]
        which: Which,
    },
}

/// One issuer.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The issuer
    name: String,
    /// What the issuer is
    #[arg(long, value_name = "KIND", default_value = "ClusterIssuer", value_parser = ["Issuer", "ClusterIssuer"])]
    kind: String,
    #[command(flatten)]
    place: Within,
}

impl Issuers {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match &self {
            Self::List { place } => list(session, place).await,
            Self::RotateAccountKey { which } => {
                act(session, which, "rotate-account-key", "is getting a new account key").await
            }
            Self::DeactivateAccount { which } => {
                act(session, which, "deactivate-account", "is having its account deactivated").await
            }
        }
    }
}

async fn list(session: &Session, place: &Where) -> anyhow::Result<()> {
    let namespace = session.namespace(place);
    let mut found = session.list(Kind::Issuer, namespace.as_deref(), &[]).await?;
    found.extend(session.list(Kind::ClusterIssuer, None, &[]).await?);
    let row = |one: &Value| {
        let ready = condition(one, "Ready", "status");
        let [kind, namespace, name, account] =
            ["/kind", "/namespace", "/name", "/status/acme/uri"].map(|cell| text(one, cell));
        vec![kind, namespace, name, ready, account]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print(&table(&["KIND", "NAMESPACE", "NAME", "READY", "ACCOUNT"], &rows))
}

async fn act(session: &Session, which: &Which, what: &str, done: &str) -> anyhow::Result<()> {
    let kind = kind(&which.kind)?;
    let namespace = session.within(&which.place);
    let found = session.find(kind, Some(&namespace), &which.name).await?;
    let path = format!("{}/{}/{what}", kind.path(), text(&found, "/id"));
    session.client.post(&path, &json!({})).await?;
    let word = kind.word();
    print(&format!(
        "{word}/{} {done}; `certwright describe {word} {0}` tells how it goes\n",
        which.name
    ))
}
