//! `-o`: how `get` prints what it found.

use serde_json::{Value, json};

use super::document::document;
use super::exit::Complaint;
use super::jsonpath::{Path, Template};
use super::output::{self, table};
use crate::manifest::kind::Kind;

/// The value of `-o`.
#[derive(Debug, Clone)]
pub(super) enum Format {
    /// More columns.
    Wide,
    /// Manifests as JSON.
    Json,
    /// Manifests as YAML.
    Yaml,
    /// KIND/NAME, a line for each.
    Name,
    /// A template, filled with each document, or with the list.
    JsonPath(Template),
    /// Headings and the paths below them.
    Columns(Vec<(String, Path)>),
}

impl Format {
    /// Reads `wide`, `json`, `yaml`, `name`, `jsonpath=…` or `custom-columns=…`.
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once('=') {
            Some(("jsonpath", template)) => Template::parse(template).map(Self::JsonPath),
            Some(("custom-columns", columns)) => custom(columns).map(Self::Columns),
            _ => match text {
                "wide" => Ok(Self::Wide),
                "json" => Ok(Self::Json),
                "yaml" => Ok(Self::Yaml),
                "name" => Ok(Self::Name),
                _ => Err(Complaint::Usage(format!(
                    "there is no output `{text}`; there are wide, json, yaml, name, jsonpath=TEMPLATE and custom-columns=HEADING:PATH,…"
                ))),
            },
        }
    }

    /// The text for documents, where it is not a table of the kind's own columns.
    pub(super) fn of_documents(
        &self,
        found: &[(Kind, Value)],
        is_single: bool,
        headings: bool,
    ) -> Option<String> {
        let documents = || found.iter().map(|(kind, one)| document(*kind, one));
        let whole = || {
            if let (true, [(kind, one)]) = (is_single, found) {
                return document(*kind, one);
            }
            let items: Vec<Value> = documents().collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        };
        match self {
            Self::Json => Some(output::json(&whole())),
            Self::Yaml => Some(output::yaml(&whole())),
            Self::JsonPath(template) => Some(template.fill(&whole())),
            Self::Columns(columns) => {
                let header: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
                let row = |one: Value| columns.iter().map(|(_, path)| cell(path, &one)).collect();
                let rows: Vec<Vec<String>> = documents().map(row).collect();
                Some(table(if headings { &header } else { &[] }, &rows))
            }
            Self::Wide | Self::Name => None,
        }
    }
}

fn cell(path: &Path, document: &Value) -> String {
    let text = path.text(document, ",");
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `NAME:.metadata.name,READY:.status.conditions[?(@.type=="Ready")].status`.
fn custom(text: &str) -> Result<Vec<(String, Path)>, Complaint> {
    let (mut columns, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 || at == text.len() => {
                columns.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    let column = |column: &str| match column.split_once(':') {
        Some((heading, path)) if !heading.trim().is_empty() => {
            Ok((heading.trim().to_owned(), Path::parse(path)?))
        }
        _ => Err(Complaint::Usage(format!(
            "`{column}` is no column; write it as `NAME:.metadata.name`, several joined by commas"
        ))),
    };
    columns.into_iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_apart_by_commas_outside_of_brackets() {
        let found = [(
            Kind::Certificate,
            json!({"name": "www", "namespace": "shop", "dnsNames": ["a", "b"], "issuerRef": {"name": "le"},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )];
        let format = Format::parse(
            "custom-columns=NAME:.metadata.name,READY:.status.conditions[?(@.type==\"Ready\")].status,NAMES:.spec.dnsNames[*],X:.none",
        );
        let text = format.unwrap().of_documents(&found, false, true).unwrap();
        assert_eq!(text, "NAME   READY   NAMES   X\nwww    True    a,b     <none>\n");
        for wrong in ["custom-columns=", "custom-columns=NAME", "custom-columns=:.a", "table"] {
            assert!(Format::parse(wrong).is_err(), "{wrong}");
        }
    }
}
