//! `certwright webhooks`

use clap::Subcommand;
use serde_json::json;

use super::kind::Kind;
use super::output::{note, print, text};
use super::remote::{Remote, Where, Within, run};

#[derive(Debug, Subcommand)]
pub(super) enum Webhooks {
    /// List the webhooks
    List {
        #[command(flatten)]
        place: Where,
    },
    /// Have events posted to a URL, and print the signing secret this once
    #[command(after_help = "Examples:
  certwright webhooks create https://hooks.example.com/certs --event certificate.issued --event certificate.failed")]
    Create {
        /// Where to
        url: String,
        /// Which events [default: all]
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<String>,
        #[command(flatten)]
        place: Within,
    },
    /// Delete a webhook
    Delete {
        /// Its identifier
        id: uuid::Uuid,
    },
    /// Post a `webhook.test` to it
    Test {
        /// Its identifier
        id: uuid::Uuid,
    },
}

impl Webhooks {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        let client = &session.client;
        run(async {
            match &self {
                Self::List { place } => {
                    let namespace = session.namespace(place);
                    for one in session.list(Kind::Webhook, namespace.as_deref(), &[]).await? {
                        print(&format!("{}   {}\n", text(&one, "/id"), text(&one, "/url")))?;
                    }
                    Ok(())
                }
                Self::Create { url, events, place } => {
                    let mut wanted = json!({"namespace": session.within(place), "url": url});
                    if !events.is_empty() {
                        wanted["events"] = json!(events);
                    }
                    let made = client.post("/webhooks", &wanted).await?;
                    note(&format!(
                        "webhook/{} created; its secret is shown this once:",
                        text(&made, "/id")
                    ));
                    let secret = ["/secret", "/signingSecret"].map(|place| text(&made, place));
                    print(&format!(
                        "{}\n",
                        secret.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
                    ))
                }
                Self::Delete { id } => {
                    client.delete(&format!("/webhooks/{id}")).await?;
                    print(&format!("webhook \"{id}\" deleted\n"))
                }
                Self::Test { id } => {
                    client.post(&format!("/webhooks/{id}/test"), &json!({})).await?;
                    print(&format!("webhook/{id}: a webhook.test is on its way\n"))
                }
            }
        })
    }
}
