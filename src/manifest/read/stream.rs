//! Splitting a stream of manifests into objects that know their places in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::object::{Object, Place};
use crate::domain::text::foreign_words;
use crate::manifest::kind::Kind;
use crate::validation::{Faults, FieldCode, FieldError, Refusal};
use crate::yaml;

/// Objects of a stream at most: each of them is looked up in the database.
const MOST_OBJECTS: usize = 5_000;
/// As in Kubernetes.
const LONGEST_NAME: usize = 253;

/// What a stream holds.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) objects: Vec<Object>,
    pub(crate) foreign: Vec<Foreign>,
    /// What is wrong with things that are no object, or have no name.
    pub(crate) faults: Faults,
}

/// A manifest of a kind that is none of ours.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Why it is passed over.
    pub(crate) faults: Faults,
}

/// Splits a stream. Everything in it that is no manifest is reported at once.
pub(crate) fn stream(text: &str) -> Result<Stream, Refusal> {
    let documents = yaml::read(text).map_err(|error| {
        let detail = format!("this is not YAML: {}", error.problem);
        let line = Some(error.line).filter(|line| *line > 0);
        let mut faults = Faults::default();
        let found = Faults::one("", FieldCode::Invalid, detail);
        faults.take(found, |fault| FieldError { line, ..fault });
        faults
    })?;
    let mut stream = Stream::default();
    for (number, document) in (1..).zip(documents) {
        let place = Place::new(number, Arc::new(document.lines));
        stream.unfold(document.value, place);
    }
    let count = stream.objects.len() + stream.foreign.len();
    if count == 0 && stream.faults.is_empty() {
        let detail = "There is no manifest in the body: it is empty.";
        return Err(Refusal::Malformed(detail.to_owned()));
    }
    if count > MOST_OBJECTS {
        let detail = format!(
            "There are {count} manifests in the body. Send at most {MOST_OBJECTS} at once."
        );
        return Err(Refusal::Malformed(detail));
    }
    Ok(stream)
}

fn word(map: &Map<String, Value>, field: &str) -> String {
    map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Stream {
    /// A list, as `kubectl get -o yaml` and the Kubernetes API write it, stands for its items.
    fn unfold(&mut self, value: Value, place: Place) {
        let Value::Object(mut map) = value else {
            let detail = "a manifest is a mapping";
            return place.add(&mut self.faults, "", FieldCode::WrongType, detail);
        };
        strip_nulls(&mut map);
        let (version, kind) = (word(&map, "apiVersion"), word(&map, "kind"));
        if let Some(kind) = kind.strip_suffix("List")
            && let Some(Value::Array(items)) = map.remove("items")
        {
            for (index, mut item) in items.into_iter().enumerate() {
                // Items of a typed list need not repeat what they are.
                if let (Value::Object(item), false) = (&mut item, kind.is_empty()) {
                    item.entry("apiVersion").or_insert_with(|| version.clone().into());
                    item.entry("kind").or_insert_with(|| kind.into());
                }
                self.unfold(item, place.below(&format!("/items/{index}")));
            }
            return;
        }
        match read_kind(&version, &kind) {
            Ok(Some(kind)) => self.objects.extend(Object::read(kind, map, place, &mut self.faults)),
            Ok(None) => self.foreign.push(Foreign::new(&kind, &map, &place)),
            Err((pointer, code, detail)) => place.add(&mut self.faults, pointer, code, &detail),
        }
    }
}

impl Foreign {
    fn new(kind: &str, map: &Map<String, Value>, place: &Place) -> Self {
        let metadata = map.get("metadata").and_then(Value::as_object);
        let shown = |field: &str| {
            let text = metadata.map(|metadata| word(metadata, field)).unwrap_or_default();
            foreign_words(&text, LONGEST_NAME)
        };
        let kind = foreign_words(kind, LONGEST_NAME).unwrap_or_default();
        let detail = format!("there is nothing of the kind `{kind}` here; there are {OURS}");
        let mut faults = Faults::default();
        place.add(&mut faults, "/kind", FieldCode::Unsupported, &detail);
        Self {
            namespace: shown("namespace"),
            name: shown("name").unwrap_or_default(),
            kind,
            faults,
        }
    }
}

const OURS: &str = "Secret, Issuer, ClusterIssuer, Policy and Certificate";

/// cert-manager's kinds that come and go by themselves.
const MADE_BY_OTHERS: [&str; 1] = ["CertificateRequest"];

/// The kind, if it is one of ours; none for those of others. A kind that is none in a group of ours is misspelled.
fn read_kind(version: &str, kind: &str) -> Result<Option<Kind>, (&'static str, FieldCode, String)> {
    if kind.is_empty() {
        return Err(("/kind", FieldCode::Required, "it has to be given".to_owned()));
    }
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    let given = group(version);
    let is_group_of_ours =
        Kind::IN_MANIFESTS.iter().any(|known| group(known.api_version()) == given);
    let mut ours = Kind::IN_MANIFESTS.into_iter().filter(|_| is_group_of_ours);
    if let Some(known) = ours.clone().find(|known| known.title() == kind) {
        if version != known.api_version() {
            let detail = format!("is `{}` for the kind {kind}", known.api_version());
            return Err(("/apiVersion", FieldCode::Invalid, detail));
        }
        return Ok(Some(known));
    }
    let likeness =
        |known: &Kind| strsim::jaro_winkler(&known.title().to_lowercase(), &kind.to_lowercase());
    let near = ours.find(|known| likeness(known) > 0.9 && !MADE_BY_OTHERS.contains(&kind));
    match near {
        Some(known) => {
            let detail = format!("there is no such kind; did you mean `{}`?", known.title());
            Err(("/kind", FieldCode::Unsupported, detail))
        }
        None if version.is_empty() => {
            let detail = "it has to be given, such as `cert-manager.io/v1`";
            Err(("/apiVersion", FieldCode::Required, detail.to_owned()))
        }
        None => Ok(None),
    }
}

/// Adds a fault for every object that is given twice.
pub(crate) fn refuse_twins(objects: &mut [Object], default_namespace: &str) {
    let mut seen = BTreeSet::new();
    for object in objects {
        let namespace = match object.kind {
            kind if !kind.is_namespaced() => String::new(),
            _ => object.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
        };
        if !seen.insert((object.kind, namespace, object.name.clone())) {
            let detail = format!("the {} `{}` is given twice", object.kind.title(), object.name);
            object.fault("/metadata/name", FieldCode::Conflicting, detail);
        }
    }
}

/// As in Kubernetes, `null` is the same as an absent field.
fn strip_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    map.values_mut().for_each(strip_nulls_within);
}

