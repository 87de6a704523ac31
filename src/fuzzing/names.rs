//! Names as people, CSRs and CAs write them.

use crate::domain::name::{DnsName, comparable, public_suffix, with_u_labels};

pub(super) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let compared = comparable(&text);
    assert_eq!(comparable(&compared), compared, "of {text:?}: once is enough");
    match DnsName::parse(&text) {
        Ok(name) => is_canonical(&name, &compared),
        Err(refusal) => {
            let words = refusal.to_string();
            assert!(words.chars().count() < 250 && !words.contains(char::is_control), "{words}");
        }
    }
}

fn is_canonical(name: &DnsName, compared: &str) {
    let text = name.as_str();
    assert_eq!(DnsName::parse(text).as_ref(), Ok(name), "what is printed reads back the same");
    assert_eq!(compared, text, "names that mean the same compare alike");
    assert_eq!(name.is_wildcard(), text.starts_with("*."));
    assert!(text.len() <= 253, "{text}");
    for label in name.base().split('.') {
        let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        assert!((1..=63).contains(&label.len()) && label.bytes().all(is_plain), "{text}");
    }
    assert!(public_suffix(name.base()).is_none_or(|suffix| name.base().ends_with(suffix)));
    if let Some(shown) = with_u_labels(name.base()) {
        assert_eq!(comparable(&shown), name.base(), "{shown} is the same name");
    }
}
