//! YAML, read with the line of everything in it, and written for people.
//!
//! The only module that names `serde_saphyr`. JSON is read as well: it is a kind of YAML. What is
//! wrong is said without repeating any value, since manifests hold secrets.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Spanned, options, ser_options};
use thiserror::Error;

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// The line, counted from 1 in the whole stream, that each JSON pointer (RFC 6901) leads to.
    pub lines: BTreeMap<String, u32>,
}

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct InvalidYaml {
    /// From 1; 0 where it is not known.
    pub line: u32,
    /// From 1; 0 where it is not known.
    pub column: u32,
    /// What is wrong, without the text itself.
    pub problem: String,
}

/// Reads every document of a stream; empty ones are left out.
///
/// Depth, size and aliases are bounded, so that a small text cannot become a large tree.
pub fn read(text: &str) -> Result<Vec<Document>, InvalidYaml> {
    let options = options! { with_snippet: false, strict_booleans: true };
    let trees: Vec<Tree> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| invalid(&error))?;
    Ok(trees
        .into_iter()
        .map(|tree| {
            let mut lines = BTreeMap::new();
            let line = tree.line;
            let value = tree.flatten(String::new(), line, &mut lines);
            Document { value, lines }
        })
        .filter(|document| !document.value.is_null())
        .collect())
}

/// Writes one document.
pub fn write(value: &Value) -> String {
    let options = ser_options! { compact_list_indent: true, yaml_12: false };
    // JSON has nothing that YAML could not say.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_default()
}

fn invalid(error: &serde_saphyr::Error) -> InvalidYaml {
    let place = error.location();
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The place is said by us.
    let problem = text.split(" at line ").next().unwrap_or_default().trim();
    InvalidYaml {
        line: place.map_or(0, |place| number(place.line())),
        column: place.map_or(0, |place| number(place.column())),
        problem: problem.lines().next().unwrap_or_default().to_owned(),
    }
}

/// A value with the line that it begins on.
struct Tree {
    line: u32,
    node: Node,
}

enum Node {
    Scalar(Value),
    List(Vec<Tree>),
    /// Each entry with the line of its key.
    Map(Vec<(String, u32, Tree)>),
}

impl Tree {
    fn flatten(self, pointer: String, line: u32, lines: &mut BTreeMap<String, u32>) -> Value {
        let value = match self.node {
            Node::Scalar(value) => value,
            Node::List(items) => (0_usize..)
                .zip(items)
                .map(|(index, item)| {
                    let line = item.line;
                    item.flatten(format!("{pointer}/{index}"), line, lines)
                })
                .collect(),
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, line, tree) in entries {
                    let token = key.replace('~', "~0").replace('/', "~1");
                    let value = tree.flatten(format!("{pointer}/{token}"), line, lines);
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        };
        lines.insert(pointer, line);
        value
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { line: line_of(&spanned), node: spanned.value })
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number has no end"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Tree>()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map: Vec<(String, u32, Tree)> = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            if map.iter().any(|(known, ..)| *known == key.value) {
                return Err(A::Error::custom(format!("the key `{}` is given twice", key.value)));
            }
            let line = line_of(&key);
            map.push((key.value, line, entries.next_value()?));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_read_with_its_line() {
        let text = "# a comment\nkind: Secret\nspec:\n  names:\n  - one\n  - \"two\"\n  a/b: {c: 7, d: 720h, e: yes}\n---\n---\n- [true, null, 1.5]\n";
        let read = read(text).unwrap();

        let [first, second] = &read[..] else { panic!("{read:?}") };
        let spec = json!({"names": ["one", "two"], "a/b": {"c": 7, "d": "720h", "e": "yes"}});
        assert_eq!(first.value, json!({"kind": "Secret", "spec": spec}));
        for (pointer, line) in [
            ("/kind", 2),
            ("/spec", 3),
            ("/spec/names", 4),
            ("/spec/names/0", 5),
            ("/spec/names/1", 6),
            ("/spec/a~1b/d", 7),
        ] {
            assert_eq!(first.lines.get(pointer), Some(&line), "{pointer}: {:?}", first.lines);
        }
        assert_eq!(second.value, json!([[true, null, 1.5]]));
        assert_eq!(second.lines.get("/0/1"), Some(&10));
    }

    #[test]
    fn json_is_read_as_well() {
        let value = json!({"kind": "Secret", "stringData": {"api-token": "a\nb", "empty": ""}, "n": [1, -2]});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            assert_eq!(read(&text).unwrap()[0].value, value);
        }
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line_and_without_its_text() {
        for (text, line) in [
            ("kind: Secret\nstringData:\n  token: 'hunter2\n", 3),
            ("kind: Secret\n a: hunter2: b\n", 2),
            ("a: 1\nb: [hunter2\n", 2),
            ("a: hunter2\nb: 1\na: hunter2\n", 3),
        ] {
            let refused = read(text).unwrap_err();

            assert!(refused.line >= line, "{refused} of {text}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
            assert!(
                !refused.problem.is_empty() && !refused.problem.contains(" line "),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_small_text_cannot_become_a_large_tree() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let of = format!("*a{}", n - 1);
            text.extend([format!("a{n}: &a{n} [{}]\n", vec![of; 10].join(", "))]);
        }
        read(&text).unwrap_err();
        read(&"[".repeat(100_000)).unwrap_err();
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let value = json!({
            "on": "yes", "null": "null", "number": "007", "n": 7, "empty": {}, "list": [{"a": "b: c", "d": ["e"]}, []],
            "text": "two\nlines\n", "star": "*.example.com", "tilde": "~", "time": "2026-11-24T12:00:00Z"
        });
        let text = write(&value);

        assert_eq!(read(&text).unwrap()[0].value, value, "{text}");
    }
}
