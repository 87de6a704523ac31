//! A stream of manifests, taken apart into objects that know where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::extract::{escaped, from_value};
use crate::api::problem::{ApiError, Faults, FieldCode, FieldError};
use crate::yaml;

/// What there are manifests of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Secret,
    ClusterIssuer,
    Issuer,
    Certificate,
}

impl Kind {
    pub(super) const ALL: [Self; 4] =
        [Self::Secret, Self::ClusterIssuer, Self::Issuer, Self::Certificate];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ClusterIssuer => "ClusterIssuer",
            Self::Issuer => "Issuer",
            Self::Certificate => "Certificate",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::Secret => "v1",
            Self::ClusterIssuer | Self::Issuer | Self::Certificate => "cert-manager.io/v1",
        }
    }
}

/// Where an object stands in what was sent.
#[derive(Debug, Clone)]
struct Place {
    document: u32,
    lines: Arc<BTreeMap<String, u32>>,
    prefix: String,
}

impl Place {
    /// The line of the nearest thing above that there is.
    fn line(&self, pointer: &str) -> Option<u32> {
        let mut whole = format!("{}{pointer}", self.prefix);
        loop {
            if let Some(line) = self.lines.get(&whole) {
                return Some(*line);
            }
            whole.truncate(whole.rfind('/')?);
        }
    }

    fn fault(&self, pointer: &str, code: FieldCode, detail: impl Into<String>) -> FieldError {
        FieldError {
            pointer: pointer.to_owned(),
            code,
            detail: detail.into(),
            document: Some(self.document),
            line: self.line(pointer),
        }
    }
}

/// One manifest.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// What stands beside `apiVersion`, `kind`, `metadata` and `status`.
    pub(super) body: Map<String, Value>,
    /// What was taken without meaning anything here, and what happens instead.
    pub(super) warnings: Vec<String>,
    place: Place,
    faults: Vec<FieldError>,
}

/// What Kubernetes writes into `metadata`, and people hand back.
const PASSED_OVER: [&str; 10] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// Takes a stream apart. What is no manifest at all is refused, all of it at once.
pub(super) fn objects(text: &str) -> Result<Vec<Object>, ApiError> {
    let documents = yaml::read(text).map_err(|error| {
        ApiError::Invalid(vec![FieldError {
            pointer: String::new(),
            code: FieldCode::Invalid,
            detail: format!("this is not YAML: {}", error.problem),
            document: None,
            line: Some(error.line).filter(|line| *line > 0),
        }])
    })?;
    let mut faults = Vec::new();
    let mut objects = Vec::new();
    for (number, document) in (1..).zip(documents) {
        let lines = Arc::new(document.lines);
        let place = Place { document: number, lines, prefix: String::new() };
        unfold(document.value, place, &mut objects, &mut faults);
    }
    if objects.is_empty() && faults.is_empty() {
        let detail = "There is no manifest in the body: it is empty.";
        return Err(ApiError::malformed(detail));
    }
    refuse(faults).map(|()| objects)
}

/// A `List`, as `kubectl get -o yaml` writes it, stands for its items.
fn unfold(value: Value, place: Place, objects: &mut Vec<Object>, faults: &mut Vec<FieldError>) {
    let Value::Object(mut map) = value else {
        faults.push(place.fault("", FieldCode::WrongType, "a manifest is a mapping"));
        return;
    };
    strip_nulls(&mut map);
    let word = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (word("apiVersion"), word("kind"));
    if (version.as_str(), kind.as_str()) == ("v1", "List") {
        let items = match map.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        for (index, item) in items.into_iter().enumerate() {
            let prefix = format!("{}/items/{index}", place.prefix);
            unfold(item, Place { prefix, ..place.clone() }, objects, faults);
        }
        return;
    }
    match read_kind(&version, &kind) {
        Ok(kind) => objects.extend(Object::read(kind, map, place, faults)),
        Err((pointer, code, detail)) => faults.push(place.fault(pointer, code, detail)),
    }
}

fn read_kind(version: &str, kind: &str) -> Result<Kind, (&'static str, FieldCode, String)> {
    if kind.is_empty() {
        return Err(("/kind", FieldCode::Required, "it has to be given".to_owned()));
    }
    let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let Some(known) = known else {
        let detail = format!(
            "there is nothing of the kind `{kind}` here; there are Secret, Issuer, ClusterIssuer and Certificate"
        );
        return Err(("/kind", FieldCode::Unsupported, detail));
    };
    if version != known.api_version() {
        let detail = format!("is `{}` for the kind {kind}", known.api_version());
        return Err(("/apiVersion", FieldCode::Invalid, detail));
    }
    Ok(known)
}

impl Object {
    fn read(
        kind: Kind,
        mut body: Map<String, Value>,
        place: Place,
        faults: &mut Vec<FieldError>,
    ) -> Option<Self> {
        let metadata = body.remove("metadata");
        for known in ["apiVersion", "kind", "status"] {
            body.remove(known);
        }
        let mut object = Self {
            kind,
            namespace: None,
            name: String::new(),
            labels: BTreeMap::new(),
            body,
            warnings: Vec::new(),
            place,
            faults: Vec::new(),
        };
        match metadata {
            Some(Value::Object(metadata)) => object.read_metadata(metadata),
            _ => object.fault("/metadata", FieldCode::Required, "a mapping with the `name`"),
        }
        // Without a name there is nothing to go on with.
        if object.name.is_empty() {
            faults.append(&mut object.faults);
            return None;
        }
        Some(object)
    }

