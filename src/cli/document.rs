//! Resources as kubectl shows them: `apiVersion`, `kind`, `metadata`, `spec` and `status`.

use serde_json::{Map, Value, json};

use crate::manifest::kind::Kind;
use crate::manifest::write;

/// Fields with the status of resources that have no `status`.
const STATUS: [&str; 17] = [
    "attempts",
    "challenges",
    "conditions",
    "deadline",
    "expires",
    "finishedAt",
    "lastError",
    "nextActionAt",
    "order",
    "presented",
    "propagated",
    "reason",
    "record",
    "replaces",
    "state",
    "updatedAt",
    "url",
];

/// A resource's fields, apart from its name, namespace and labels.
pub(super) struct Parts {
    pub(super) metadata: Map<String, Value>,
    pub(super) spec: Map<String, Value>,
    pub(super) status: Map<String, Value>,
}

/// Sorts the fields of a resource.
pub(super) fn parts(kind: Kind, resource: &Value) -> Parts {
    let (mut spec, mut status, mut metadata) = (Map::new(), Map::new(), Map::new());
    for (field, value) in resource.as_object().into_iter().flatten() {
        match field.as_str() {
            "namespace" | "labels" | "name" | "kind" => {}
            "createdAt" => _ = metadata.insert("creationTimestamp".to_owned(), value.clone()),
            "generation" | "id" => _ = metadata.insert(field.clone(), value.clone()),
            "status" => status.extend(value.as_object().cloned().unwrap_or_default()),
            // The order belongs to a challenge's identity, and to a request's status.
            "order" if kind == Kind::Challenge => _ = spec.insert(field.clone(), value.clone()),
            known if STATUS.contains(&known) => _ = status.insert(field.clone(), value.clone()),
            _ => _ = spec.insert(field.clone(), value.clone()),
        }
    }
    Parts { metadata, spec, status }
}

/// The resource as a document. Those of certificates and issuers are manifests: they can be applied.
pub(super) fn document(kind: Kind, resource: &Value) -> Value {
    let Parts { metadata, spec, status } = parts(kind, resource);
    let mut document = match kind {
        Kind::Certificate | Kind::Issuer | Kind::ClusterIssuer => write::value(kind, resource),
        // Without its values it must not be applied: the field is refused.
        Kind::Secret => json!({"metadata": write::metadata(resource), "keys": resource["keys"]}),
        // What happened has no spec in Kubernetes either.
        Kind::Event => {
            let mut event = spec;
            event.extend(status.clone());
            event.insert("metadata".to_owned(), write::metadata(resource));
            Value::Object(event)
        }
        _ => json!({"metadata": write::metadata(resource), "spec": spec}),
    };
    document["apiVersion"] = kind.api_version().into();
    document["kind"] = kind.title().into();
    for (field, value) in metadata {
        let field = if field == "id" { "uid".to_owned() } else { field };
        document["metadata"][field] = value;
    }
    if !status.is_empty() && kind != Kind::Event {
        document["status"] = Value::Object(status);
    }
    document
}
