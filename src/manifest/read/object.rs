//! One manifest, that knows its place in the stream, with what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::spelling::{fields, no_such_field};
use crate::manifest::kind::Kind;
use crate::validation::{Faults, FieldCode, FieldError, check_text, escaped, from_manifest};
use crate::yaml;

/// Where an object stands in what was sent.
#[derive(Debug, Clone)]
pub(super) struct Place {
    document: u32,
    lines: Arc<yaml::Lines>,
    prefix: String,
}

impl Place {
    pub(super) fn new(document: u32, lines: Arc<yaml::Lines>) -> Self {
        Self { document, lines, prefix: String::new() }
    }

    /// The place of something within.
    pub(super) fn below(&self, pointer: &str) -> Self {
        Self { prefix: format!("{}{pointer}", self.prefix), ..self.clone() }
    }

    /// The fault with document and line of the stream.
    pub(super) fn of(&self, fault: FieldError) -> FieldError {
        let line = self.lines.line(&format!("{}{}", self.prefix, fault.pointer));
        FieldError { document: Some(self.document), line: Some(line), ..fault }
    }

    pub(super) fn add(&self, faults: &mut Faults, pointer: &str, code: FieldCode, detail: &str) {
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

/// Warnings about one object at most.
const MOST_WARNINGS: usize = 20;
/// Times that a part is parsed at most, to find all unknown fields of all its mappings.
const MOST_READINGS: usize = 20;

/// Fields of `metadata` that Kubernetes writes, and that are ignored.
const PASSED_OVER: [&str; 13] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

impl Object {
    pub(super) fn read(
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
        let is_text = object.check_text();
        // An object without a name, or with strange characters, is not read any further.
        if object.name.is_empty() || !is_text {
            faults.take(object.take_faults(), |fault| fault);
            return None;
        }
        Some(object)
    }

    /// Checks the texts of the manifest, before anything else is done with it.
    fn check_text(&mut self) -> bool {
        let mut body = Value::Object(std::mem::take(&mut self.body));
        let metadata =
            json!({"name": self.name, "namespace": self.namespace, "labels": self.labels});
        let mut found = Faults::default();
        check_text(&body, &mut found);
        check_text(&json!({"metadata": metadata}), &mut found);
        let is_sound = found.is_empty();
        self.note(found);
        if let Value::Object(body) = &mut body {
            self.body = std::mem::take(body);
        }
        is_sound
    }

    fn read_metadata(&mut self, metadata: Map<String, Value>) {
        let is_named_by_kubernetes = metadata.contains_key("generateName");
        for (key, value) in metadata {
            match (&*key, value) {
                ("name", Value::String(name)) => self.name = name,
                ("namespace", Value::String(namespace)) => {
                    self.namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
                }
                ("labels", labels) => {
                    let read = self.parse(labels, "/metadata/labels", &Value::Null);
                    self.labels = read.unwrap_or_default();
                }
                ("name" | "namespace", _) => {
                    let detail = "expected a string; numbers and booleans need quotes to be one";
                    self.fault(&format!("/metadata/{key}"), FieldCode::WrongType, detail);
                }
                (known, _) if PASSED_OVER.contains(&known) => {}
                (unknown, _) => {
                    let pointer = format!("/metadata/{}", escaped(unknown));
                    let known = ["annotations", "labels", "name", "namespace"];
                    let detail = no_such_field(unknown, &known);
                    self.fault(&pointer, FieldCode::UnknownField, detail);
                }
            }
        }
        if self.name.is_empty() && self.faults.is_empty() {
            let detail = if is_named_by_kubernetes {
                "it has to be given: with `generateName` each apply would make another one"
            } else {
                "it has to be given"
            };
            self.fault("/metadata/name", FieldCode::Required, detail);
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

    /// Adds a fault for every field that is left in the body, beside these.
    pub(crate) fn nothing_else(&mut self, known: &[&str]) {
        let left: Vec<String> = self.body.keys().cloned().collect();
        for name in left {
            let pointer = format!("/{}", escaped(&name));
            self.fault(&pointer, FieldCode::UnknownField, no_such_field(&name, known));
        }
    }

    /// Parses the part of the manifest at `pointer`. Each fault is reported, and the parsing goes on without what does
    /// not fit; for required fields that are missing, `stand_in` has something to go on with.
    pub(crate) fn parse<T: DeserializeOwned>(
        &mut self,
        mut value: Value,
        pointer: &str,
        stand_in: &Value,
    ) -> Option<T> {
        let mut told = BTreeSet::new();
        for _ in 0..MOST_READINGS {
            let found = match from_manifest(&value) {
                Ok(read) => return Some(read),
                Err(found) => found,
            };
            if found.code == FieldCode::UnknownField {
                self.remove_strangers(&mut value, pointer, &found)?;
                continue;
            }
            let place = found.pointer.clone();
            let within = format!("{place}/");
            // What was taken away for a fault of its own is not missing as well.
            if !told.iter().any(|told: &String| *told == place || told.starts_with(&within)) {
                self.fault(&format!("{pointer}{place}"), found.code, &found.detail);
            }
            told.insert(place.clone());
            let (parent, field) = place.rsplit_once('/')?;
            if found.code != FieldCode::Required {
                take_away(&mut value, &place)?;
            } else if parent.is_empty() {
                value.as_object_mut()?.insert(field.to_owned(), stand_in.get(field)?.clone());
            } else {
                take_away(&mut value, parent)?;
            }
        }
        None
    }

    /// Removes the field that a fault names and all unknown ones beside it, with a fault for each. The known
    /// ones are parsed from the fault's text: serde has them nowhere else.
    fn remove_strangers(
        &mut self,
        value: &mut Value,
        pointer: &str,
        unknown: &FieldError,
    ) -> Option<()> {
        let (parent, named) = unknown.pointer.rsplit_once('/')?;
        let of_api: Vec<&str> = unknown.detail.split('`').skip(1).step_by(2).collect();
        let known = fields(self.kind, &format!("{pointer}{parent}"), &of_api);
        let map = value.pointer_mut(parent)?.as_object_mut()?;
        let mut strangers = Vec::new();
        map.retain(|key, _| {
            let is_stranger = escaped(key) == named || !of_api.contains(&&**key);
            if is_stranger {
                strangers.push(key.clone());
            }
            !is_stranger
        });
        for stranger in &strangers {
            let place = format!("{pointer}{parent}/{}", escaped(stranger));
            self.fault(&place, unknown.code, no_such_field(stranger, &known));
        }
        (!strangers.is_empty()).then_some(())
    }

    /// A fault of the specification as a fault of this manifest.
    pub(crate) fn locate(&self, error: FieldError, place: fn(&str) -> String) -> FieldError {
        let pointer = place(&error.pointer);
        self.place.of(FieldError { pointer, ..error })
    }

    /// Adds faults of the specification; `place` turns their pointers into ones into the manifest.
    pub(crate) fn located(&mut self, mut found: Faults, place: impl Fn(&str) -> String) {
        found.retain(|fault| {
            let pointer = place(&fault.pointer);
            let within = format!("{pointer}/");
            // What was taken away, since it did not fit, is not missing as well.
            let is_told =
                |told: &FieldError| told.pointer == pointer || told.pointer.starts_with(&within);
            !self.faults.iter().any(is_told)
        });
        let placed = |fault: FieldError| FieldError { pointer: place(&fault.pointer), ..fault };
        self.faults.take(found, |fault| self.place.of(placed(fault)));
    }
}

/// Takes a value away; the places of others in a list stay the same.
fn take_away(value: &mut Value, pointer: &str) -> Option<()> {
    let (parent, token) = pointer.rsplit_once('/')?;
    match value.pointer_mut(parent)? {
        Value::Array(items) => *items.get_mut(token.parse::<usize>().ok()?)? = Value::Null,
        Value::Object(map) => _ = map.remove(&token.replace("~1", "/").replace("~0", "~"))?,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde::{Deserialize, Deserializer};

    use super::super::stream::stream;
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
        let mut object = stream(&text.to_string()).unwrap().objects.remove(0);
        READINGS.set(0);
        object.parse::<Counted>(fields.clone(), "/spec", &Value::Null);
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
