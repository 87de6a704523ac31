//! The fields of an answer that a client asks for: `fields=name,status.notAfter`.

use serde::Serialize;
use serde_json::{Map, Value};

use super::problem::ApiError;

const MOST_FIELDS: usize = 64;

/// Paths of fields.
#[derive(Debug)]
pub(crate) struct Fields(Vec<String>);

impl Fields {
    /// Reads the list; a field that the resource does not have is refused.
    pub(crate) fn parse(text: &str, has_field: fn(&str) -> bool) -> Result<Self, ApiError> {
        let paths: Vec<String> = text.split(',').map(|path| path.trim().to_owned()).collect();
        if paths.len() > MOST_FIELDS {
            let detail = format!("`fields` names at most {MOST_FIELDS} fields.");
            return Err(ApiError::malformed(detail));
        }
        match paths.iter().find(|path| !has_field(path)) {
            None => Ok(Self(paths)),
            Some(strange) => Err(ApiError::malformed(format!(
                "`fields` names `{strange}`, which there is not; write it as `fields=name,status.notAfter`."
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
            assert_eq!(Fields::parse(asked, |_| true).unwrap().of(&resource), shown, "{asked}");
        }
        assert!(Fields::parse("name,colour", |path| path == "name").is_err());
    }
}
