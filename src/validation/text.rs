//! Strange characters in the texts of a document. Nothing else is done with a document before this check.

use serde_json::Value;

use super::{Faults, escaped};
use crate::domain::text::{Lines, refuse};

/// Adds a fault for every text of a JSON value, and every key, that has a strange character.
pub(crate) fn check_text(value: &Value, faults: &mut Faults) {
    walk(value, &mut String::new(), faults);
}

fn walk(value: &Value, pointer: &mut String, faults: &mut Faults) {
    match value {
        Value::String(text) => {
            if let Some(lines) = lines_at(pointer)
                && let Err(strange) = refuse(text, lines)
            {
                faults.invalid(&*pointer, strange.to_string());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(&index.to_string(), item, pointer, faults);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                match refuse(key, Lines::One) {
                    Ok(()) => below(&escaped(key), value, pointer, faults),
                    // The key cannot be shown in a pointer.
                    Err(strange) => faults.invalid(&*pointer, format!("a key {strange}")),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn below(token: &str, value: &Value, pointer: &mut String, faults: &mut Faults) {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    walk(value, pointer, faults);
    pointer.truncate(length);
}

/// How many lines a text may have at a pointer into a request or a manifest; `None` where it need not be text.
fn lines_at(pointer: &str) -> Option<Lines> {
    if pointer.starts_with("/data/") || pointer.starts_with("/stringData/") {
        return None;
    }
    // PEM, and base64 with line breaks, have several lines.
    let many = ["/csr", "/acme/caBundle"];
    let pointer = pointer.strip_prefix("/spec").unwrap_or(pointer);
    // Of one certificate among several.
    let of_item =
        pointer.strip_prefix("/items/").and_then(|item| item.find('/').map(|at| &item[at..]));
    let pointer = of_item.unwrap_or(pointer);
    Some(if many.contains(&pointer) { Lines::Many } else { Lines::One })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_strange_text_and_key_is_pointed_at() {
        let value = json!({
            "a": "fine", "b/c": ["x", "y\0z", {"d": "\u{202E}", "e\u{1b}": "hidden\0"}], "csr": "one\ntwo",
            "stringData": {"token": "\0", "bad\nkey": ""}, "spec": {"csr": "a\tb", "name": "a\tb"}
        });
        let mut faults = Faults::default();
        check_text(&value, &mut faults);

        let found: Vec<&str> = faults.iter().map(|fault| &*fault.pointer).collect();
        assert_eq!(found, ["/b~1c/1", "/b~1c/2/d", "/b~1c/2", "/spec/name", "/stringData"]);
        assert!(faults.iter().all(|fault| !fault.detail.contains('\u{202E}')));
    }
}
