//! `certwright logs`: events, line by line.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::output::{print, text};
use super::remote::{Remote, Session, Where, run};
use super::targets::targets;
use crate::client::{ClientError, Stream};

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

/// Interval of reconnecting to a server that has gone away.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

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
        // Opened before past events are read, so that nothing is lost between the two.
        let stream =
            if self.follow { Some(session.client.events(&query, None).await?) } else { None };
        let mut known = query.clone();
        known.extend(self.since.as_deref().map(|since| ("since", since)));
        let mut printed = BTreeSet::new();
        for event in session.client.list("/events", &known).await? {
            print(&line(&event))?;
            if stream.is_some() {
                printed.insert(occurrence(&event));
            }
        }
        match stream {
            Some(stream) => follow(session, &query, stream, printed).await,
            None => Ok(()),
        }
    }
}

/// Prints events from now on, except for those that are printed already. A stream that ends, as it does when
/// the server restarts, is continued where it ended.
async fn follow(
    session: &Session,
    query: &[(&str, &str)],
    mut stream: Stream,
    printed: BTreeSet<String>,
) -> anyhow::Result<()> {
    let mut last: Option<String> = None;
    let mut tick = tokio::time::interval(COME_BACK_AFTER);
    loop {
        while let Some(event) = stream.next().await {
            if !printed.contains(&occurrence(&event)) {
                print(&line(&event))?;
            }
        }
        last = stream.last_id().map(str::to_owned).or(last);
        stream = loop {
            tick.tick().await;
            match session.client.events(query, last.as_deref()).await {
                Ok(stream) => break stream,
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) if error.status().is_some_and(|status| status >= 500) => {}
                Err(error) => return Err(error.into()),
            }
        };
    }
}

/// A repeated event comes again with a higher count.
fn occurrence(event: &Value) -> String {
    format!("{} {}", text(event, "/id"), text(event, "/lastSeen"))
}

fn line(event: &Value) -> String {
    format!(
        "{}  {:7}  {}  {}  {}\n",
        text(event, "/lastSeen"),
        text(event, "/type"),
        text(event, "/resource").trim_start_matches('/'),
        text(event, "/reason"),
        text(event, "/message"),
    )
}
