//! kubectl's `JSONPath` templates: text with paths in braces, as in `{.items[*].metadata.name}` or
//! `{range .items[*]}{.metadata.name}{"\n"}{end}`.
//!
//! Paths are those of RFC 9535 (`serde_json_path`), written as kubectl has them: without `$`, and with `\.` for a dot
//! in a name. There are filters, slices, unions, wildcards and `..`; there are no regular expressions.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::exit::Complaint;

/// A template.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Part>),
}

/// A path into a document.
#[derive(Debug, Clone)]
pub(super) struct Path(JsonPath);

impl Path {
    /// Reads `.metadata.name`, `metadata.name` or `{.metadata.name}`.
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
        let query = query(inner);
        JsonPath::parse(&query).map(Self).map_err(|error| {
            let example =
                "`{.metadata.name}` or `{.status.conditions[?(@.type==\"Ready\")].status}`";
            Complaint::Usage(format!("`{text}` is no JSONPath ({error}); write it as {example}"))
        })
    }

    /// All values at it.
    pub(super) fn values<'v>(&self, document: &'v Value) -> Vec<&'v Value> {
        self.0.query(document).all()
    }

    /// What is at it, as text; several values stand one after the other, with `between`.
    pub(super) fn text(&self, document: &Value, between: &str) -> String {
        let shown: Vec<String> = self.values(document).into_iter().map(shown).collect();
        shown.join(between)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// kubectl's path in the words of RFC 9535. Names that need it are put into brackets.
fn query(path: &str) -> String {
    let path = path.trim();
    let path = path.strip_prefix(['$', '@']).unwrap_or(path);
    let mut out = "$".to_owned();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            let end = bracket_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let is_deep = rest.starts_with("..");
        rest = rest.trim_start_matches('.');
        let (name, after) = name(rest);
        out.push_str(if is_deep { ".." } else { "" });
        match name.as_str() {
            "" if is_deep => out.push('*'),
            "" => {}
            "*" => out.push_str("[*]"),
            name => out.extend(["[", &serde_json::json!(name).to_string(), "]"]),
        }
        rest = after;
    }
    out
}

/// The end of what begins with a bracket; quoted ones do not count.
fn bracket_end(text: &str) -> usize {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => depth = depth.saturating_sub(1),
            // Whatever stands in quotes does not count.
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// A name up to the next dot or bracket, and what follows it.
fn name(text: &str) -> (String, &str) {
    let (mut name, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, &text[at..]),
            c => {
                name.push(c);
                escaped = false;
            }
        }
    }
    (name, "")
}

impl Template {
    /// Reads a template; one without braces is a path by itself, as for kubectl.
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if !text.contains('{') {
            return Ok(Self(vec![Part::Path(Path::parse(text)?)]));
        }
        let mut rest = text;
        let parts = parts(&mut rest, false)?;
        Ok(Self(parts))
    }

    /// The text for a document.
    pub(super) fn fill(&self, document: &Value) -> String {
        fill(&self.0, document)
    }
}

fn parts(rest: &mut &str, in_range: bool) -> Result<Vec<Part>, Complaint> {
    let wrong = |problem: &str| Complaint::Usage(format!("the JSONPath template {problem}"));
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            parts.push(Part::Text((*rest).to_owned()));
            *rest = "";
            break;
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let end = brace_end(&rest[open..]).ok_or_else(|| wrong("has a `{` without its `}`"))?;
        let inner = rest[open + 1..open + end].trim();
        *rest = &rest[open + end + 1..];
        if inner == "end" {
            return if in_range {
                Ok(parts)
            } else {
                Err(wrong("has an `{end}` without its `{range …}`"))
            };
        }
        if let Some(path) = inner.strip_prefix("range ") {
            parts.push(Part::Range(Path::parse(path)?, self::parts(rest, true)?));
        } else if inner.len() >= 2 && inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(unquoted(inner)));
        } else {
            parts.push(Part::Path(Path::parse(inner)?));
        }
    }
    if in_range { Err(wrong("has a `{range …}` without its `{end}`")) } else { Ok(parts) }
}

/// The place of the brace that closes the first one.
fn brace_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '}') => return Some(at),
            // Whatever stands in quotes does not count.
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> String {
    let inner = &text[1..text.len() - 1];
    [("\\n", "\n"), ("\\t", "\t"), ("\\\"", "\"")]
        .iter()
        .fold(inner.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn fill(parts: &[Part], document: &Value) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => out.push_str(&path.text(document, " ")),
            Part::Range(path, inner) => {
                for value in path.values(document) {
                    out.push_str(&fill(inner, value));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_filled_as_kubectl_does() {
        let document = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"example.com/team": "web", "api-token": "x"}},
             "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Issuing", "status": "False"}], "revision": 2}},
            {"metadata": {"name": "b"}, "status": {"conditions": []}},
        ]});
        for (template, filled) in [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("kind", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{$.items[0].status.revision}", "2"),
            ("{.items[0].metadata.labels.example\\.com/team}", "web"),
            ("{.items[0].metadata.labels['example.com/team']}", "web"),
            ("{.items[0].metadata.labels.api-token}", "x"),
            ("{.items[0].status.conditions[?(@.type==\"Ready\")].status}", "True"),
            ("{.items[0].status.conditions[?(@.type=='Issuing')].status}", "False"),
            ("{..name}", "a b"),
            ("{.none}", ""),
            ("names: {.items[*].metadata.name}!", "names: a b!"),
            ("{range .items[*]}{.metadata.name}{\"\\n\"}{end}", "a\nb\n"),
            ("{range .items[*]}{.metadata.name}={.status.revision}{'\\t'}{end}.", "a=2\tb=\t."),
            ("{.items[1].status.conditions}", "[]"),
        ] {
            assert_eq!(Template::parse(template).unwrap().fill(&document), filled, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, part) in [
            ("{.items", "without its `}`"),
            ("{range .items[*]}{.name}", "without its `{end}`"),
            ("{.name}{end}", "without its `{range"),
            ("{.items[}", "is no JSONPath"),
        ] {
            let refused = Template::parse(template).unwrap_err().to_string();
            assert!(refused.contains(part), "{template}: {refused}");
        }
    }
}
