//! Schemas of merge patches, made of those of what is patched, so that the two cannot differ.

use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, Object, SchemaType, Type};
use utoipa::openapi::{OneOfBuilder, RefOr, Schema};

/// The schema of a merge patch (RFC 7396) of this type: everything may be left out, and what may be absent may be
/// `null`, which removes it.
pub(crate) fn of<T: ToSchema>() -> RefOr<Schema> {
    let mut known = Vec::new();
    T::schemas(&mut known);
    let mut schema = T::schema();
    loosen(&mut schema, &known);
    if let RefOr::T(Schema::Object(patch)) = &mut schema {
        patch.description =
            Some("A JSON merge patch: what is given replaces, `null` removes.".to_owned());
        patch.example = None;
    }
    schema
}

/// Loosens an object, in its own place: elsewhere its type stays as it is. Merge patches descend into objects only.
fn loosen(schema: &mut RefOr<Schema>, known: &[(String, RefOr<Schema>)]) {
    if let RefOr::Ref(reference) = schema {
        let name = reference.ref_location.rsplit('/').next();
        let target = known.iter().find(|(known, _)| Some(&**known) == name);
        match target {
            Some((_, RefOr::T(Schema::Object(object)))) if !object.properties.is_empty() => {
                *schema = RefOr::T(Schema::Object(object.clone()));
            }
            _ => return,
        }
    }
    match schema {
        RefOr::T(Schema::Object(object)) => loosen_members(object, known),
        RefOr::T(Schema::OneOf(choice)) => {
            choice.items.iter_mut().for_each(|item| loosen(item, known));
        }
        _ => {}
    }
}

fn loosen_members(object: &mut Object, known: &[(String, RefOr<Schema>)]) {
    let required = std::mem::take(&mut object.required);
    for (name, member) in &mut object.properties {
        loosen(member, known);
        if !required.contains(name) {
            make_nullable(member);
        }
    }
    if let Some(AdditionalProperties::RefOr(member)) = object.additional_properties.as_deref_mut() {
        make_nullable(member);
    }
}

fn make_nullable(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(Object { schema_type, .. })) => make_type_nullable(schema_type),
        RefOr::T(Schema::Array(array)) => make_type_nullable(&mut array.schema_type),
        RefOr::T(Schema::OneOf(choice)) if choice.items.contains(&null()) => {}
        other => {
            let or_null = OneOfBuilder::new().item(other.clone()).item(null());
            *other = RefOr::T(Schema::OneOf(or_null.build()));
        }
    }
}

fn make_type_nullable(schema_type: &mut SchemaType) {
    match schema_type {
        SchemaType::Type(one) => *schema_type = SchemaType::Array(vec![one.clone(), Type::Null]),
        SchemaType::Array(several) if !several.contains(&Type::Null) => several.push(Type::Null),
        SchemaType::Array(_) | SchemaType::AnyValue => {}
    }
}

fn null() -> RefOr<Schema> {
    RefOr::T(Schema::Object(Object::with_type(Type::Null)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it only describes")]
    struct Whole {
        needed: String,
        absent: Option<u32>,
        many: BTreeMap<String, String>,
        inner: Inner,
        perhaps: Option<Inner>,
        #[schema(required = false)]
        list: Vec<Inner>,
        #[schema(required = false)]
        word: Word,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it only describes")]
    struct Inner {
        needed: String,
        absent: Option<String>,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "it only describes")]
    enum Word {
        One,
        Two,
    }

    #[test]
    fn in_a_patch_everything_may_be_left_out_and_what_is_optional_may_be_null() {
        let patch = serde_json::to_value(of::<Whole>()).unwrap();
        assert_eq!(required_anywhere(&patch), None, "{patch}");

        let members = &patch["properties"];
        let nullable = json!(["string", "null"]);
        let inner = json!({"type": "object", "properties": {"needed": {"type": "string"}, "absent": {"type": nullable}}});
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        for (member, expected) in [
            ("/needed/type", json!("string")),
            ("/absent/type", json!(["integer", "null"])),
            ("/many/additionalProperties/type", nullable),
            ("/inner", inner.clone()),
            ("/perhaps/oneOf", json!([inner, {"type": "null"}])),
            ("/list/type", json!(["array", "null"])),
            ("/list/items", reference("Inner")),
            ("/word/oneOf", json!([reference("Word"), {"type": "null"}])),
        ] {
            assert_eq!(members.pointer(member), Some(&expected), "{member}");
        }
    }

    /// The first `required` of a schema, or of one inside it.
    fn required_anywhere(schema: &Value) -> Option<&Value> {
        match schema {
            Value::Object(members) => {
                members.get("required").or_else(|| members.values().find_map(required_anywhere))
            }
            Value::Array(items) => items.iter().find_map(required_anywhere),
            _ => None,
        }
    }
}
