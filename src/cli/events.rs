//! Events, as kubectl and cmctl print them under a resource.

use serde_json::Value;

use super::output::{duration, moment, now, table, text};
use super::remote::Session;
use crate::client::ClientError;
use crate::manifest::kind::Kind;

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
