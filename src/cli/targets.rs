//! Kinds and names on the command line, as kubectl takes them.

use super::exit::Complaint;
use crate::manifest::kind::{Kind, UnknownKind};

impl From<UnknownKind> for Complaint {
    fn from(unknown: UnknownKind) -> Self {
        Self::Usage(unknown.to_string())
    }
}

/// A kind, as people type it.
pub(super) fn kind(word: &str) -> Result<Kind, Complaint> {
    Ok(Kind::parse(word)?)
}

/// Several kinds, joined by commas.
pub(super) fn kinds(word: &str) -> Result<Vec<Kind>, Complaint> {
    Ok(Kind::parse_several(word)?)
}

/// Reads kinds and names: `certs web api`, `order,challenge`, or `cert/web order/web-1-…`.
pub(super) fn targets(words: &[String]) -> Result<Vec<(Kind, Option<String>)>, Complaint> {
    let words = &joined(words);
    if words.iter().any(|word| word.contains('/')) {
        return words
            .iter()
            .map(|word| {
                let (kind, name) = word.split_once('/').ok_or_else(|| {
                    Complaint::Usage(format!("`{word}` stands beside KIND/NAME and has no `/`"))
                })?;
                Ok((Kind::parse(kind)?, Some(name.to_owned())))
            })
            .collect();
    }
    let Some((first, names)) = words.split_first() else {
        return Err(Complaint::Usage("say which kind, such as `certificates`".to_owned()));
    };
    let kinds = Kind::parse_several(first)?;
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|kind| (kind, None)).collect());
    }
    let pairs = kinds.iter().flat_map(|kind| names.iter().map(|name| (*kind, Some(name.clone()))));
    Ok(pairs.collect())
}

/// Puts a list together that was typed with blanks: `certificate, certificaterequest`.
fn joined(words: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(last) if last.ends_with(',') || word.starts_with(',') => last.push_str(word),
            _ => joined.push(word.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_are_told_apart() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let named = |kind, name: &str| (kind, Some(name.to_owned()));

        let several = targets(&words("order,challenge")).unwrap();
        assert_eq!(several, [(Kind::Order, None), (Kind::Challenge, None)]);
        for blanks in ["order, challenge", "order ,challenge", "order , challenge"] {
            assert_eq!(targets(&words(blanks)).unwrap(), several, "{blanks}");
        }
        let two = targets(&words("cert a b")).unwrap();
        assert_eq!(two, [named(Kind::Certificate, "a"), named(Kind::Certificate, "b")]);
        let full = targets(&words("cert/a order.acme.cert-manager.io/b")).unwrap();
        assert_eq!(full, [named(Kind::Certificate, "a"), named(Kind::Order, "b")]);
        assert!(targets(&words("cert/a b")).is_err() && targets(&[]).is_err());
    }
}
