//! JSON merge patches (RFC 7396).

use axum::extract::{FromRequest, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::extract::{MOST_BYTES, read};
use super::problem::{ApiError, Faults, FieldCode};
use crate::validation::{from_slice, from_value};

/// A merge patch of an object.
pub(crate) struct MergePatch(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let types = ["application/merge-patch+json", "application/json"];
        let content = read(request, state, &types, MOST_BYTES).await?;
        match from_slice(&content)? {
            Value::Object(patch) => Ok(Self(patch)),
            _ => Err(ApiError::field("", FieldCode::WrongType, "a merge patch is an object here")),
        }
    }
}

impl MergePatch {
    /// The present specification with the patch applied. The `fixed` fields keep their values.
    pub(crate) fn apply<T: Serialize + DeserializeOwned>(
        &self,
        present: &T,
        fixed: &[(&str, &str)],
    ) -> Result<T, ApiError> {
        let mut faults = Faults::default();
        for (field, present) in fixed {
            if self.0.get(*field).is_some_and(|given| given != present) {
                faults.add(format!("/{field}"), FieldCode::Immutable, format!("stays `{present}`"));
            }
        }
        faults.refuse()?;
        let mut document =
            serde_json::to_value(present).map_err(|error| ApiError::Inside(Box::new(error)))?;
        if let Value::Object(target) = &mut document {
            merge(target, &self.0);
        }
        Ok(from_value(&document)?)
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => _ = target.remove(key),
            Value::Object(inner) => {
                let place = target.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(target) = place {
                    merge(target, inner);
                }
            }
            other => _ = target.insert(key.clone(), other.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_replaces_removes_and_descends() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": ["c", "d"]}), json!({"a": ["c", "d"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": 1}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
        ] {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                panic!("objects only");
            };
            merge(&mut target, &patch);
            assert_eq!(Value::Object(target), merged);
        }
    }
}