    fn read_metadata(&mut self, metadata: Map<String, Value>) {
        for (key, value) in metadata {
            match (&*key, value) {
                ("name", Value::String(name)) => self.name = name,
                ("namespace", Value::String(namespace)) => self.namespace = Some(namespace),
                ("labels", labels) => {
                    self.labels = self.parse(labels, "/metadata/labels").unwrap_or_default();
                }
                ("name" | "namespace", _) => {
                    let pointer = format!("/metadata/{key}");
                    self.fault(&pointer, FieldCode::WrongType, "expected a string");
                }
                (known, _) if PASSED_OVER.contains(&known) => {}
                (unknown, _) => {
                    let pointer = format!("/metadata/{}", escaped(unknown));
                    self.fault(&pointer, FieldCode::UnknownField, "there is no such field");
                }
            }
        }
        if self.name.is_empty() && self.faults.is_empty() {
            self.fault("/metadata/name", FieldCode::Required, "it has to be given");
        }
    }

    /// Notes what is wrong at a pointer into this manifest.
    pub(super) fn fault(&mut self, pointer: &str, code: FieldCode, detail: impl Into<String>) {
        let fault = self.place.fault(pointer, code, detail);
        self.faults.push(fault);
    }

    /// Notes what has no meaning here, and what happens instead.
    pub(super) fn warn(&mut self, field: &str, instead: &str) {
        self.warnings.push(format!("{field}: {instead}"));
    }

    /// What is wrong so far.
    pub(super) fn take_faults(&mut self) -> Vec<FieldError> {
        std::mem::take(&mut self.faults)
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// The mapping under `field`, taken out; a fault where there is none.
    pub(super) fn take_map(&mut self, field: &str) -> Option<Map<String, Value>> {
        match self.body.remove(field) {
            Some(Value::Object(map)) => Some(map),
            Some(_) => {
                self.fault(&format!("/{field}"), FieldCode::WrongType, "expected a mapping");
                None
            }
            None => {
                self.fault(&format!("/{field}"), FieldCode::Required, "it has to be given");
                None
            }
        }
    }

    /// Refuses what nobody has taken out of the body.
    pub(super) fn nothing_else(&mut self) {
        let left: Vec<String> = self.body.keys().map(|key| format!("/{}", escaped(key))).collect();
        for pointer in left {
            self.fault(&pointer, FieldCode::UnknownField, "there is no such field");
        }
    }

    /// Reads a part of the manifest that stands at `pointer`. Of fields that do not belong there all
    /// are noted, not the first one alone.
    pub(super) fn parse<T: DeserializeOwned>(
        &mut self,
        mut value: Value,
        pointer: &str,
    ) -> Option<T> {
        let mut sound = true;
        loop {
            match from_value(value.clone()) {
                Ok(read) => return Some(read).filter(|_| sound),
                Err(ApiError::Invalid(errors)) => {
                    sound = false;
                    let unknown = errors.iter().find(|one| one.code == FieldCode::UnknownField);
                    let at = unknown.map(|one| one.pointer.clone());
                    self.located(errors, |inner| format!("{pointer}{inner}"));
                    if !at.is_some_and(|at| remove(&mut value, &at)) {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }

    /// A fault that was found in what was made of this manifest, as a fault of it.
    pub(super) fn locate(&self, error: FieldError, place: fn(&str) -> String) -> FieldError {
        self.place.fault(&place(&error.pointer), error.code, error.detail)
    }

    /// Notes faults that were found in what was made of this manifest; `place` leads back.
    pub(super) fn located(&mut self, errors: Vec<FieldError>, place: impl Fn(&str) -> String) {
        for error in errors {
            self.fault(&place(&error.pointer), error.code, error.detail);
        }
    }
}

/// Refuses the same object given twice.
pub(super) fn refuse_twins(objects: &mut [Object], default_namespace: &str) {
    let mut seen = BTreeSet::new();
    for object in objects {
        let namespace = match object.kind {
            Kind::ClusterIssuer => String::new(),
            _ => object.namespace.clone().unwrap_or_else(|| default_namespace.to_owned()),
        };
        if !seen.insert((object.kind, namespace, object.name.clone())) {
            let detail = format!("the {} `{}` is given twice", object.kind.as_str(), object.name);
            object.fault("/metadata/name", FieldCode::Conflicting, detail);
        }
    }
}

/// Refuses what was sent if anything is wrong with it, in the order in which it stands there.
pub(super) fn refuse(mut faults: Vec<FieldError>) -> Result<(), ApiError> {
    faults.sort_by_key(|fault| (fault.document, fault.line));
    let mut all = Faults::default();
    all.extend(faults);
    all.refuse()
}

/// As in Kubernetes, `null` is the same as nothing.
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

/// Removes what a pointer leads to; says whether there was anything.
fn remove(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, token)) = pointer.rsplit_once('/') else { return false };
    let key = token.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key).is_some(),
        _ => false,
    }
}
