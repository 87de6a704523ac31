//! CAA records (RFC 8659): which would allow a CA to issue.

use super::failure::Failure;
use super::order::Order;

/// More are not printed: one shows how the others look.
const MOST_RECORDS: usize = 3;

/// The records that would allow the CA, held to one account by its URI (RFC 8657), as a sentence.
///
/// `identities` are the CA's names for itself, from its directory.
pub fn allowing(failure: &Failure, order: &Order, identities: &[String], account: &str) -> String {
    let is_plain = |text: &str| text.bytes().all(|c| c.is_ascii_graphic() && c != b'"' && c != b';');
    let identity = identities.iter().map(String::as_str).find(|it| !it.is_empty() && is_plain(it));
    let named: Vec<_> =
        failure.subproblems.iter().filter_map(|part| part.identifier.as_deref()).collect();
    let is_concerned = |name: &&String| {
        named.is_empty() || named.contains(&name.as_str()) || named.contains(&base(name))
    };
    let account = if is_plain(account) { account } else { "" };
    let mut records: Vec<_> = order.names.iter().filter(is_concerned).map(|name| {
        let tag = if name.starts_with("*.") { "issuewild" } else { "issue" };
        let identity = identity.unwrap_or("CA-DOMAIN");
        format!("`{}. CAA 0 {tag} \"{identity}; accounturi={account}\"`", base(name))
    }).collect();
    records.dedup();
    let rest = if records.len() > MOST_RECORDS { " and so on" } else { "" };
    records.truncate(MOST_RECORDS);
    let whose = match identity {
        Some(_) => "",
        None => ", with the domain that the CA's documentation names instead of CA-DOMAIN",
    };
    format!("This would allow it: {}{rest}{whose}.", records.join(", "))
}

fn base(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}
