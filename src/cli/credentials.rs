//! `certwright secrets`: credentials of solvers, which are write-only.

use std::fs;
use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::exit::Complaint;
use super::output::{age, now, print, table, text};
use super::remote::{Session, Where, Within};
use crate::client::ClientError;
use crate::manifest::kind::Kind;

#[derive(Debug, Subcommand)]
pub(super) enum Credentials {
    /// List the secrets, without their values
    List {
        #[command(flatten)]
        place: Where,
    },
    /// Store a secret; one that is there gets these values instead
    Create(Create),
    /// Forget secrets
    Delete {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        place: Within,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright secrets create cloudflare --from-file api-token=token.txt
  certwright secrets create cloudflare --from-stdin api-token < token.txt")]
pub(super) struct Create {
    /// What issuers refer to
    name: String,
    /// A value from a file; its last line break is left out
    #[arg(long, value_name = "KEY=FILE")]
    from_file: Vec<String>,
    /// A value as it is; other users of this machine can see it here
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A value from standard input
    #[arg(long, value_name = "KEY")]
    from_stdin: Option<String>,
    #[command(flatten)]
    place: Within,
}

impl Credentials {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::List { place } => list(session, &place).await,
            Self::Create(create) => create.run(session).await,
            Self::Delete { names, place } => {
                let namespace = session.within(&place);
                for name in names {
                    let found = session.find(Kind::Secret, Some(&namespace), &name).await?;
                    session.client.delete(&format!("/secrets/{}", text(&found, "/id"))).await?;
                    print(&format!("secret \"{name}\" deleted\n"))?;
                }
                Ok(())
            }
        }
    }
}

async fn list(session: &Session, place: &Where) -> anyhow::Result<()> {
    let namespace = session.namespace(place);
    let now = now();
    let rows: Vec<Vec<String>> = session
        .list(Kind::Secret, namespace.as_deref(), &[])
        .await?
        .iter()
        .map(|secret| {
            let keys = secret["keys"].as_array().into_iter().flatten();
            let keys = keys.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
            vec![text(secret, "/namespace"), text(secret, "/name"), keys, age(secret, now)]
        })
        .collect();
    print(&table(&["NAMESPACE", "NAME", "KEYS", "AGE"], &rows))
}

impl Create {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let pair = |text: &str| {
            let pair = text.split_once('=').map(|(key, rest)| (key.to_owned(), rest.to_owned()));
            pair.ok_or_else(|| Complaint::Usage(format!("`{text}` is not KEY=…")))
        };
        let mut values = Map::new();
        for text in &self.from_literal {
            let (key, value) = pair(text)?;
            values.insert(key, value.into());
        }
        for text in &self.from_file {
            let (key, file) = pair(text)?;
            let value =
                fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
            values.insert(key, value.trim_end_matches(['\n', '\r']).into());
        }
        if let Some(key) = self.from_stdin {
            let mut value = Zeroizing::new(String::new());
            std::io::stdin().read_to_string(&mut value)?;
            values.insert(key, value.trim_end_matches(['\n', '\r']).into());
        }
        if values.is_empty() {
            let problem = "give a value: --from-file, --from-stdin or --from-literal";
            return Err(Complaint::usage(problem));
        }
        let namespace = session.within(&self.place);
        let body = json!({"namespace": namespace, "name": self.name, "stringData": values});
        match session.client.post("/secrets", &body).await {
            Ok(_) => print(&format!("secret/{} created\n", self.name)),
            Err(ClientError::Refused(problem)) if problem.code == "already_exists" => {
                let found = session.find(Kind::Secret, Some(&namespace), &self.name).await?;
                let path = format!("/secrets/{}", text(&found, "/id"));
                session.client.put(&path, &body).await?;
                print(&format!("secret/{} configured\n", self.name))
            }
            Err(error) => Err(error.into()),
        }
    }
}
