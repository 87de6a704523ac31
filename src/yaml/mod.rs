//! YAML, read with the line of everything in it, and written for people.
//!
//! The only module that names `serde_saphyr`. JSON is read as well, and streams of it. What is
//! wrong is said without repeating any value, since manifests hold secrets.

mod text;

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Spanned, alias_limits, budget, options, ser_options};
use thiserror::Error;

pub use text::decode;
use text::separate;

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// Where it says it.
    pub lines: Lines,
}

/// The line, counted from 1 in the whole stream, of a value and of everything in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    line: u32,
    below: Below,
}

#[derive(Debug, Clone, PartialEq)]
enum Below {
    Nothing,
    Items(Vec<Lines>),
    Fields(HashMap<String, Lines>),
}

impl Lines {
    /// The line that a JSON pointer (RFC 6901) leads to, or that of the nearest thing above it.
    pub fn line(&self, pointer: &str) -> u32 {
        let mut at = self;
        for token in pointer.split('/').skip(1) {
            let next = match &at.below {
                Below::Nothing => None,
                Below::Items(items) => token.parse().ok().and_then(|index: usize| items.get(index)),
                Below::Fields(fields) => fields.get(&token.replace("~1", "/").replace("~0", "~")),
            };
            let Some(next) = next else { break };
            at = next;
        }
        at.line
    }
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

/// More fields than any manifest's mapping has.
const MOST_FIELDS: usize = 1_000;
/// Longer than any field's name (a label's has 317 characters).
const LONGEST_NAME: usize = 1_024;
/// Text that aliases stand for is bounded like the text itself.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const MOST_REPEATED: usize = 20_000;

/// Reads every document of a stream; empty ones are left out.
///
/// Depth, size and aliases are bounded over the whole stream, so that a small text cannot become a
/// large tree. The work grows as the text does.
pub fn read(text: &str) -> Result<Vec<Document>, InvalidYaml> {
    let options = options! {
        with_snippet: false,
        strict_booleans: true,
        budget: budget! {
            max_total_scalar_bytes: MOST_BYTES,
            max_recorded_anchor_bytes: MOST_BYTES,
        },
        alias_limits: alias_limits! { max_total_replayed_events: MOST_REPEATED },
    };
    let text = separate(text);
    let original = |line| text.original(line);
    let trees: Vec<Tree> = serde_saphyr::from_multiple_with_options(&text.text, options)
        .map_err(|error| invalid(&error, original))?;
    let documents = trees.into_iter().map(|tree| {
        let line = tree.line;
        let (value, lines) = tree.part(line, &original);
        Document { value, lines }
    });
    Ok(documents.filter(|document| !document.value.is_null()).collect())
}

/// Writes one document.
pub fn write(value: &Value) -> String {
    let options = ser_options! { compact_list_indent: true, yaml_12: false };
    // JSON has nothing that YAML could not say.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_default()
}

fn invalid(error: &serde_saphyr::Error, original: impl Fn(u32) -> u32) -> InvalidYaml {
    let place = error.location();
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The place is said by us.
    let problem = text.split(" at line ").next().unwrap_or_default().trim();
    InvalidYaml {
        line: place.map_or(0, |place| original(number(place.line()))),
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
    /// What it says, and where; a field's value stands where its name does.
    fn part(self, line: u32, original: &impl Fn(u32) -> u32) -> (Value, Lines) {
        let (value, below) = match self.node {
            Node::Scalar(value) => (value, Below::Nothing),
            Node::List(items) => {
                let parts = items.into_iter().map(|item| {
                    let line = item.line;
                    item.part(line, original)
                });
                let (values, lines) = parts.unzip();
                (Value::Array(values), Below::Items(lines))
            }
            Node::Map(entries) => {
                let (mut map, mut fields) = (Map::new(), HashMap::with_capacity(entries.len()));
                for (key, line, tree) in entries {
                    let (value, lines) = tree.part(line, original);
                    fields.insert(key.clone(), lines);
                    map.insert(key, value);
                }
                (Value::Object(map), Below::Fields(fields))
            }
        };
        (value, Lines { line: original(line), below })
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
        let mut known = HashSet::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let line = line_of(&key);
            let name = key.value;
            if name.len() > LONGEST_NAME {
                let problem = format!("the name of a field is longer than {LONGEST_NAME} bytes");
                return Err(A::Error::custom(problem));
            }
            if map.len() == MOST_FIELDS {
                let problem = format!("a mapping has more than {MOST_FIELDS} fields");
                return Err(A::Error::custom(problem));
            }
            if !known.insert(name.clone()) {
                return Err(A::Error::custom(format!("the key `{name}` is given twice")));
            }
            map.push((name, line, entries.next_value()?));
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
            assert_eq!(first.lines.line(pointer), line, "{pointer}: {:?}", first.lines);
        }
        assert_eq!(first.lines.line("/spec/a~1b/nothing/7"), 7, "the nearest above");
        assert_eq!(second.value, json!([[true, null, 1.5]]));
        assert_eq!(second.lines.line("/0/1"), 10);
    }

    #[test]
    fn json_is_read_as_well() {
        let value = json!({"kind": "Secret", "stringData": {"api-token": "a\nb", "empty": ""}, "n": [1, -2]});
        let tabs = "{\n\t\"kind\":\t\"Secret\",\n\t\"stringData\": {\"api-token\": \"a\\nb\", \"empty\": \"\"}, \"n\": [1, -2]\n}\n";
        for text in
            [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), tabs.to_owned()]
        {
            assert_eq!(read(&text).unwrap()[0].value, value);
        }
        let escaped = read(r#"{"a": "\ud83d\ude00\u00e9\/"}"#).unwrap();
        assert_eq!(escaped[0].value, json!({"a": "😀é/"}));
    }

    #[test]
    fn a_stream_of_json_has_the_lines_that_it_was_written_on() {
        let read =
            read("kind: A\n---\n{\"kind\": \"B\"}{\"kind\": \"C\"}\n{\"kind\":\n\"D\"}\n").unwrap();
        let found: Vec<(&str, u32)> = read
            .iter()
            .map(|one| (one.value["kind"].as_str().unwrap(), one.lines.line("/kind")))
            .collect();
        assert_eq!(found, [("A", 1), ("B", 3), ("C", 3), ("D", 4)]);
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
    fn a_mapping_is_read_no_further_than_manifests_go() {
        let fields = |count: usize| {
            let mut text = String::new();
            text.extend((0..count).map(|n| format!("a{n}: 1\n")));
            text
        };
        read(&fields(MOST_FIELDS)).unwrap();

        let refused = read(&fields(80_000)).unwrap_err();
        assert!(refused.problem.contains("more than 1000 fields"), "{refused}");
        assert!(refused.line <= 1_002, "{refused}");
        let refused = read(&format!("? {}\n: 1\n", "a".repeat(LONGEST_NAME + 1))).unwrap_err();
        assert!(refused.problem.contains("name of a field"), "{refused}");
    }

    #[test]
    fn aliases_are_bounded_over_the_whole_stream() {
        let items = vec!["x"; 100].join(", ");
        let aliases = vec!["*a"; 50].join(", ");
        let document = format!("a: &a [{items}]\nb: [{aliases}]\n");
        read(&document).unwrap();

        read(&vec![document; 500].join("---\n")).unwrap_err();
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
