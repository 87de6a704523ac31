//! Reading `Policy`, a kind of our own.

use serde_json::{Value, json};

use super::object::Object;
use crate::validation::FieldCode;
use crate::view::policy::PolicySpec;

/// Reads the manifest. Faults are added to the object.
pub(crate) fn read(object: &mut Object) -> Option<PolicySpec> {
    let mut spec = object.take_map("spec")?;
    object.nothing_else(&["metadata", "spec"]);
    if spec.remove("name").is_some() {
        let detail = "there is no such field; it belongs into `metadata`";
        object.fault("/spec/name", FieldCode::UnknownField, detail);
    }
    if object.namespace.is_some() {
        object.warn("metadata.namespace", "a Policy says in `spec.namespaces` which it is for");
    }
    if !object.labels.is_empty() {
        object.warn("metadata.labels", "labels are kept with Certificates only");
    }
    spec.insert("name".to_owned(), object.name.clone().into());
    let stand_in = json!({"namespaces": ["none"], "names": [{"pattern": "none.invalid"}], "issuers": [{"name": "none"}]});
    object.parse(Value::Object(spec), "/spec", &stand_in)
}

/// Turns a pointer into the specification into one into its manifest.
pub(crate) fn place(pointer: &str) -> String {
    match pointer {
        "/name" => "/metadata/name".to_owned(),
        _ => format!("/spec{pointer}"),
    }
}
