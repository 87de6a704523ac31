//! `certwright describe`

use clap::Args;
use serde_json::Value;

use super::document::{Parts, parts};
use super::events;
use super::exit::Complaint;
use super::get::{selected, selector};
use super::output::{print, text};
use super::remote::{Session, Where};
use super::targets::targets;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright describe certificate www
  certwright describe order www-1-1b4f0e98 -n team
  certwright describe challenges
  certwright describe cert/www clusterissuer/letsencrypt-staging")]
pub(super) struct Describe {
    /// KIND, KIND NAME…, or KIND/NAME…
    #[arg(required = true, value_name = "KIND [NAME…]")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Labels that certificates must have
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

impl Describe {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let selector = self.selector.as_deref().map(selector).transpose()?;
        let namespace = session.namespace(&self.place);
        let namespace = namespace.as_deref();
        let mut parts = Vec::new();
        for (kind, name) in targets(&self.what)? {
            let resources = match &name {
                Some(name) => vec![session.find(kind, namespace, name).await?],
                None => selected(session, kind, namespace, selector.as_ref()).await?,
            };
            for mut resource in resources {
                // Only one that is read by itself shows its limits and throttles.
                if matches!(kind, Kind::Issuer | Kind::ClusterIssuer) {
                    let path = format!("{}/{}", kind.path(), text(&resource, "/id"));
                    resource = session.client.get(&path, &[]).await?;
                }
                let events = match kind {
                    Kind::Event | Kind::Policy | Kind::Secret => Vec::new(),
                    _ => events::of(session, kind, &resource).await?,
                };
                parts.push(format!(
                    "{}{}",
                    described(kind, &resource),
                    events::section(&events, "")
                ));
            }
        }
        if parts.is_empty() {
            return Err(Complaint::not_found("there is nothing to describe"));
        }
        print(&parts.join("\n\n"))
    }
}

fn described(kind: Kind, resource: &Value) -> String {
    let Parts { metadata, spec, status } = parts(kind, resource);
    let labels = resource.get("labels").map(pairs).unwrap_or_default();
    let mut name = text(resource, "/name");
    if name.is_empty() {
        name = text(resource, "/id");
    }
    let none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let mut out = format!(
        "Name:         {name}\nNamespace:    {}\nLabels:       {}\nKind:         {}\n",
        text(resource, "/namespace"),
        none(labels),
        kind.title(),
    );
    for (title, fields) in [("Metadata", metadata), ("Spec", spec), ("Status", status)] {
        if !fields.is_empty() {
            out.extend([format!("{title}:\n")]);
            write(&mut out, &Value::Object(fields), 2);
        }
    }
    out
}

fn pairs(value: &Value) -> String {
    let labels = value.as_object().into_iter().flatten();
    let shown = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    shown.collect::<Vec<_>>().join("\n              ")
}

/// A value in kubectl's way: keys as words, two spaces deeper at every level, nothing for `null`.
fn write(out: &mut String, value: &Value, indent: usize) {
    let space = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            let width = map
                .iter()
                .filter(|(_, value)| is_scalar(value))
                .map(|(key, _)| words(key).chars().count() + 1)
                .max()
                .unwrap_or_default();
            for (key, value) in map {
                let title = format!("{}:", words(key));
                match value {
                    Value::Null => {}
                    Value::Array(items) if items.is_empty() => {}
                    Value::Object(map) if map.is_empty() => {}
                    Value::String(text) if text.contains('\n') => {
                        out.extend([format!("{space}{title}\n")]);
                        for line in text.trim_end().lines() {
                            out.extend([format!("{space}  {line}\n")]);
                        }
                    }
                    value if is_scalar(value) => {
                        out.extend([format!("{space}{title:width$}  {}\n", scalar(value))]);
                    }
                    value => {
                        out.extend([format!("{space}{title}\n")]);
                        write(out, value, indent + 2);
                    }
                }
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                if place > 0 && !is_scalar(item) {
                    out.push('\n');
                }
                write(out, item, indent);
            }
        }
        value => out.extend([format!("{space}{}\n", scalar(value))]),
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `notAfter` as `Not After`, `dnsNames` as `Dns Names`.
fn words(key: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for c in key.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        if words.is_empty() {
            words.extend(c.to_uppercase());
        } else {
            words.push(c);
        }
        before = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_reads_like_kubectls() {
        let certificate = json!({
            "id": "7", "namespace": "default", "name": "www", "labels": {"team": "web"}, "createdAt": "2026-11-24T12:00:00Z",
            "dnsNames": ["a.example.com", "b.example.com"], "commonName": null, "issuerRef": {"name": "le"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Issuing", "status": "False"}], "revision": 1}
        });

        assert_eq!(
            described(Kind::Certificate, &certificate),
            "Name:         www\nNamespace:    default\nLabels:       team=web\nKind:         Certificate\n\
             Metadata:\n  Creation Timestamp:  2026-11-24T12:00:00Z\n  Id:                  7\n\
             Spec:\n  Dns Names:\n    a.example.com\n    b.example.com\n  Issuer Ref:\n    Name:  le\n\
             Status:\n  Conditions:\n    Status:  True\n    Type:    Ready\n\n    Status:  False\n    Type:    Issuing\n  Revision:  1\n"
        );
    }
}
