//! Splitting a stream of manifests into objects that know their places in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::manifest::kind::Kind;
use crate::validation::{Faults, FieldCode, FieldError, Refusal, check_text, escaped, from_value};
use crate::yaml;

/// Where an object stands in what was sent.
#[derive(Debug, Clone)]
struct Place {
    document: u32,
    lines: Arc<yaml::Lines>,
    prefix: String,
}

impl Place {
    /// The fault with document and line of the stream.
    fn of(&self, fault: FieldError) -> FieldError {
        let line = self.lines.line(&format!("{}{}", self.prefix, fault.pointer));
        FieldError { document: Some(self.document), line: Some(line), ..fault }
    }

    fn add(&self, faults: &mut Faults, pointer: &str, code: FieldCode, detail: &str) {
        faults.take(Faults::one(pointer, code, detail), |fault| self.of(fault));
    }
}

/// One manifest.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// What stands beside `apiVersion`, `kind`, `metadata` and `status`.
    pub(crate) body: Map<String, Value>,
    /// Fields that have no meaning here, and what happens instead.
    pub(crate) warnings: Vec<String>,
    place: Place,
    faults: Faults,
}

/// Objects of a stream at most: each of them is looked up in the database.
const MOST_OBJECTS: usize = 5_000;
/// Warnings about one object at most.
const MOST_WARNINGS: usize = 20;
/// Times that a part is parsed at most, to find all unknown fields of all its mappings.
const MOST_READINGS: usize = 20;

/// Fields of `metadata` that Kubernetes writes, and that are ignored.
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

/// Splits a stream. Everything in it that is no manifest is reported at once.
pub(crate) fn objects(text: &str) -> Result<Vec<Object>, Refusal> {
    let documents = yaml::read(text).map_err(|error| {
        let detail = format!("this is not YAML: {}", error.problem);
        let line = Some(error.line).filter(|line| *line > 0);
        let mut faults = Faults::default();
        let found = Faults::one("", FieldCode::Invalid, detail);
        faults.take(found, |fault| FieldError { line, ..fault });
        faults
    })?;
    let mut faults = Faults::default();
    let mut objects = Vec::new();
    for (number, document) in (1..).zip(documents) {
        let lines = Arc::new(document.lines);
        let place = Place { document: number, lines, prefix: String::new() };
        unfold(document.value, place, &mut objects, &mut faults);
    }
    if objects.is_empty() && faults.is_empty() {
        let detail = "There is no manifest in the body: it is empty.";
        return Err(Refusal::Malformed(detail.to_owned()));
    }
    if objects.len() > MOST_OBJECTS {
        let detail = format!(
            "There are {} manifests in the body. Send at most {MOST_OBJECTS} at once.",
            objects.len()
        );
        return Err(Refusal::Malformed(detail));
    }
    faults.in_order().refuse()?;
    Ok(objects)
}

/// A `List`, as `kubectl get -o yaml` writes it, stands for its items.
fn unfold(value: Value, place: Place, objects: &mut Vec<Object>, faults: &mut Faults) {
    let Value::Object(mut map) = value else {
        place.add(faults, "", FieldCode::WrongType, "a manifest is a mapping");
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
        Err((pointer, code, detail)) => place.add(faults, pointer, code, &detail),
    }
}

