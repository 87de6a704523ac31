//! Label selectors, as kubectl takes them.

use serde_json::Value;

use super::exit::Complaint;

/// What labels must be; every requirement has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

/// Reads `team=web,tier!=test,!legacy`.
pub(super) fn parse(text: &str) -> Result<Selector, Complaint> {
    let requirement = |part: &str| {
        let part = part.trim();
        let pair = |key: &str, value: &str| (key.trim().to_owned(), value.trim().to_owned());
        if let Some((key, value)) = part.split_once("!=") {
            let (key, value) = pair(key, value);
            return Ok(Requirement::IsNot(key, value));
        }
        if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            let (key, value) = pair(key, value);
            return Ok(Requirement::Is(key, value));
        }
        match part.strip_prefix('!') {
            Some(key) if !key.is_empty() => Ok(Requirement::HasNot(key.to_owned())),
            None if !part.is_empty() && !part.contains(['(', ' ']) => {
                Ok(Requirement::Has(part.to_owned()))
            }
            _ => Err(Complaint::Usage(format!(
                "`{part}` is no requirement of a label; write `key=value`, `key!=value`, `key` or `!key`"
            ))),
        }
    };
    text.split(',').map(requirement).collect::<Result<_, _>>().map(Selector)
}

impl Selector {
    /// A `key=value` that the server can look for by itself.
    pub(super) fn for_server(&self) -> Option<String> {
        self.0.iter().find_map(|one| match one {
            Requirement::Is(key, value) => Some(format!("{key}={value}")),
            _ => None,
        })
    }

    /// True if the selector chooses a resource with these labels.
    pub(super) fn fits(&self, resource: &Value) -> bool {
        let label = |key: &str| resource.get("labels")?.get(key)?.as_str();
        self.0.iter().all(|one| match one {
            Requirement::Is(key, value) => label(key) == Some(value),
            Requirement::IsNot(key, value) => label(key) != Some(value),
            Requirement::Has(key) => label(key).is_some(),
            Requirement::HasNot(key) => label(key).is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_requirement_has_to_hold() {
        let web = json!({"labels": {"team": "web", "tier": "front"}});
        for (text, fits) in [
            ("team=web", true),
            ("team==web,tier=front", true),
            ("team=api", false),
            ("team!=api", true),
            ("team!=web", false),
            ("tier", true),
            ("legacy", false),
            ("!legacy,team=web", true),
            ("!tier", false),
        ] {
            assert_eq!(parse(text).unwrap().fits(&web), fits, "{text}");
        }
        assert!(parse("team in (a, b)").is_err() && parse("").is_err());
        assert_eq!(parse("!a,b=c").unwrap().for_server(), Some("b=c".to_owned()));
    }
}
