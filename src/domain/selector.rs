//! Label selectors in kubectl's grammar: `team=web,tier!=test,env in (a, b),!legacy`.

use std::collections::BTreeMap;
use std::fmt;

/// Terms that one selector has at most.
const MOST_TERMS: usize = 32;
/// Values that one term lists at most.
const MOST_VALUES: usize = 64;

/// What labels must be; every term has to hold. The empty selector takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    pub terms: Vec<Term>,
}

/// One condition on the label of this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub key: String,
    pub condition: Condition,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// One of these values.
    In(Vec<String>),
    /// None of these values; a resource without the label meets it, too.
    NotIn(Vec<String>),
    /// There, whatever its value.
    Exists,
    /// Not there.
    Absent,
}

impl Selector {
    /// Reads a selector; says what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in parts(text)? {
            terms.push(term(part.trim())?);
        }
        if terms.len() > MOST_TERMS {
            return Err(format!("a selector has at most {MOST_TERMS} terms"));
        }
        Ok(Self { terms })
    }

    /// Both selectors at once.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.terms.extend(other.terms);
        self
    }

    /// Whether it takes a resource with these labels.
    pub fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| {
            let value = labels.get(&term.key);
            match &term.condition {
                Condition::In(values) => value.is_some_and(|value| values.contains(value)),
                Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Condition::Exists => value.is_some(),
                Condition::Absent => value.is_none(),
            }
        })
    }
}

/// The selector in one line, as [`Selector::parse`] reads it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Term { key, condition }) in self.terms.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match condition {
                Condition::In(values) => write!(f, "{comma}{key} in ({})", values.join(",")),
                Condition::NotIn(values) => write!(f, "{comma}{key} notin ({})", values.join(",")),
                Condition::Exists => write!(f, "{comma}{key}"),
                Condition::Absent => write!(f, "{comma}!{key}"),
            }?;
        }
        Ok(())
    }
}

/// The terms: commas within brackets separate values.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if inside => return Err(wrong(text, "has a `(` within brackets")),
            ')' if !inside => return Err(wrong(text, "has a `)` without its `(`")),
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(wrong(text, "has a `(` without its `)`"));
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

fn term(text: &str) -> Result<Term, String> {
    let of = |key: &str, condition| Ok(Term { key: checked_key(key, text)?, condition });
    if text.is_empty() {
        return Err("a term of the selector is empty: there is a comma too many".to_owned());
    }
    if let Some(key) = text.strip_prefix('!') {
        return of(key, Condition::Absent);
    }
    if let Some(list) = text.strip_suffix(')') {
        let (before, list) = list.split_once('(').unwrap_or((list, ""));
        let words: Vec<&str> = before.split_whitespace().collect();
        let values = values(list, text)?;
        return match words[..] {
            [key, "in"] => of(key, Condition::In(values)),
            [key, "notin"] => of(key, Condition::NotIn(values)),
            _ => Err(wrong(
                text,
                "has values in brackets, but is not `key in (…)` or `key notin (…)`",
            )),
        };
    }
    for (sign, is_equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = text.split_once(sign) {
            let value = vec![checked_value(value, text)?];
            let condition = if is_equal { Condition::In(value) } else { Condition::NotIn(value) };
            return of(key, condition);
        }
    }
    of(text, Condition::Exists)
}

fn values(list: &str, text: &str) -> Result<Vec<String>, String> {
    let values: Vec<_> =
        list.split(',').map(|value| checked_value(value, text)).collect::<Result<_, _>>()?;
    if values.len() > MOST_VALUES {
        return Err(format!("a term of a selector has at most {MOST_VALUES} values"));
    }
    Ok(values)
}

fn checked_key(key: &str, text: &str) -> Result<String, String> {
    let key = key.trim();
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_name = !name.is_empty() && name.len() <= 63 && name.chars().all(allowed);
    let is_prefix = prefix.len() <= 253 && prefix.chars().all(allowed);
    if is_name && is_prefix {
        return Ok(key.to_owned());
    }
    Err(wrong(
        text,
        &format!("has the key `{key}`, which is no label's: letters, digits, `-`, `_` and `.`"),
    ))
}

fn checked_value(value: &str, text: &str) -> Result<String, String> {
    let value = value.trim();
    if value.len() <= 63 && value.chars().all(allowed) {
        return Ok(value.to_owned());
    }
    Err(wrong(
        text,
        &format!(
            "has the value `{value}`, which is no label's: at most 63 letters, digits, `-`, `_` and `.`"
        ),
    ))
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn wrong(text: &str, problem: &str) -> String {
    format!(
        "`{text}` {problem}; a selector is written `key=value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, `key` or `!key`, joined by commas"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_has_to_hold() {
        let labels = [("team", "web"), ("tier", "front"), ("example.com/env", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (text, takes) in [
            ("", true),
            ("team=web", true),
            ("team == web , tier=front", true),
            ("team=api", false),
            ("team!=api", true),
            ("team!=web", false),
            ("owner!=me", true),
            ("tier", true),
            ("legacy", false),
            ("!legacy,team=web", true),
            ("!tier", false),
            ("team in (api, web)", true),
            ("team in (api,db),tier", false),
            ("team notin (api,db), tier in (front)", true),
            ("team notin (web)", false),
            ("owner notin (web)", true),
            ("owner in (web)", false),
            ("example.com/env=", true),
            ("example.com/env in (,x)", true),
            ("team in(web)", true),
        ] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(selector.takes(&labels), takes, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("team=web,", "comma too many"),
            (",team", "comma too many"),
            ("team in web", "`team in web`"),
            ("team in (web", "without its `)`"),
            ("team in web)", "without its `(`"),
            ("team in ((web))", "within brackets"),
            ("team is (web)", "not `key in (…)`"),
            ("team>3", "`team>3`"),
            ("=web", "the key ``"),
            ("!", "the key ``"),
            ("team=web site", "the value `web site`"),
            ("a=b=c", "the value `b=c`"),
            ("team=ü", "the value `ü`"),
        ] {
            let problem = Selector::parse(text).unwrap_err();
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }
}
