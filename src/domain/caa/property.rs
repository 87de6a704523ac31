//! CAA records and the grammar of `issue` and `issuewild` (RFC 8659, section 4).

use std::fmt;

/// A resource record of the type CAA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whether a CA that does not know the tag must not issue.
    pub is_critical: bool,
    pub tag: String,
    pub value: String,
}

/// Tags that IANA has registered, in lower case. What they say about TLS certificates is known: those beside
/// `issue` and `issuewild` say nothing.
const REGISTERED: &[&str] =
    &["issue", "issuewild", "iodef", "contactemail", "contactphone", "issuemail", "issuevmc"];

impl Record {
    /// Whether it has this tag.
    pub(super) fn is(&self, tag: &str) -> bool {
        self.tag.eq_ignore_ascii_case(tag)
    }

    /// Whether nobody may issue because of it.
    pub(super) fn is_unknown_and_critical(&self) -> bool {
        self.is_critical && !REGISTERED.iter().any(|tag| self.is(tag))
    }
}

impl fmt::Display for Record {
    /// As a zone file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.is_critical { 128 } else { 0 };
        write!(f, "{flags} {} \"{}\"", self.tag, self.value)
    }
}

/// The value of `issue` or `issuewild`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Issue<'a> {
    /// Empty where no CA is meant.
    pub domain: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Issue<'a> {
    /// Reads a value. One that does not follow the grammar means no CA.
    pub(super) fn read(value: &'a str) -> Self {
        Self::parse(value).unwrap_or(Self { domain: "", parameters: Vec::new() })
    }

    fn parse(value: &'a str) -> Option<Self> {
        let (domain, rest) = value.split_once(';').unwrap_or((value, ""));
        let domain = trimmed(domain);
        if !domain.is_empty() && !domain.split('.').all(is_label) {
            return None;
        }
        let parameters = match trimmed(rest) {
            "" => Vec::new(),
            some => some.split(';').map(parameter).collect::<Option<_>>()?,
        };
        Some(Self { domain, parameters })
    }

    /// The values of a parameter.
    pub(super) fn parameter(&self, tag: &str) -> Vec<&'a str> {
        let named = self.parameters.iter().filter(|(known, _)| known.eq_ignore_ascii_case(tag));
        named.map(|(_, value)| *value).collect()
    }
}

/// Without the grammar's white space around it.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_label(text: &str) -> bool {
    is_made_of(text, |c| c.is_ascii_alphanumeric() || c == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_made_of(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(fits)
}

fn parameter(text: &str) -> Option<(&str, &str)> {
    let (tag, value) = text.split_once('=')?;
    let (tag, value) = (trimmed(tag), trimmed(value));
    let is_value = value.bytes().all(|c| c.is_ascii_graphic() && c != b';');
    (is_label(tag) && is_value).then_some((tag, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_a_domain_and_parameters() {
        for (value, domain, parameters) in [
            ("ca1.example.net", "ca1.example.net", &[][..]),
            ("", "", &[]),
            (";", "", &[]),
            (" \t ca.example ; ", "ca.example", &[]),
            ("ca1.example.net; account=230123", "ca1.example.net", &[("account", "230123")]),
            ("; policy=ev", "", &[("policy", "ev")]),
            ("ca.example;a=1;\tb-c = 2=2", "ca.example", &[("a", "1"), ("b-c", "2=2")]),
            ("ca.example; empty=", "ca.example", &[("empty", "")]),
        ] {
            let expected = Issue { domain, parameters: parameters.to_vec() };
            assert_eq!(Issue::read(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_value_outside_the_grammar_means_no_ca() {
        for value in [
            "%%%%%",
            "ca.example account=1",
            "ca..example",
            "-ca.example",
            "ca.example; account",
            "ca.example; =1",
            "ca.example; a=1;",
            "ca.example; a=1 2",
            "ca.example; a=\u{fc}",
            "https://ca.example",
        ] {
            assert_eq!(Issue::read(value).domain, "", "{value:?}");
        }
    }

    #[test]
    fn a_record_is_shown_as_a_zone_file_has_it() {
        let record = Record { is_critical: true, tag: "tbs".into(), value: "Unknown".into() };
        assert_eq!(record.to_string(), "128 tbs \"Unknown\"");
    }
}
