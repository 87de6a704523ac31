//! Names instead of identifiers: `certificate/www` for `/certificates/019ab…`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::output::text;
use super::remote::Session;
use crate::manifest::kind::Kind;

/// Names by paths, as far as they were asked for.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Learns the name of what an event is about. What is gone, or may not be seen, keeps its identifier.
    pub(super) async fn learn(&mut self, session: &Session, event: &Value) {
        let path = text(event, "/resource");
        let Some((kind, id)) = taken_apart(&path) else { return };
        if self.0.contains_key(&path) {
            return;
        }
        let found = session.client.get(&path, &[]).await.unwrap_or_default();
        let name = Some(text(&found, "/name")).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| id.to_owned());
        let word = if text(&found, "/kind") == "ClusterIssuer" { "clusterissuer" } else { kind };
        self.0.insert(path.clone(), format!("{word}/{name}"));
    }

    /// What an event is about.
    pub(super) fn of(&self, event: &Value) -> String {
        let path = text(event, "/resource");
        self.0.get(&path).cloned().unwrap_or_else(|| match taken_apart(&path) {
            Some((kind, id)) => format!("{kind}/{id}"),
            None => path,
        })
    }
}

/// The word for the kind, and the identifier.
fn taken_apart(path: &str) -> Option<(&'static str, &str)> {
    let (collection, id) = path.strip_prefix('/')?.split_once('/')?;
    let kind = Kind::parse(collection).ok()?;
    Some((if kind == Kind::Request { "certificaterequest" } else { kind.word() }, id))
}
