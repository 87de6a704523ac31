//! `certwright logs`: events, line by line.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::events;
use super::exit::Complaint;
use super::moments::{shown, since};
use super::names::Names;
use super::output::{moment, now, print, text};
use super::remote::{Remote, Session, Where, run};
use super::targets::targets;
use crate::client::{ClientError, Stream};
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright logs                          what happened in the namespace
  certwright logs www --since 10m          what happened to one certificate and its orders
  certwright logs order/www-1-1b4f0e98 -f  what happens, as it does
  certwright logs -A --since 2026-11-24T00:00:00Z")]
pub(super) struct Logs {
    /// A certificate's NAME, KIND NAME, or KIND/NAME
    #[arg(value_name = "[KIND] NAME")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Go on printing what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// From this moment on: how long ago, such as 10m, or RFC 3339
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
        let since = self.since.as_deref().map(|text| since(text, now())).transpose()?;
        let resource = match self.about()? {
            Some((kind, name)) => {
                Some(events::path_of(session, kind, namespace.as_deref(), &name).await?)
            }
            None => None,
        };
        let mut query: Vec<(&str, &str)> = Vec::new();
        match &resource {
            Some(resource) => query.push(("resource", resource)),
            None => query.extend(namespace.as_deref().map(|name| ("namespace", name))),
        }
        // Opened before past events are read, so that nothing is lost between the two.
        let stream =
            if self.follow { Some(session.client.events(&query, None).await?) } else { None };
        let mut known = query.clone();
        known.extend(since.as_deref().map(|since| ("since", since)));
        let mut printer = Printer::default();
        let past = session.client.list("/events", &known).await?;
        printer.print(session, &past).await?;
        match stream {
            Some(stream) => {
                let known = past.iter().map(occurrence).collect();
                follow(session, &query, stream, known, printer).await
            }
            None => Ok(()),
        }
    }

    /// What it is about: a word alone is a certificate's name.
    fn about(&self) -> Result<Option<(Kind, String)>, Complaint> {
        match &self.what[..] {
            [] => Ok(None),
            [name] if !name.contains('/') => Ok(Some((Kind::Certificate, name.clone()))),
            words => match &targets(words)?[..] {
                [(kind, Some(name))] => Ok(Some((*kind, name.clone()))),
                _ => Err(Complaint::Usage("say of which one: NAME, or KIND/NAME".to_owned())),
            },
        }
    }
}

/// Prints events, with the names of what they are about, in columns that only grow.
#[derive(Default)]
struct Printer {
    names: Names,
    widths: [usize; 3],
}

impl Printer {
    async fn print(&mut self, session: &Session, events: &[Value]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            self.names.learn(session, event).await;
            let cells = [text(event, "/type"), self.names.of(event), text(event, "/reason")];
            for (width, cell) in self.widths.iter_mut().zip(&cells) {
                *width = (*width).max(cell.chars().count());
            }
            lines.push((event, cells));
        }
        let [kind, object, reason] = self.widths;
        for (event, cells) in lines {
            let at = moment(event, "/lastSeen").map(shown).unwrap_or_default();
            let [one, two, three] = cells;
            let message = text(event, "/message");
            print(&format!("{at}  {one:kind$}  {two:object$}  {three:reason$}  {message}\n"))?;
        }
        Ok(())
    }
}

/// Prints events from now on, except for those that are printed already. A stream that ends, as it does when
/// the server restarts, is continued where it ended.
async fn follow(
    session: &Session,
    query: &[(&str, &str)],
    mut stream: Stream,
    known: BTreeSet<String>,
    mut printer: Printer,
) -> anyhow::Result<()> {
    let mut last: Option<String> = None;
    let mut tick = tokio::time::interval(COME_BACK_AFTER);
    loop {
        while let Some(event) = stream.next().await {
            if !known.contains(&occurrence(&event)) {
                printer.print(session, &[event]).await?;
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
