//! `certwright export`: what is there as cert-manager's manifests.

use clap::Args;
use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::output::{print, text, yaml};
use super::remote::{Remote, Session, Where, run};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright export -A > backup.yaml
  certwright export certificates -n team
  certwright export issuers,clusterissuers | kubectl apply -f -

What is exported can be applied again, and changes nothing then. Values of Secrets are never handed
out: their names stand in comments.")]
pub(super) struct Export {
    /// KINDs: secrets, issuers, clusterissuers, certificates [default: all]
    #[arg(value_name = "KIND[,KIND…]")]
    kinds: Vec<String>,
    #[command(flatten)]
    place: Where,
}

const ALL: [Kind; 4] = [Kind::Secret, Kind::ClusterIssuer, Kind::Issuer, Kind::Certificate];

impl Export {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.export(&session))
    }

    async fn export(&self, session: &Session) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for text in &self.kinds {
            wanted.extend(Kind::parse_several(text)?);
        }
        let namespace = session.namespace(&self.place);
        let mut documents = Vec::new();
        for kind in ALL.into_iter().filter(|kind| wanted.is_empty() || wanted.contains(kind)) {
            for resource in session.list(kind, namespace.as_deref(), &[]).await? {
                documents.push(match kind {
                    Kind::Secret => secret(&resource),
                    Kind::Certificate => yaml(&certificate(&resource)),
                    _ => yaml(&issuer(kind, &resource)),
                });
            }
        }
        print(&documents.join("---\n"))
    }
}

fn metadata(resource: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), resource["name"].clone());
    for field in ["namespace", "labels"] {
        let given = resource.get(field).filter(|value| !is_nothing(value));
        metadata.extend(given.map(|value| (field.to_owned(), value.clone())));
    }
    Value::Object(metadata)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// As a comment: a Secret without values would take those away that are there.
fn secret(resource: &Value) -> String {
    let keys = resource["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut lines = vec![
        "The values of this Secret are not handed out; fill them in before applying it elsewhere."
            .to_owned(),
        "apiVersion: v1".to_owned(),
        "kind: Secret".to_owned(),
        format!(
            "metadata: {{name: {}, namespace: {}}}",
            text(resource, "/name"),
            text(resource, "/namespace")
        ),
        "stringData:".to_owned(),
    ];
    lines.extend(keys.map(|key| format!("  {key}: \"\"")));
    lines.into_iter().map(|line| format!("# {line}\n")).collect::<Vec<_>>().concat()
}

fn issuer(kind: Kind, resource: &Value) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": kind.title(), "metadata": metadata(resource),
        "spec": {"acme": resource["acme"]},
    })
}

/// What is not part of a certificate's `spec`.
const BESIDE: [&str; 7] =
    ["createdAt", "generation", "id", "labels", "name", "namespace", "status"];

fn certificate(resource: &Value) -> Value {
    let mut spec = Map::new();
    // Kubernetes wants one.
    spec.insert("secretName".to_owned(), format!("{}-tls", text(resource, "/name")).into());
    for (field, value) in resource.as_object().into_iter().flatten() {
        if !BESIDE.contains(&field.as_str()) && !is_nothing(value) {
            spec.insert(field.clone(), value.clone());
        }
    }
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": metadata(resource),
        "spec": spec,
    })
}