fn strip_nulls_within(value: &mut Value) {
    match value {
        Value::Object(map) => strip_nulls(map),
        Value::Array(items) => items.iter_mut().for_each(strip_nulls_within),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stream: &Stream) -> Vec<String> {
        stream.objects.iter().map(|one| format!("{} {}", one.kind.title(), one.name)).collect()
    }

    const SECRET: &str = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "v"}}"#;

    #[test]
    fn every_form_of_a_stream_that_kubectl_takes_is_taken() {
        let named = |name: &str| SECRET.replace("\"a\"", &format!("\"{name}\""));
        let bare = |name: &str| format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{}}}}"#);
        for (form, text, found) in [
            ("one", SECRET.to_owned(), vec!["Secret a"]),
            ("JSON after JSON", [named("a"), named("b")].join("\n"), vec!["Secret a", "Secret b"]),
            (
                "without a line between",
                [named("a"), named("b")].concat(),
                vec!["Secret a", "Secret b"],
            ),
            (
                "documents",
                format!("---\n{SECRET}\n...\n---\n# nothing\n---\n{}", named("b")),
                vec!["Secret a", "Secret b"],
            ),
            (
                "a mark before a document",
                format!("{SECRET}\n---\n\u{FEFF}{}", named("b")),
                vec!["Secret a", "Secret b"],
            ),
            (
                "a List",
                format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{SECRET}, null]}}"#)
                    .replace(", null", ""),
                vec!["Secret a"],
            ),
            (
                "a SecretList",
                format!(
                    r#"{{"apiVersion": "v1", "kind": "SecretList", "metadata": {{"resourceVersion": ""}}, "items": [{}]}}"#,
                    bare("a")
                ),
                vec!["Secret a"],
            ),
            (
                "a CertificateList",
                format!(
                    r#"{{"apiVersion": "cert-manager.io/v1", "kind": "CertificateList", "items": [{}, {}]}}"#,
                    bare("a"),
                    bare("b")
                ),
                vec!["Certificate a", "Certificate b"],
            ),
            (
                "a List in a List",
                format!(
                    r#"{{"apiVersion": "v1", "kind": "List", "items": [{{"apiVersion": "v1", "kind": "List", "items": [{SECRET}]}}]}}"#
                ),
                vec!["Secret a"],
            ),
        ] {
            let stream = stream(&text).unwrap();
            assert!(stream.faults.is_empty() && stream.foreign.is_empty(), "{form}: {stream:?}");
            assert_eq!(names(&stream), found, "{form}");
        }
    }

    #[test]
    fn kinds_that_are_not_ours_are_told_from_those_that_are_misspelled() {
        for (version, kind, found) in [
            ("v1", "Secret", "ours"),
            ("cert-manager.io/v1", "Certificate", "ours"),
            ("certwright.dev/v1", "Policy", "ours"),
            ("v1", "Namespace", "foreign"),
            ("networking.k8s.io/v1", "Ingress", "foreign"),
            ("cert-manager.io/v1", "CertificateRequest", "foreign"),
            ("acme.cert-manager.io/v1", "Order", "foreign"),
            ("networking.internal.knative.dev/v1alpha1", "Certificate", "foreign"),
            ("awspca.cert-manager.io/v1beta1", "AWSPCAIssuer", "foreign"),
            (
                "cert-manager.io/v1",
                "Certificat",
                "/kind: there is no such kind; did you mean `Certificate`?",
            ),
            (
                "cert-manager.io/v1",
                "issuer",
                "/kind: there is no such kind; did you mean `Issuer`?",
            ),
            ("v1", "Secert", "/kind: there is no such kind; did you mean `Secret`?"),
            (
                "cert-manager.io/v1alpha2",
                "Issuer",
                "/apiVersion: is `cert-manager.io/v1` for the kind Issuer",
            ),
            (
                "cert-manager.io/v1",
                "Policy",
                "/apiVersion: is `certwright.dev/v1` for the kind Policy",
            ),
            ("kyverno.io/v1", "Policy", "foreign"),
            ("", "Issuer", "/apiVersion: is `cert-manager.io/v1` for the kind Issuer"),
            ("", "Deployment", "/apiVersion: it has to be given, such as `cert-manager.io/v1`"),
            ("v1", "", "/kind: it has to be given"),
        ] {
            let read = match read_kind(version, kind) {
                Ok(Some(_)) => "ours".to_owned(),
                Ok(None) => "foreign".to_owned(),
                Err((pointer, _, detail)) => format!("{pointer}: {detail}"),
            };
            assert_eq!(read, found, "{version} {kind}");
        }
    }
}
