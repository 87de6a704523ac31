//! The committed description is the one that the handlers give.

use std::collections::BTreeSet;

use certwright::api;
use serde_json::Value;

use crate::house::architecture::{code, sources_of};

#[test]
fn the_committed_description_is_the_present_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let present = format!("{}\n", api::document().to_pretty_json().unwrap());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(file, &present).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();

    assert!(
        committed == present,
        "openapi/openapi.json is not what the handlers say: run `make openapi`"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = Vec::new();
    gather(&document, &mut references);

    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// Of two types with one name the document has one, and says of the other's fields what is not so.
#[test]
fn every_described_type_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for (file, text) in sources_of("") {
        for name in described(&text) {
            assert!(
                names.insert(name.to_owned()),
                "{}: `{name}` is taken; add `#[schema(as = …)]`",
                file.display()
            );
        }
    }
    assert!(names.len() > 50);
    assert!(names.contains("SolverSelector") && names.contains("Selector"));
}

/// The names under which a file's types are in the document.
fn described(text: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    let (mut names, mut is_described, mut other) = (Vec::new(), false, None);
    for line in code(text) {
        if line.contains("ToSchema") && !line.contains("use ") {
            (is_described, other) = (true, None);
        }
        if let Some((_, given)) = line.split_once("schema(as = ") {
            other = Some(&given[..word(given)]);
        }
        let declared = line.split_once("struct ").or_else(|| line.split_once("enum "));
        if let Some((_, name)) = declared
            && std::mem::take(&mut is_described)
        {
            names.push(other.take().unwrap_or(&name[..word(name)]));
        }
    }
    names
}

#[test]
fn every_operation_has_a_name_of_its_own_a_summary_and_a_tag() {
    let document = document();
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap_or_default();
            assert!(names.insert(name.to_owned()), "{method} {path}: `{name}` is taken");
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            let mut parameters = BTreeSet::new();
            for parameter in operation["parameters"].as_array().unwrap_or(&Vec::new()) {
                let key = (parameter["in"].to_string(), parameter["name"].to_string());
                assert!(parameters.insert(key), "{method} {path}: {parameter} twice");
            }
        }
    }
}

#[test]
fn every_list_says_how_to_page_and_every_download_which_revision() {
    let document = document();
    let names = |path: &str| -> BTreeSet<String> {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    for (path, item) in document["paths"].as_object().unwrap() {
        let answer = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if answer.to_string().contains("Listing_") {
            assert!(names(path).is_superset(&["limit".into(), "cursor".into()].into()), "{path}");
        }
        if path.contains(".pem") {
            assert!(names(path).contains("revision"), "{path}");
        }
    }
    assert!(names("/certificates").contains("expiresBefore"));
}

/// A generator gives the caller of an operation without a schema nothing to pass, or ends.
#[test]
fn every_body_and_every_answer_has_a_schema_and_every_file_is_one() {
    let document = document();
    let mut files = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut contents = vec![&operation["requestBody"]["content"]];
            let answers = operation["responses"].as_object().unwrap();
            contents.extend(answers.values().map(|answer| &answer["content"]));
            for content in contents.into_iter().filter_map(Value::as_object) {
                for (kind, content) in content {
                    let schema = &content["schema"];
                    assert!(schema.is_object(), "{method} {path}: {kind} has no schema");
                    if path.contains("/certificates/")
                        && path.contains('.')
                        && !kind.contains("json")
                    {
                        assert_eq!(schema["format"], "binary", "{method} {path}");
                        files += 1;
                    }
                }
            }
        }
    }
    assert_eq!(files, 16, "eight, by identifier and by name");
}

#[test]
fn the_items_of_a_list_are_the_type_that_is_shown_alone() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut lists = 0;
    for (name, schema) in schemas {
        let Some(item) = name.strip_prefix("Listing_") else { continue };
        let reference = format!("#/components/schemas/{item}");
        assert_eq!(schema["properties"]["items"]["items"]["$ref"], reference, "{name}");
        lists += 1;
    }
    assert!(lists > 10);
}

#[test]
fn no_example_looks_like_a_secret() {
    let text = document().to_string();

    assert!(!text.contains("-----BEGIN"));
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    let token = words.find(|word| word.len() >= 40);
    assert_eq!(token, None, "this has the shape of a token");
}

fn document() -> Value {
    serde_json::to_value(api::document()).unwrap()
}

fn gather<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                references.push(reference);
            }
            fields.values().for_each(|value| gather(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| gather(value, references)),
        _ => {}
    }
}
