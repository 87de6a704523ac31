//! `certwright webhooks`

use clap::Subcommand;
use serde_json::{Value, json};

use super::kind::Kind;
use super::output::{note, print, table, text};
use super::remote::{Remote, Where, Within, run};
use crate::client::{Ask, Body};

/// Longer than a webhook may take to answer.
const ANSWER_WITHIN: &str = "wait=30";

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
    /// Post a `webhook.test` to it, and say what came of it
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
                    let found = session.list(Kind::Webhook, namespace.as_deref(), &[]).await?;
                    let cells = ["/id", "/url", "/status/phase", "/status/message"];
                    let row = |one: &Value| cells.map(|cell| text(one, cell)).to_vec();
                    let rows: Vec<_> = found.iter().map(row).collect();
                    print(&table(&["ID", "URL", "PHASE", "MESSAGE"], &rows))
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
                    print(&format!("{}\n", text(&made, "/secret")))
                }
                Self::Delete { id } => {
                    client.delete(&format!("/webhooks/{id}")).await?;
                    print(&format!("webhook \"{id}\" deleted\n"))
                }
                Self::Test { id } => {
                    let path = format!("/webhooks/{id}/test");
                    let (method, headers) = (&http::Method::POST, &[("prefer", ANSWER_WITHIN)]);
                    let ask = Ask { method, path: &path, query: &[], headers, body: Body::None };
                    outcome(*id, &client.json(ask).await?)
                }
            }
        })
    }
}

/// What came of a test: an error where the endpoint did not take it.
fn outcome(id: uuid::Uuid, delivery: &Value) -> anyhow::Result<()> {
    let status = text(delivery, "/responseStatus");
    match text(delivery, "/state").as_str() {
        "delivered" => print(&format!("webhook/{id} took a webhook.test (status {status})\n")),
        "dead" if status.is_empty() => {
            anyhow::bail!("webhook/{id} was not reached: {}", text(delivery, "/error"))
        }
        "dead" => anyhow::bail!("webhook/{id} refused a webhook.test with status {status}"),
        _ => print(&format!("webhook/{id}: a webhook.test is on its way\n")),
    }
}