fn read_kind(version: &str, kind: &str) -> Result<Kind, (&'static str, FieldCode, String)> {
    if kind.is_empty() {
        return Err(("/kind", FieldCode::Required, "it has to be given".to_owned()));
    }
    let known = Kind::IN_MANIFESTS.into_iter().find(|known| known.title() == kind);
    let Some(known) = known else {
        let detail = format!(
            "there is nothing of the kind `{kind}` here; there are Secret, Issuer, ClusterIssuer, Policy and Certificate"
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
        faults: &mut Faults,
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
            faults: Faults::default(),
        };
        match metadata {
            Some(Value::Object(metadata)) => object.read_metadata(metadata),
            _ => object.fault("/metadata", FieldCode::Required, "a mapping with the `name`"),
        }
        object.check_text();
        // An object without a name, or with strange characters, is not read any further.
        if object.name.is_empty() || !object.is_sound() {
            faults.take(object.take_faults(), |fault| fault);
            return None;
        }
        Some(object)
    }

    /// Checks the texts of the manifest, before anything else is done with it.
    fn check_text(&mut self) {
        let mut body = Value::Object(std::mem::take(&mut self.body));
        let metadata =
            json!({"name": self.name, "namespace": self.namespace, "labels": self.labels});
        let mut found = Faults::default();
        check_text(&body, &mut found);
        check_text(&json!({"metadata": metadata}), &mut found);
        self.note(found);
        if let Value::Object(body) = &mut body {
            self.body = std::mem::take(body);
        }
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

    /// Adds a fault at a pointer into this manifest.
    pub(crate) fn fault(&mut self, pointer: &str, code: FieldCode, detail: impl AsRef<str>) {
        self.place.add(&mut self.faults, pointer, code, detail.as_ref());
    }

    /// Adds faults whose pointers lead into this manifest.
    fn note(&mut self, found: Faults) {
        self.faults.take(found, |fault| self.place.of(fault));
    }

    /// Adds a warning about a field without a meaning here, or that says less than it should.
    pub(crate) fn warn(&mut self, field: &str, instead: &str) {
        let warning = format!("{field}: {instead}");
        if self.warnings.len() < MOST_WARNINGS && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The faults so far.
    pub(crate) fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    /// True if there are no faults so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Removes and returns the mapping under `field`; adds a fault if there is none.
    pub(crate) fn take_map(&mut self, field: &str) -> Option<Map<String, Value>> {
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

    /// Adds a fault for every field that is left in the body.
    pub(crate) fn nothing_else(&mut self) {
        let left: Vec<String> = self.body.keys().map(|key| format!("/{}", escaped(key))).collect();
        for pointer in left {
            self.fault(&pointer, FieldCode::UnknownField, "there is no such field");
        }
    }

    /// Parses the part of the manifest at `pointer`. All unknown fields
    /// are reported, not the first one alone: each attempt finds those of one mapping.
    pub(crate) fn parse<T: DeserializeOwned>(
        &mut self,
        mut value: Value,
        pointer: &str,
    ) -> Option<T> {
        for reading in 0..MOST_READINGS {
            let found = match from_value(&value) {
                Ok(read) => return Some(read).filter(|_| reading == 0),
                Err(Refusal::Invalid(found)) => found,
                Err(Refusal::Malformed(_)) => return None,
            };
            let unknown = found.iter().find(|one| one.code == FieldCode::UnknownField).cloned();
            let strangers = unknown.as_ref().map(|unknown| remove_strangers(&mut value, unknown));
            let (Some(unknown), Some(strangers)) =
                (unknown, strangers.filter(|strangers| !strangers.is_empty()))
            else {
                self.located(found, |inner| format!("{pointer}{inner}"));
                return None;
            };
            for stranger in strangers {
                self.fault(&format!("{pointer}{stranger}"), unknown.code, &unknown.detail);
            }
        }
        None
    }

    /// A fault of the specification as a fault of this manifest.
    pub(crate) fn locate(&self, error: FieldError, place: fn(&str) -> String) -> FieldError {
        let pointer = place(&error.pointer);
        self.place.of(FieldError { pointer, ..error })
    }

    /// Adds faults of the specification; `place` turns their pointers into ones into the manifest.
    pub(crate) fn located(&mut self, found: Faults, place: impl Fn(&str) -> String) {
        let placed = |fault: FieldError| FieldError { pointer: place(&fault.pointer), ..fault };
        self.faults.take(found, |fault| self.place.of(placed(fault)));
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

/// Removes the field that a fault names and all unknown ones beside it; returns
/// them. The known fields are parsed from the fault's text: serde has them nowhere else.
fn remove_strangers(value: &mut Value, unknown: &FieldError) -> Vec<String> {
    let Some((parent, named)) = unknown.pointer.rsplit_once('/') else { return Vec::new() };
    let known: BTreeSet<&str> = unknown.detail.split('`').skip(1).step_by(2).collect();
    let Some(Value::Object(map)) = value.pointer_mut(parent) else { return Vec::new() };
    let mut strangers = Vec::new();
    map.retain(|key, _| {
        let is_stranger = escaped(key) == named || !known.contains(&**key);
        if is_stranger {
            strangers.push(format!("{parent}/{}", escaped(key)));
        }
        !is_stranger
    });
    strangers
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde::{Deserialize, Deserializer};

    use super::*;

    thread_local! {
        static READINGS: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug)]
    struct Counted;

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            #[expect(dead_code, reason = "only its shape is looked at")]
            struct Shape {
                known: Option<u8>,
                inner: Option<Vec<Inner>>,
            }
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Inner {}
            READINGS.set(READINGS.get() + 1);
            Shape::deserialize(deserializer).map(|_| Self)
        }
    }

    fn readings_of(fields: &Value) -> (usize, Faults) {
        let text = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}
        });
        let mut object = objects(&text.to_string()).unwrap().remove(0);
        READINGS.set(0);
        assert!(object.parse::<Counted>(fields.clone(), "/spec").is_none());
        (READINGS.get(), object.take_faults())
    }

    #[test]
    fn the_number_of_readings_does_not_grow_with_the_input() {
        let unknown: Map<String, Value> =
            (0..40_000).map(|number| (format!("x{number}"), number.into())).collect();
        let (readings, faults) = readings_of(&Value::Object(unknown));
        assert_eq!(readings, 2);
        assert_eq!(faults.iter().count(), 100);
        assert_eq!(faults.iter().next().unwrap().pointer, "/spec/x0");

        let inner: Vec<_> = (0..10_000).map(|_| json!({"x": 1})).collect();
        let (readings, faults) = readings_of(&json!({"inner": inner}));
        assert_eq!(readings, MOST_READINGS);
        assert_eq!(faults.iter().count(), MOST_READINGS);
    }

    #[test]
    fn every_unknown_field_of_a_part_is_named_beside_what_belongs_there() {
        let (_, faults) = readings_of(
            &json!({"known": 1, "a/b": 2, "`, expected `c`": 3, "inner": [{}, {"d": 4}]}),
        );
        let mut found: Vec<&str> = faults.iter().map(|fault| &*fault.pointer).collect();
        found.sort_unstable();

        assert_eq!(found, ["/spec/`, expected `c`", "/spec/a~1b", "/spec/inner/1/d"]);
    }
}
