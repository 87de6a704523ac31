//! Manifests from resources as the API shows them.

use serde_json::{Map, Value, json};

use super::kind::Kind;
use crate::yaml;

/// The resource as a document of a YAML stream. Applying it changes nothing.
pub(crate) fn manifest(kind: Kind, resource: &Value) -> String {
    if kind == Kind::Secret {
        return secret(resource);
    }
    let text = yaml::write(&value(kind, resource));
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

/// The manifest of a certificate or issuer.
pub(crate) fn value(kind: Kind, resource: &Value) -> Value {
    match kind {
        Kind::Certificate => certificate(resource),
        Kind::Policy => policy(resource),
        _ => issuer(kind, resource),
    }
}

fn text<'a>(resource: &'a Value, field: &str) -> &'a str {
    resource[field].as_str().unwrap_or_default()
}

/// Name, namespace and labels. What has no name goes by its identifier.
pub(crate) fn metadata(resource: &Value) -> Value {
    let mut metadata = Map::new();
    let name = resource.get("name").or_else(|| resource.get("id")).cloned();
    metadata.insert("name".to_owned(), name.unwrap_or_default());
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

/// A comment: a Secret without values would remove the present ones.
fn secret(resource: &Value) -> String {
    let keys = resource["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut lines = vec![
        "The values of this Secret are not handed out; fill them in before applying it elsewhere."
            .to_owned(),
        "apiVersion: v1".to_owned(),
        "kind: Secret".to_owned(),
        format!(
            "metadata: {{name: {}, namespace: {}}}",
            text(resource, "name"),
            text(resource, "namespace")
        ),
        "stringData:".to_owned(),
    ];
    lines.extend(keys.map(|key| format!("  {key}: \"\"")));
    lines.into_iter().map(|line| format!("# {line}\n")).collect::<Vec<_>>().concat()
}

fn issuer(kind: Kind, resource: &Value) -> Value {
    json!({
        "apiVersion": kind.api_version(), "kind": kind.title(), "metadata": metadata(resource),
        "spec": {"acme": resource["acme"]},
    })
}

/// Fields beside a certificate's `spec`.
const BESIDE: [&str; 9] = [
    "admittedBy",
    "createdAt",
    "deletionTimestamp",
    "generation",
    "id",
    "labels",
    "name",
    "namespace",
    "status",
];

/// Fields that the CSR says where there is one, and that are refused beside it.
const SAID_BY_CSR: [&str; 4] = ["commonName", "dnsNames", "ipAddresses", "privateKey"];

fn policy(resource: &Value) -> Value {
    let fields = ["namespaces", "names", "issuers", "keys", "maxNames", "approval"];
    let spec = fields.map(|field| (field.to_owned(), resource[field].clone()));
    json!({
        "apiVersion": Kind::Policy.api_version(), "kind": Kind::Policy.title(), "metadata": {"name": resource["name"]},
        "spec": Map::from_iter(spec),
    })
}

fn certificate(resource: &Value) -> Value {
    let mut spec = Map::new();
    // The field is required in Kubernetes.
    spec.insert("secretName".to_owned(), format!("{}-tls", text(resource, "name")).into());
    let has_csr = !is_nothing(&resource["csr"]);
    for (field, value) in resource.as_object().into_iter().flatten() {
        let said_elsewhere =
            BESIDE.contains(&field.as_str()) || has_csr && SAID_BY_CSR.contains(&field.as_str());
        if !said_elsewhere && !is_nothing(value) {
            spec.insert(field.clone(), value.clone());
        }
    }
    json!({
        "apiVersion": Kind::Certificate.api_version(), "kind": Kind::Certificate.title(), "metadata": metadata(resource),
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_csr_says_is_not_said_beside_it() {
        let mut shown = json!({
            "name": "web", "namespace": "default", "issuerRef": {"name": "le"}, "csr": null,
            "dnsNames": ["a.example.com"], "ipAddresses": [], "commonName": "a.example.com",
        });
        let fields = |shown: &Value| -> Vec<String> {
            let manifest = value(Kind::Certificate, shown);
            manifest["spec"].as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(fields(&shown), ["commonName", "dnsNames", "issuerRef", "secretName"]);

        shown["csr"] = "-----BEGIN CERTIFICATE REQUEST-----".into();
        assert_eq!(fields(&shown), ["csr", "issuerRef", "secretName"]);
    }
}
