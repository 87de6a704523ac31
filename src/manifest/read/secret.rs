//! Reading Kubernetes' `Secret`: credentials, and pairs of key and certificate.

use serde_json::{Map, Value, json};

use super::object::Object;
use crate::validation::FieldCode;
use crate::view::spec::SecretSpec;

const TLS: &str = "kubernetes.io/tls";

/// Reads the manifest, and returns whether it is a certificate with its key. Faults are added
/// to the object.
pub(crate) fn read(object: &mut Object, namespace: &str) -> Option<(SecretSpec, bool)> {
    let kind = match object.body.remove("type") {
        None => String::new(),
        Some(Value::String(kind)) => kind,
        Some(_) => {
            object.fault("/type", FieldCode::WrongType, "expected a string");
            String::new()
        }
    };
    let is_pair = kind == TLS;
    let mut spec = Map::new();
    for field in ["data", "stringData"] {
        let Some(mut values) = object.body.remove(field) else { continue };
        if let (true, Value::Object(values)) = (is_pair, &mut values) {
            // Beside these there may be keystores, which are no text.
            values.retain(|key, _| key == "tls.crt" || key == "tls.key");
        }
        spec.insert(field.to_owned(), values);
    }
    object.body.remove("immutable");
    object.nothing_else(&["data", "immutable", "metadata", "stringData", "type"]);
    if !object.labels.is_empty() {
        object.warn("metadata.labels", "labels are kept with Certificates only");
    }
    spec.insert("namespace".to_owned(), namespace.into());
    spec.insert("name".to_owned(), json!(object.name));
    Some((object.parse(Value::Object(spec), "", &Value::Null)?, is_pair))
}

/// Turns a pointer into the specification into one into its manifest.
pub(crate) fn place(pointer: &str) -> String {
    match pointer.split('/').nth(1) {
        Some("name" | "namespace") => format!("/metadata{pointer}"),
        _ => pointer.to_owned(),
    }
}
