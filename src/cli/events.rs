//! Events, as kubectl and cmctl print them under a resource.

use clap::Args;
use serde_json::Value;

use super::columns::{Around, columns};
use super::exit::Complaint;
use super::names::Names;
use super::output::{duration, moment, note, now, print, table, text};
use super::remote::{Remote, Session, Where, run};
use super::targets::targets;
use crate::client::ClientError;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright events
  certwright events --for certificate/www
  certwright events -A --types=Warning

`certwright logs` prints the same line by line, and follows.")]
pub(super) struct Events {
    /// Only of this resource and what belongs to it
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Normal, Warning, or both
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = ["Normal", "Warning"])]
    types: Vec<String>,
    #[command(flatten)]
    place: Where,
}

impl Events {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.list(&session))
    }

    async fn list(&self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.namespace(&self.place);
        let resource = match &self.about {
            Some(word) => match &targets(std::slice::from_ref(word))?[..] {
                [(kind, Some(name))] => {
                    Some(path_of(session, *kind, namespace.as_deref(), name).await?)
                }
                _ => return Err(Complaint::Usage("--for takes KIND/NAME".to_owned()).into()),
            },
            None => None,
        };
        let mut query: Vec<(&str, &str)> = Vec::new();
        match &resource {
            Some(resource) => query.push(("resource", resource)),
            None => query.extend(namespace.as_deref().map(|name| ("namespace", name))),
        }
        let mut found = session.client.list("/events", &query).await?;
        found.retain(|one| self.types.is_empty() || self.types.contains(&text(one, "/type")));
        if found.is_empty() {
            note("No events found.");
            return Ok(());
        }
        found.sort_by_cached_key(|one| moment(one, "/lastSeen"));
        let mut names = Names::default();
        for event in &found {
            names.learn(session, event).await;
        }
        let around = Around { now: now(), issuers: std::collections::BTreeMap::new(), names };
        let columns = columns(Kind::Event);
        let header: Vec<&str> = columns.iter().map(|(name, ..)| *name).collect();
        let row = |one: &Value| columns.iter().map(|(_, _, cell)| cell(one, &around)).collect();
        print(&table(&header, &found.iter().map(row).collect::<Vec<Vec<String>>>()))
    }
}

/// `certificates/019ab…`, as events are asked for.
pub(super) async fn path_of(
    session: &Session,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
) -> anyhow::Result<String> {
    let found = session.find(kind, namespace, name).await?;
    Ok(format!("{}/{}", kind.path().trim_start_matches('/'), text(&found, "/id")))
}

/// The events of one resource, oldest first. A key that may not see them sees none.
pub(super) async fn of(
    session: &Session,
    kind: Kind,
    resource: &Value,
) -> anyhow::Result<Vec<Value>> {
    let path = format!("{}/{}", kind.path(), text(resource, "/id"));
    let query = [("resource", path.trim_start_matches('/'))];
    let mut events = match session.client.list("/events", &query).await {
        Ok(events) => events,
        Err(ClientError::Refused(problem)) if problem.status == 403 => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    // A certificate's events include those of its requests, orders and challenges.
    events.retain(|event| text(event, "/resource") == path);
    Ok(events)
}

/// `Events:` with a table, or `<none>`; every line begins with `indent`.
pub(super) fn section(events: &[Value], indent: &str) -> String {
    if events.is_empty() {
        return format!("{indent}Events:  <none>\n");
    }
    let now = now();
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["----", "------", "----", "----", "-------"])];
    for event in events {
        let seen = moment(event, "/lastSeen");
        let age = seen.map(|seen| duration(now - seen)).unwrap_or_default();
        let times = event.get("count").and_then(Value::as_u64).filter(|count| *count > 1);
        let age = times.map_or_else(|| age.clone(), |count| format!("{age} (x{count})"));
        rows.push(vec![
            text(event, "/type"),
            text(event, "/reason"),
            age,
            "certwright".to_owned(),
            text(event, "/message"),
        ]);
    }
    let table = table(&["Type", "Reason", "Age", "From", "Message"], &rows);
    let lines: Vec<String> = table.lines().map(|line| format!("{indent}  {line}\n")).collect();
    format!("{indent}Events:\n{}", lines.concat())
}
