//! `certwright keys`: API keys.

use clap::Subcommand;
use serde_json::json;

use super::exit::Complaint;
use super::output::{age, note, now, print, table, text};
use super::remote::Session;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List the API keys
    List,
    /// Make an API key, and print it this once
    #[command(after_help = "Examples:
  certwright keys create deploy --permission certificates:read --permission certificates:readKey
  certwright keys create payments --permission '*' --in-namespace payments > key.txt")]
    Create {
        /// For people
        name: String,
        /// What it may do; `*` is everything
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<String>,
        /// Where [default: everywhere]
        #[arg(long = "in-namespace", value_name = "NAMESPACE")]
        namespaces: Vec<String>,
    },
    /// Delete an API key: whoever bears it is refused at once
    Delete {
        /// Its name, if only one has it, or its identifier
        key: String,
    },
}

impl Keys {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match &self {
            Self::List => {
                let now = now();
                let list = |value: &serde_json::Value| match value.as_array() {
                    Some(words) => {
                        let words = words.iter().filter_map(|word| word.as_str());
                        words.collect::<Vec<_>>().join(",")
                    }
                    None => "*".to_owned(),
                };
                let rows: Vec<Vec<String>> = client
                    .list("/api-keys", &[])
                    .await?
                    .iter()
                    .map(|key| {
                        let what = list(&key["permissions"]);
                        let place = list(&key["namespaces"]);
                        vec![text(key, "/id"), text(key, "/name"), what, place, age(key, now)]
                    })
                    .collect();
                print(&table(&["ID", "NAME", "PERMISSIONS", "NAMESPACES", "AGE"], &rows))
            }
            Self::Create { name, permissions, namespaces } => {
                let namespaces = Some(namespaces).filter(|names| !names.is_empty());
                let wanted =
                    json!({"name": name, "permissions": permissions, "namespaces": namespaces});
                let made = client.post("/api-keys", &wanted).await?;
                note(&format!("api-key/{} created; it is shown this once:", text(&made, "/id")));
                print(&format!("{}\n", text(&made, "/key")))
            }
            Self::Delete { key } => {
                let keys = client.list("/api-keys", &[]).await?;
                let meant = |one: &&serde_json::Value| {
                    text(one, "/id") == *key || text(one, "/name") == *key
                };
                let found: Vec<_> = keys.iter().filter(meant).collect();
                let id = match found[..] {
                    [one] => text(one, "/id"),
                    [] => return Err(Complaint::not_found(format!("there is no API key `{key}`"))),
                    _ => {
                        let problem = format!(
                            "several API keys are called `{key}`; name it by its identifier"
                        );
                        return Err(Complaint::usage(problem));
                    }
                };
                client.delete(&format!("/api-keys/{id}")).await?;
                print(&format!("api-key \"{id}\" deleted\n"))
            }
        }
    }
}
