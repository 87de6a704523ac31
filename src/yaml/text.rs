//! What stands in front of YAML's grammar: encodings, byte order marks, and streams of JSON as kubectl reads them.

use std::borrow::Cow;

use serde::de::IgnoredAny;

const BOM: char = '\u{FEFF}';

/// The text of a file: UTF-8, or UTF-16 as editors and shells on Windows write it, without its byte order mark.
/// None if it is neither.
pub fn decode(bytes: &[u8]) -> Option<String> {
    match bytes {
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        // A stream begins with a character of ASCII (YAML 1.2, section 5.2).
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes),
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        _ => {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(text.trim_start_matches(BOM).to_owned())
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let text = char::decode_utf16(units).collect::<Result<String, _>>().ok()?;
    rest.is_empty().then_some(text)
}

/// A text in which every JSON value of a stream is a document of its own.
pub(super) struct Separated<'t> {
    pub(super) text: Cow<'t, str>,
    /// Lines, counted from 1 in `text`, that the original does not have.
    added: Vec<u32>,
}

impl Separated<'_> {
    /// The line of the original that has become this one.
    pub(super) fn original(&self, line: u32) -> u32 {
        let added = self.added.partition_point(|added| *added <= line);
        line.saturating_sub(u32::try_from(added).unwrap_or(u32::MAX))
    }
}

/// Puts `---` between JSON values that follow each other, and removes byte order marks at the beginning of documents.
pub(super) fn separate(text: &str) -> Separated<'_> {
    if !text.contains(BOM) && !documents(text).any(|(_, body)| is_json(body)) {
        return Separated { text: Cow::Borrowed(text), added: Vec::new() };
    }
    let mut out = Out { text: String::with_capacity(text.len()), line: 1, added: Vec::new() };
    for (separator, body) in documents(text) {
        out.push(separator);
        // The document begins on the line after a separator that stands alone.
        let alone =
            body.find('\n').filter(|end| !separator.is_empty() && body[..*end].trim().is_empty());
        let (line, body) = body.split_at(alone.map_or(0, |end| end + 1));
        out.push(line);
        let body = body.trim_start_matches(BOM);
        if is_json(body) { out.push_values(body) } else { out.push(body) }
    }
    Separated { text: Cow::Owned(out.text), added: out.added }
}

fn is_json(body: &str) -> bool {
    body.trim_start_matches(is_between).starts_with('{')
}

/// What may stand between the values of a stream.
fn is_between(character: char) -> bool {
    matches!(character, BOM | ' ' | '\n' | '\r' | '\t')
}

/// Each document as the separator before it, and the rest. A line that begins with `---` is nothing else in YAML.
fn documents(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut left = text;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let (before, rest) = left.split_at(separator(left));
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if separator(line) > 0 {
                break;
            }
            end += line.len();
        }
        let (body, next) = rest.split_at(end);
        left = next;
        Some((before, body))
    })
}

/// The length of the `---` that a line begins with.
fn separator(line: &str) -> usize {
    match line.strip_prefix("---") {
        Some(rest) if rest.is_empty() || rest.starts_with(is_between) => 3,
        _ => 0,
    }
}

struct Out {
    text: String,
    /// The line that comes next, from 1.
    line: u32,
    added: Vec<u32>,
}

impl Out {
    fn push(&mut self, text: &str) {
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        self.line += u32::try_from(lines).unwrap_or(u32::MAX);
        self.text.push_str(text);
    }

    /// Writes values of JSON with a separator before each but the first. What is no JSON stays as it is.
    fn push_values(&mut self, body: &str) {
        let mut values = serde_json::Deserializer::from_str(body).into_iter::<IgnoredAny>();
        let mut done = 0;
        while let Some(Ok(_)) = values.next() {
            let end = values.byte_offset();
            self.push(&body[done..end]);
            let rest = body[end..].trim_start_matches(is_between);
            let gap = &body[end..body.len() - rest.len()];
            done = body.len() - rest.len();
            if !rest.starts_with('{') {
                self.push(&gap.replace(BOM, ""));
                break;
            }
            self.separate(gap);
            if gap.contains(BOM) {
                // The parser does not know it: it begins anew behind it.
                return self.push_values(rest);
            }
        }
        self.push(&body[done..]);
    }

    /// A separator in a gap; on a line of its own where there is none yet.
    fn separate(&mut self, gap: &str) {
        self.push(&gap.replace(BOM, ""));
        if !gap.contains('\n') {
            self.push("\n");
            self.added.push(self.line);
        }
        let start = self.text.rfind('\n').map_or(0, |at| at + 1);
        self.text.insert_str(start, "--- ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_in_any_encoding_that_people_save_it_in() {
        let text = "name: ü\n";
        let utf16 = |unit: fn(u16) -> [u8; 2], mark: &[u8]| {
            mark.iter().copied().chain(text.encode_utf16().flat_map(unit)).collect::<Vec<u8>>()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            ["\u{FEFF}", text].concat().into_bytes(),
            utf16(u16::to_le_bytes, &[0xFF, 0xFE]),
            utf16(u16::to_be_bytes, &[0xFE, 0xFF]),
            utf16(u16::to_le_bytes, &[]),
            utf16(u16::to_be_bytes, &[]),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        assert_eq!(decode(b""), Some(String::new()));
        for strange in [&[b'a', 0xFF][..], &[0xFF, 0xFE, b'a'], &[0xFF, 0xFE, 0, 0xD8]] {
            assert_eq!(decode(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn values_of_json_that_follow_each_other_are_separated() {
        for (text, separated) in [
            ("a: 1\n", "a: 1\n"),
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("{\"a\": 1}\n{\"b\": 2}\n", "{\"a\": 1}\n--- {\"b\": 2}\n"),
            ("{} {}{}\n", "{} \n--- {}\n--- {}\n"),
            ("\u{FEFF}{}\r\n\u{FEFF}{}", "{}\r\n--- {}"),
            ("a: b\n---\n{}\n  {}\n---\nc: d\n", "a: b\n---\n{}\n---   {}\n---\nc: d\n"),
            ("---\n\u{FEFF}a: b\n", "---\na: b\n"),
            // Flow style is no JSON.
            ("{a: b}\n", "{a: b}\n"),
            ("{\"a\": \"---\"}\n{\"b", "{\"a\": \"---\"}\n--- {\"b"),
        ] {
            assert_eq!(separate(text).text, separated, "{text:?}");
        }
    }

    #[test]
    fn lines_are_those_of_the_original() {
        let separated = separate("{}{}\n{}{}\n");
        assert_eq!(separated.text, "{}\n--- {}\n--- {}\n--- {}\n");
        let lines: Vec<u32> = (1..=4).map(|line| separated.original(line)).collect();
        assert_eq!(lines, [1, 1, 2, 2]);
    }
}
