//! `certwright webhooks`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::output::{age, note, now, print, table, text, yaml};
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
  certwright webhooks create https://hooks.example.com/certs --name deploy --event certificate.issued --event certificate.failed")]
    Create {
        /// Where to
        url: String,
        /// What it is to be called [default: one is made]
        #[arg(long)]
        name: Option<String>,
        /// Which events [default: all]
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<String>,
        #[command(flatten)]
        place: Within,
    },
    /// Show a webhook, but for its secret
    Get(One),
    /// Delete a webhook
    Delete(One),
    /// Post a `webhook.test` to it, and say what came of it
    Test(One),
    /// Change to a new signing secret, and print it this once
    #[command(after_help = "Examples:
  certwright webhooks rotate deploy
  certwright webhooks rotate deploy --former-valid-for 0s")]
    Rotate {
        #[command(flatten)]
        one: One,
        /// How long the former secret signs as well; 0s if others know it [default: 24h]
        #[arg(long, value_name = "DURATION")]
        former_valid_for: Option<String>,
    },
    /// List what was sent to it, and what came of that
    #[command(after_help = "Examples:
  certwright webhooks deliveries deploy
  certwright webhooks deliveries deploy --state dead")]
    Deliveries {
        #[command(flatten)]
        one: One,
        /// Those in this state
        #[arg(long, value_parser = STATES)]
        state: Option<String>,
        /// Those that were told at this moment or later (RFC 3339)
        #[arg(long, value_name = "MOMENT")]
        since: Option<String>,
    },
    /// Send again what was sent before: one delivery, or everything since a moment
    #[command(after_help = "Examples:
  certwright webhooks redeliver deploy $DELIVERY
  certwright webhooks redeliver deploy --since 2026-11-25T12:00:00Z")]
    Redeliver {
        #[command(flatten)]
        one: One,
        /// Which delivery
        #[arg(required_unless_present = "since", conflicts_with = "since")]
        delivery: Option<Uuid>,
        /// Everything that was told at this moment or later (RFC 3339)
        #[arg(long, value_name = "MOMENT")]
        since: Option<String>,
    },
}

/// One webhook.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The webhook's name, or its identifier
    #[arg(value_name = "NAME")]
    webhook: String,
    #[command(flatten)]
    place: Within,
}

impl One {
    /// The path of the webhook, and its name.
    async fn find(&self, session: &Session) -> anyhow::Result<(String, String)> {
        let found = self.get(session).await?;
        Ok((format!("/webhooks/{}", text(&found, "/id")), text(&found, "/name")))
    }

    async fn get(&self, session: &Session) -> anyhow::Result<Value> {
        let namespace = session.within(&self.place);
        session.find(Kind::Webhook, Some(&namespace), &self.webhook).await
    }
}

impl Webhooks {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match &self {
            Self::List { place } => {
                let namespace = session.namespace(place);
                let found = session.list(Kind::Webhook, namespace.as_deref(), &[]).await?;
                let cells = ["/name", "/url", "/status/phase", "/status/message"];
                let row = |one: &Value| cells.map(|cell| text(one, cell)).to_vec();
                let rows: Vec<_> = found.iter().map(row).collect();
                print(&table(&["NAME", "URL", "PHASE", "MESSAGE"], &rows))
            }
            Self::Create { url, name, events, place } => {
                let namespace = session.within(place);
                let mut wanted = json!({"namespace": namespace, "name": name, "url": url});
                if !events.is_empty() {
                    wanted["events"] = json!(events);
                }
                show_secret(&client.post("/webhooks", &wanted).await?, "created")
            }
            Self::Get(one) => print(&yaml(&one.get(session).await?)),
            Self::Delete(one) => {
                let (path, name) = one.find(session).await?;
                client.delete(&path).await?;
                print(&format!("webhook \"{name}\" deleted\n"))
            }
            Self::Test(one) => {
                let (path, name) = one.find(session).await?;
                let path = format!("{path}/test");
                let headers = &[("prefer", ANSWER_WITHIN)];
                let ask = Ask { headers, ..Ask::post(&path, Body::None) };
                outcome(&name, &client.json(ask).await?)
            }
            Self::Rotate { one, former_valid_for } => {
                let (path, _) = one.find(session).await?;
                let how = json!({"formerValidFor": former_valid_for});
                show_secret(
                    &client.post(&format!("{path}/rotate"), &how).await?,
                    "has a new secret",
                )
            }
            Self::Deliveries { one, state, since } => {
                let (path, _) = one.find(session).await?;
                let given = [("state", state), ("since", since)];
                let given = given
                    .iter()
                    .filter_map(|(name, value)| value.as_deref().map(|value| (*name, value)));
                deliveries(client, &path, &given.collect::<Vec<_>>()).await
            }
            Self::Redeliver { one, delivery: Some(delivery), .. } => {
                let (path, _) = one.find(session).await?;
                let path = format!("{path}/deliveries/{delivery}/redeliver");
                client.post(&path, &json!({})).await?;
                print(&format!("delivery/{delivery} is on its way again\n"))
            }
            Self::Redeliver { one, since, .. } => {
                let (path, name) = one.find(session).await?;
                let path = format!("{path}/redeliver");
                let again = client.post(&path, &json!({"since": since})).await?;
                let count = text(&again, "/redelivered");
                print(&format!("webhook/{name}: deliveries on their way again: {count}\n"))
            }
        }
    }
}

/// The secret alone goes to standard output.
fn show_secret(webhook: &Value, what: &str) -> anyhow::Result<()> {
    note(&format!("webhook/{} {what}; its secret is shown this once:", text(webhook, "/name")));
    print(&format!("{}\n", text(webhook, "/secret")))
}

async fn deliveries(client: &Client, webhook: &str, given: &[(&str, &str)]) -> anyhow::Result<()> {
    let now = now();
    let found = client.list(&format!("{webhook}/deliveries"), given).await?;
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
fn outcome(name: &str, delivery: &Value) -> anyhow::Result<()> {
    let status = text(delivery, "/responseStatus");
    match text(delivery, "/state").as_str() {
        "delivered" => print(&format!("webhook/{name} took a webhook.test (status {status})\n")),
        "dead" if status.is_empty() => {
            anyhow::bail!("webhook/{name} was not reached: {}", text(delivery, "/error"))
        }
        "dead" => anyhow::bail!("webhook/{name} refused a webhook.test with status {status}"),
        _ => print(&format!("webhook/{name}: a webhook.test is on its way\n")),
    }
}
