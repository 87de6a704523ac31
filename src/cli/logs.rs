//! `certwright logs`: the history, line by line.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::kind::targets;
use super::output::{print, text};
use super::remote::{Remote, Session, Where, run};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright logs                          what happened in the namespace
  certwright logs certificate www -f       what happens to one certificate and its orders, as it does
  certwright logs -A --since 2026-11-24T00:00:00Z")]
pub(super) struct Logs {
    /// KIND NAME, or KIND/NAME
    #[arg(value_name = "KIND NAME")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Go on printing what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// From this moment on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// How often a server without a stream is asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Logs {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.print(&session))
    }

    async fn print(&self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.namespace(&self.place);
        let mut resource = None;
        if !self.what.is_empty()
            && let Some((kind, Some(name))) = targets(&self.what)?.into_iter().next()
        {
            let found = session.find(kind, namespace.as_deref(), &name).await?;
            resource =
                Some(format!("{}/{}", kind.path().trim_start_matches('/'), text(&found, "/id")));
        }
        let mut query: Vec<(&str, &str)> = Vec::new();
        match &resource {
            Some(resource) => query.push(("resource", resource)),
            None => query.extend(namespace.as_deref().map(|name| ("namespace", name))),
        }
        let mut known = query.clone();
        known.extend(self.since.as_deref().map(|since| ("since", since)));
        let mut last = String::new();
        for event in session.client.list("/events", &known).await? {
            last = text(&event, "/id");
            print(&line(&event))?;
        }
        if self.follow { follow(session, &query, last).await } else { Ok(()) }
    }
}

/// What happens from now on: streamed by a server that can, else asked for.
async fn follow(session: &Session, query: &[(&str, &str)], mut last: String) -> anyhow::Result<()> {
    let response = session.client.events(query).await?;
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let mut stream = response.bytes_stream();
        let mut rest = Vec::new();
        while let Some(bytes) = stream.next().await {
            rest.extend_from_slice(&bytes?);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                let data = text.strip_prefix("data:").map(str::trim);
                if let Some(event) = data.and_then(|data| serde_json::from_str(data).ok()) {
                    print(&self::line(&event))?;
                }
            }
        }
        return Ok(());
    }
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        // Identifiers sort by time.
        for event in session.client.list("/events", query).await? {
            let id = text(&event, "/id");
            if id > last {
                last = id;
                print(&line(&event))?;
            }
        }
    }
}

fn line(event: &Value) -> String {
    let seen = ["/lastSeen", "/createdAt"].map(|place| text(event, place));
    let seen = seen.into_iter().find(|seen| !seen.is_empty()).unwrap_or_default();
    format!(
        "{seen}  {:7}  {}  {}  {}\n",
        text(event, "/type"),
        text(event, "/resource").trim_start_matches('/'),
        text(event, "/reason"),
        text(event, "/message"),
    )
}
