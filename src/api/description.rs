//! What the description of the API says in the same words of every operation: the form of headers, of names in
//! addresses, and of bodies that may be left out.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::{OpenApi, RefOr};

/// Printable ASCII; HTTP takes blanks from both ends of a header's value.
const PRINTABLE: &str = "^[!-~]([ -~]*[!-~])?$";

/// A name, or namespace, as manifests have it.
const NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// Narrows what is described to what is taken.
pub(crate) fn narrow(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter
                    && let Some(form) = form(path, parameter)
                {
                    parameter.schema = Some(form.into());
                }
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                for content in body.content.values_mut() {
                    if let RefOr::T(content) = content
                        && let Some(schema) = &mut content.schema
                    {
                        *schema = without_null(schema.clone());
                    }
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// The form of a parameter, where it is the same everywhere.
fn form(path: &str, parameter: &Parameter) -> Option<Object> {
    let text = |least, most, pattern: Option<&str>| {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(pattern);
        text.min_length(Some(least)).max_length(Some(most)).build()
    };
    let is_name = ["name", "namespace"].contains(&&*parameter.name);
    match (&parameter.parameter_in, &*parameter.name) {
        (ParameterIn::Header, "Idempotency-Key") => Some(text(1, 255, Some(PRINTABLE))),
        (ParameterIn::Header, "X-Keystore-Password") => Some(text(6, 256, Some(PRINTABLE))),
        // Whether a header is there is all that there is to be said; `null` would be a text.
        (ParameterIn::Header, _) => Some(Object::with_type(Type::String)),
        // People choose the names of keys.
        (ParameterIn::Path, _) if is_name && path.starts_with("/api-keys/") => {
            Some(text(1, 100, None))
        }
        (ParameterIn::Path, _) if is_name => Some(text(1, 253, Some(NAME))),
        _ => None,
    }
}

/// A body that may be left out is not `null` instead.
fn without_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::OneOf(one_of)) = &schema else { return schema };
    let is_null = |item: &&RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == Type::Null.into());
    let mut others = one_of.items.iter().filter(|item| !is_null(item));
    match (others.next(), others.next()) {
        (Some(only), None) => only.clone(),
        _ => schema,
    }
}
