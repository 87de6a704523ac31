//! Reading cert-manager's `Certificate`.

use serde_json::{Map, Value, json};

use super::object::Object;
use super::spelling::is_nothing;
use crate::validation::{FieldCode, boolean};
use crate::view::spec::CertificateSpec;

/// What a `Certificate` says, in the API's own words.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) spec: CertificateSpec,
    /// The Secret that cert-manager would keep it in.
    pub(crate) secret_name: Option<String>,
    /// Whether it says which webhooks are told, if only that none is.
    pub(crate) names_webhooks: bool,
}

/// Fields that mean something only inside Kubernetes, or to another kind of CA.
const PASSED_OVER: [(&str, &str); 8] = [
    ("additionalOutputFormats", "every format is there to be downloaded"),
    ("encodeUsagesInRequest", "an ACME CA decides the usages"),
    ("keystores", "a keystore is made when it is downloaded"),
    ("literalSubject", "an ACME CA keeps nothing of a subject but the common name"),
    ("secretTemplate", "there is no Secret that it could be for"),
    ("signatureAlgorithm", "the key decides it"),
    ("subject", "an ACME CA keeps nothing of a subject but the common name"),
    ("usages", "an ACME CA decides the usages"),
];

/// Names that no ACME CA certifies.
const NO_NAMES: [&str; 3] = ["emailAddresses", "otherNames", "uris"];

/// Reads the manifest. Faults are added to the object.
pub(crate) fn read(object: &mut Object, default_namespace: &str) -> Option<Wish> {
    let mut spec = object.take_map("spec")?;
    object.nothing_else(&["metadata", "spec"]);
    for identity in ["labels", "name", "namespace"] {
        if spec.remove(identity).is_some() {
            let detail = "there is no such field; it belongs into `metadata`";
            object.fault(&format!("/spec/{identity}"), FieldCode::UnknownField, detail);
        }
    }
    let secret_name = given(&mut spec, "secretName");
    if secret_name.is_some() {
        let instead = "no Secret is written; certificate and key are there to be downloaded";
        object.warn("spec.secretName", instead);
    }
    for (field, instead) in PASSED_OVER {
        if given(&mut spec, field).is_some() {
            object.warn(&format!("spec.{field}"), instead);
        }
    }
    refused(&mut spec, object);
    private_key(&mut spec, object);
    issuer_group(&mut spec, object);
    let names_webhooks = spec.contains_key("webhooks");
    let namespace = object.namespace.clone().unwrap_or_else(|| default_namespace.to_owned());
    spec.insert("namespace".to_owned(), namespace.into());
    spec.insert("name".to_owned(), object.name.clone().into());
    spec.insert("labels".to_owned(), json!(object.labels));
    let stand_in = json!({"issuerRef": {"name": "none"}});
    let spec = object.parse(Value::Object(spec), "/spec", &stand_in)?;
    let secret_name = secret_name.and_then(|name| name.as_str().map(str::to_owned));
    Some(Wish { spec, secret_name, names_webhooks })
}

/// Turns a pointer into the specification into one into its manifest.
pub(crate) fn place(pointer: &str) -> String {
    match pointer.split('/').nth(1) {
        Some("labels" | "name" | "namespace") => format!("/metadata{pointer}"),
        _ => format!("/spec{pointer}"),
    }
}

/// Refuses fields without which the certificate, or its renewal, would be another one.
fn refused(spec: &mut Map<String, Value>, object: &mut Object) {
    for field in NO_NAMES {
        if given(spec, field).is_some() {
            let detail = "an ACME CA certifies DNS names and IP addresses only";
            object.fault(&format!("/spec/{field}"), FieldCode::Unsupported, detail);
        }
    }
    if given(spec, "isCA").is_some_and(|given| boolean(&given) != Some(false)) {
        let detail = "an ACME CA does not make certificates of CAs";
        object.fault("/spec/isCA", FieldCode::Unsupported, detail);
    }
    if given(spec, "nameConstraints").is_some() {
        let detail = "an ACME CA puts no name constraints into a certificate";
        object.fault("/spec/nameConstraints", FieldCode::Unsupported, detail);
    }
    if given(spec, "renewal").is_some_and(|given| given != json!({"policy": "RenewBefore"})) {
        let detail = "maintenance windows, and certificates that are not renewed, are not there yet; leave it out";
        object.fault("/spec/renewal", FieldCode::Unsupported, detail);
    }
}

fn private_key(spec: &mut Map<String, Value>, object: &mut Object) {
    let Some(Value::Object(key)) = spec.get_mut("privateKey") else { return };
    if given(key, "encoding").is_some_and(|encoding| encoding != "PKCS8") {
        object.warn("spec.privateKey.encoding", "keys are handed out as PKCS #8");
    }
    // cert-manager's default algorithm is RSA, so a size without an algorithm is one of RSA's.
    let size = key.get("size").and_then(Value::as_u64);
    if key.get("algorithm").is_none_or(is_nothing) && size.is_some_and(|size| size >= 2048) {
        key.insert("algorithm".to_owned(), "RSA".into());
    }
}

/// Takes a field out, if it says something.
fn given(map: &mut Map<String, Value>, field: &str) -> Option<Value> {
    map.remove(field).filter(|value| !is_nothing(value))
}

fn issuer_group(spec: &mut Map<String, Value>, object: &mut Object) {
    let Some(Value::Object(issuer)) = spec.get_mut("issuerRef") else { return };
    if issuer.remove("group").is_some_and(|group| group != "cert-manager.io" && group != "") {
        let detail = "external issuers are not there; `cert-manager.io` is the only group";
        object.fault("/spec/issuerRef/group", FieldCode::Unsupported, detail);
    }
}
