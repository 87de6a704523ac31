//! `certwright keys` and `certwright whoami`: API keys, and who one is.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::exit::Complaint;
use super::output::{age, note, now, print, table, text, yaml};
use super::remote::Session;
use crate::domain::duration;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List the API keys
    List,
    /// Show an API key, but for the key itself
    Get {
        /// Its name, if only one has it, or its identifier
        key: String,
    },
    /// Make an API key, and print it this once
    #[command(after_help = "Examples:
  certwright keys create deploy --role requester --in-namespace payments --expires-in 2160h > key.txt
  certwright keys create monitoring --role reader
  certwright keys create dns --permission secrets:write --permission secrets:read")]
    Create(Create),
    /// Give an API key a new value, and print it this once; the former one counts for a while
    #[command(after_help = "Examples:
  certwright keys rotate deploy > key.txt
  certwright keys rotate deploy --former-valid-for 0s    # it is known to others")]
    Rotate {
        /// Its name, if only one has it, or its identifier
        key: String,
        /// How long the former value counts as well, at most 720h [default: 24h]
        #[arg(long, value_name = "DURATION")]
        former_valid_for: Option<String>,
    },
    /// Delete an API key: whoever bears it is refused at once
    Delete {
        /// Its name, if only one has it, or its identifier
        key: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// For people
    name: String,
    /// What it may do: a set of permissions
    #[arg(long, value_parser = ["admin", "operator", "requester", "reader"])]
    role: Option<String>,
    /// What it may do besides; `*` is everything
    #[arg(long = "permission", value_name = "PERMISSION", required_unless_present = "role")]
    permissions: Vec<String>,
    /// Where [default: everywhere]
    #[arg(long = "in-namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// How long it counts, such as 2160h [default: until it is deleted]
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// For people
    #[arg(long)]
    description: Option<String>,
}

impl Keys {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match &self {
            Self::List => list(session).await,
            Self::Get { key } => {
                let path = format!("/api-keys/{}", id_of(session, key).await?);
                print(&yaml(&session.client.get(&path, &[]).await?))
            }
            Self::Create(create) => {
                let made = session.client.post("/api-keys", &create.spec()?).await?;
                show_once("created", &made)
            }
            Self::Rotate { key, former_valid_for } => {
                let path = format!("/api-keys/{}/rotate", id_of(session, key).await?);
                let mut options = json!({});
                if let Some(duration) = former_valid_for {
                    options["formerValidFor"] = json!(duration);
                }
                show_once("rotated", &session.client.post(&path, &options).await?)
            }
            Self::Delete { key } => {
                let id = id_of(session, key).await?;
                session.client.delete(&format!("/api-keys/{id}")).await?;
                print(&format!("api-key \"{id}\" deleted\n"))
            }
        }
    }
}

impl Create {
    fn spec(&self) -> anyhow::Result<Value> {
        let expires_at = match &self.expires_in {
            None => None,
            Some(text) => {
                let duration = duration::parse(text).map_err(Complaint::Usage)?;
                let end = now().checked_add(duration);
                let end = end.ok_or_else(|| Complaint::Usage(format!("`{text}` is too long")))?;
                Some(end.format(&Rfc3339)?)
            }
        };
        let namespaces = Some(&self.namespaces).filter(|names| !names.is_empty());
        Ok(json!({
            "name": self.name, "description": self.description, "role": self.role,
            "permissions": self.permissions, "namespaces": namespaces, "expiresAt": expires_at,
        }))
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let now = now();
    let words = |value: &Value| match value.as_array() {
        Some(words) => {
            let words = words.iter().filter_map(Value::as_str);
            words.collect::<Vec<_>>().join(",")
        }
        None => "*".to_owned(),
    };
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let keys = session.client.list("/api-keys", &[]).await?;
    let row = |key: &Value| {
        let what = match text(key, "/role") {
            role if role.is_empty() => words(&key["permissions"]),
            role => role,
        };
        let day = |pointer: &str| or_none(text(key, pointer).chars().take(10).collect());
        vec![
            text(key, "/id"),
            text(key, "/name"),
            what,
            words(&key["namespaces"]),
            day("/lastUsedAt"),
            day("/expiresAt"),
            age(key, now),
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    print(&table(&["ID", "NAME", "MAY", "NAMESPACES", "LAST-USED", "EXPIRES", "AGE"], &rows))
}

/// The key goes to the output alone, so that it can be written to a file.
fn show_once(done: &str, key: &Value) -> anyhow::Result<()> {
    note(&format!("api-key/{} {done}; it is shown this once:", text(key, "/id")));
    let former = text(key, "/rotation/formerValidUntil");
    if !former.is_empty() {
        note(&format!("its former value counts until {former}"));
    }
    print(&format!("{}\n", text(key, "/key")))
}

/// The identifier of the key that is meant.
async fn id_of(session: &Session, key: &str) -> anyhow::Result<String> {
    if key.parse::<Uuid>().is_ok() {
        return Ok(key.to_owned());
    }
    let found = session.client.list("/api-keys", &[("name", key)]).await?;
    match &found[..] {
        [one] => Ok(text(one, "/id")),
        [] => Err(Complaint::not_found(format!("there is no API key `{key}`"))),
        _ => {
            let problem = format!("several API keys are called `{key}`; name it by its identifier");
            Err(Complaint::Usage(problem).into())
        }
    }
}

/// Prints who one is.
pub(super) async fn whoami(session: &Session) -> anyhow::Result<()> {
    print(&yaml(&session.client.get("/whoami", &[]).await?))
}
