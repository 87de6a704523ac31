//! `certwright webhooks`

use clap::Subcommand;
use serde_json::{Value, json};
use uuid::Uuid;

use super::output::{age, note, now, print, table, text};
use super::remote::{Session, Where, Within};
use crate::client::{Ask, Body, Client};
use crate::manifest::kind::Kind;

/// Time limit of a test: longer than a webhook may take to answer.
const ANSWER_WITHIN: &str = "wait=30";

/// The states of a delivery.
const STATES: [&str; 5] = ["queued", "pending", "delivered", "dead", "held"];

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
        id: Uuid,
    },
    /// Post a `webhook.test` to it, and say what came of it
    Test {
        /// Its identifier
        id: Uuid,
    },
    /// Change to a new signing secret, and print it this once
    #[command(after_help = "Examples:
  certwright webhooks rotate 019ab000-0000-7000-8000-000000000000
  certwright webhooks rotate 019ab000-0000-7000-8000-000000000000 --former-valid-for 0s")]
    Rotate {
        /// Its identifier
        id: Uuid,
        /// How long the former secret signs as well; 0s if others know it [default: 24h]
        #[arg(long, value_name = "DURATION")]
        former_valid_for: Option<String>,
    },
    /// List what was sent to it, and what came of that
    #[command(after_help = "Examples:
  certwright webhooks deliveries 019ab000-0000-7000-8000-000000000000
  certwright webhooks deliveries 019ab000-0000-7000-8000-000000000000 --state dead")]
    Deliveries {
        /// The webhook's identifier
        id: Uuid,
        /// Those in this state
        #[arg(long, value_parser = STATES)]
        state: Option<String>,
        /// Those that were told at this moment or later (RFC 3339)
        #[arg(long, value_name = "MOMENT")]
        since: Option<String>,
    },
    /// Send again what was sent before: one delivery, or everything since a moment
    #[command(after_help = "Examples:
  certwright webhooks redeliver $WEBHOOK $DELIVERY
  certwright webhooks redeliver $WEBHOOK --since 2026-11-25T12:00:00Z")]
    Redeliver {
        /// The webhook's identifier
        id: Uuid,
        /// Which delivery
        #[arg(required_unless_present = "since", conflicts_with = "since")]
        delivery: Option<Uuid>,
        /// Everything that was told at this moment or later (RFC 3339)
        #[arg(long, value_name = "MOMENT")]
        since: Option<String>,
    },
}

impl Webhooks {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
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
                show_secret(&client.post("/webhooks", &wanted).await?, "created")
            }
            Self::Delete { id } => {
                client.delete(&format!("/webhooks/{id}")).await?;
                print(&format!("webhook \"{id}\" deleted\n"))
            }
            Self::Test { id } => {
                let path = format!("/webhooks/{id}/test");
                let headers = &[("prefer", ANSWER_WITHIN)];
                let ask = Ask { headers, ..Ask::post(&path, Body::None) };
                outcome(*id, &client.json(ask).await?)
            }
            Self::Rotate { id, former_valid_for } => {
                let how = json!({"formerValidFor": former_valid_for});
                let path = format!("/webhooks/{id}/rotate");
                show_secret(&client.post(&path, &how).await?, "has a new secret")
            }
            Self::Deliveries { id, state, since } => {
                let given = [("state", state), ("since", since)];
                let given = given
                    .iter()
                    .filter_map(|(name, value)| value.as_deref().map(|value| (*name, value)));
                deliveries(client, *id, &given.collect::<Vec<_>>()).await
            }
            Self::Redeliver { id, delivery: Some(delivery), .. } => {
                let path = format!("/webhooks/{id}/deliveries/{delivery}/redeliver");
                client.post(&path, &json!({})).await?;
                print(&format!("delivery/{delivery} is on its way again\n"))
            }
            Self::Redeliver { id, since, .. } => {
                let path = format!("/webhooks/{id}/redeliver");
                let again = client.post(&path, &json!({"since": since})).await?;
                let count = text(&again, "/redelivered");
                print(&format!("webhook/{id}: deliveries on their way again: {count}\n"))
            }
        }
    }
}

/// The secret alone goes to standard output.
fn show_secret(webhook: &Value, what: &str) -> anyhow::Result<()> {
    note(&format!("webhook/{} {what}; its secret is shown this once:", text(webhook, "/id")));
    print(&format!("{}\n", text(webhook, "/secret")))
}

async fn deliveries(client: &Client, id: Uuid, given: &[(&str, &str)]) -> anyhow::Result<()> {
    let now = now();
    let found = client.list(&format!("/webhooks/{id}/deliveries"), given).await?;
    let row = |one: &Value| {
        let answer = match text(one, "/error") {
            error if error.is_empty() => text(one, "/responseStatus"),
            error => error,
        };
        let [id, kind, state, attempts] =
            ["/id", "/type", "/state", "/attempts"].map(|cell| text(one, cell));
        vec![id, kind, state, attempts, answer, age(one, now)]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print(&table(&["ID", "TYPE", "STATE", "ATTEMPTS", "ANSWER", "AGE"], &rows))
}

/// The result of a test: an error if the endpoint did not accept it.
fn outcome(id: Uuid, delivery: &Value) -> anyhow::Result<()> {
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
