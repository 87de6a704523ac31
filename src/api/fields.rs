//! The fields of an answer that a client asks for: `fields=name,status.notAfter`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::problem::ApiError;

const MOST_FIELDS: usize = 64;

/// Paths of fields.
#[derive(Debug)]
pub(crate) struct Fields(Vec<String>);

impl Fields {
    /// Reads the list; a field that the resource does not have is refused.
    pub(crate) fn parse<T: ToSchema>(text: &str) -> Result<Self, ApiError> {
        let paths: Vec<String> = text.split(',').map(|path| path.trim().to_owned()).collect();
        if paths.len() > MOST_FIELDS {
            let detail = format!("`fields` names at most {MOST_FIELDS} fields.");
            return Err(ApiError::malformed(detail));
        }
        let described = Described::of::<T>();
        match paths.iter().find(|path| !described.has(path)) {
            None => Ok(Self(paths)),
            Some(strange) => Err(ApiError::malformed(format!(
                "`fields` names `{strange}`, which there is not; `fields=id,createdAt` names two, `status.phase` one within another."
            ))),
        }
    }

    /// The resource with these fields alone.
    pub(crate) fn of(&self, resource: &impl Serialize) -> Value {
        let whole = serde_json::to_value(resource).unwrap_or_default();
        let mut part = Map::new();
        for path in &self.0 {
            copy(&whole, path, &mut part);
        }
        Value::Object(part)
    }
}

/// The description of a resource, in the API's own document.
struct Described {
    resource: Value,
    /// What it refers to, by name.
    others: BTreeMap<String, Value>,
}

impl Described {
    fn of<T: ToSchema>() -> Self {
        let plain = |schema: &RefOr<Schema>| serde_json::to_value(schema).unwrap_or_default();
        let mut others = Vec::new();
        T::schemas(&mut others);
        let others = others.into_iter().map(|(name, schema)| (name, plain(&schema))).collect();
        Self { resource: plain(&T::schema()), others }
    }

    fn has(&self, path: &str) -> bool {
        let step = |schema, name| self.within(schema, name);
        path.split('.').try_fold(&self.resource, step).is_some()
    }

    /// The description of a field of an object, or of what a reference or a choice leads to.
    fn within<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.within(self.others.get(reference.rsplit('/').next()?)?, name);
        }
        let own = schema.get("properties").and_then(|all| all.get(name));
        // Labels have what names they have.
        let any = || schema.get("additionalProperties").filter(|any| any.is_object());
        let chosen = || {
            let choices = ["oneOf", "anyOf", "allOf"].iter().filter_map(|of| schema.get(of));
            let mut choices = choices.filter_map(Value::as_array).flatten();
            choices.find_map(|choice| self.within(choice, name))
        };
        own.or_else(any).or_else(chosen)
    }
}

fn copy(from: &Value, path: &str, into: &mut Map<String, Value>) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(found) = from.get(first) else { return };
    if rest.is_empty() {
        into.insert(first.to_owned(), found.clone());
        return;
    }
    let place = into.entry(first).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(place) = place {
        copy(found, rest, place);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it only describes")]
    struct Resource {
        name: String,
        labels: BTreeMap<String, String>,
        status: Status,
        former: Option<Status>,
        steps: Vec<Status>,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it only describes")]
    struct Status {
        phase: String,
        revision: u32,
    }

    #[test]
    fn fields_are_picked_at_any_depth() {
        let resource = json!({"name": "www", "labels": {"team": "web"}, "status": {"phase": "Ready", "revision": 2}});
        for (asked, shown) in [
            ("name", json!({"name": "www"})),
            ("name, status.phase", json!({"name": "www", "status": {"phase": "Ready"}})),
            ("status.phase,status", json!({"status": {"phase": "Ready", "revision": 2}})),
            ("status,status.phase", json!({"status": {"phase": "Ready", "revision": 2}})),
            ("labels.none", json!({"labels": {}})),
        ] {
            let fields = Fields::parse::<Resource>(asked).unwrap();
            assert_eq!(fields.of(&resource), shown, "{asked}");
        }
    }

    #[test]
    fn what_no_resource_has_is_refused() {
        for asked in ["colour", "name,", "", "name.first", "status.colour", "steps.name", "status."]
        {
            assert!(Fields::parse::<Resource>(asked).is_err(), "{asked}");
        }
        for asked in ["steps", "labels", "labels.any", "former.phase"] {
            assert!(Fields::parse::<Resource>(asked).is_ok(), "{asked}");
        }
    }
}
