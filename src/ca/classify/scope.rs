//! The scope of a rate limit, by the call, the status and the CA's own words.

use crate::ca::call::Call;
use crate::domain::throttle::{Scope, registered_domain};

/// The scope of a limit that a CA has named; `words` are the CA's.
///
/// Let's Encrypt's limits are known by their wording (boulder's `ratelimits`); whatever is not known
/// holds the whole account's new orders, or all of the CA where it is not an order that was refused.
/// `None` for what concerns only whoever asked.
pub(super) fn of(call: Call, status: u16, by_the_ca: bool, words: &str) -> Option<Scope> {
    let words = words.to_ascii_lowercase();
    match call {
        _ if status >= 500 || words.contains("service busy") => Some(Scope::Endpoint),
        // Accounts per address: nobody who has one is concerned.
        Call::NewAccount | Call::UpdateAccount => None,
        Call::NewOrder if by_the_ca => Some(of_new_order(&words)),
        _ => Some(Scope::Endpoint),
    }
}

fn of_new_order(words: &str) -> Scope {
    if words.contains("exact set of") {
        return Scope::ExactSet;
    }
    let named = |after| name_after(words, after);
    if words.contains("too many certificates") {
        let domain =
            named("issued for").map(|name| Scope::RegisteredDomain(registered_domain(name)));
        return domain.unwrap_or(Scope::Account);
    }
    if words.contains("too many failed authorizations") {
        let name = named(" for").map(|name| Scope::Name(name.to_owned()));
        return name.unwrap_or(Scope::Account);
    }
    Scope::Account
}

/// The name in `… for "example.com" in the last …` or `… for: example.com: see …`.
fn name_after<'a>(words: &'a str, after: &str) -> Option<&'a str> {
    let (_, rest) = words.split_once(after)?;
    let name = rest.trim_start_matches([':', ' ', '"']).split(['"', ' ', ',']).next()?;
    let name = name.trim_end_matches([':', '.', ';']);
    let name = name.strip_prefix("*.").unwrap_or(name);
    (name.contains('.') && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_encrypts_words_name_the_bucket() {
        let domain = |name: &str| Some(Scope::RegisteredDomain(name.into()));
        let name = |name: &str| Some(Scope::Name(name.into()));
        for (words, scope) in [
            (
                "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-25 12:00:00 UTC",
                Some(Scope::Account),
            ),
            (
                r#"too many certificates (50) already issued for "example.com" in the last 168h0m0s, retry after 2026-11-25"#,
                domain("example.com"),
            ),
            (
                "Error creating new order :: too many certificates already issued for: a.example.co.uk: see https://letsencrypt.org/docs/rate-limits/",
                domain("example.co.uk"),
            ),
            (
                "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s",
                Some(Scope::ExactSet),
            ),
            (
                "too many certificates (5) already issued for this exact set of domains in the last 168 hours: a.example.com,b.example.com: see",
                Some(Scope::ExactSet),
            ),
            (
                r#"too many failed authorizations (5) for "www.example.com" in the last 1h0m0s"#,
                name("www.example.com"),
            ),
            (
                "too many failed authorizations recently: see https://letsencrypt.org/docs/failed-validation-limit/",
                Some(Scope::Account),
            ),
            ("too many certificates", Some(Scope::Account)),
            ("slow down", Some(Scope::Account)),
            ("Service busy; retry later.", Some(Scope::Endpoint)),
        ] {
            assert_eq!(of(Call::NewOrder, 429, true, words), scope, "{words}");
        }
    }

    #[test]
    fn what_refuses_any_call_holds_all_of_them() {
        for (call, status, by_the_ca) in [
            (Call::NewOrder, 503, true),
            (Call::NewOrder, 429, false),
            (Call::GetOrder, 429, true),
            (Call::Directory, 429, false),
            (Call::Finalize, 503, false),
        ] {
            assert_eq!(of(call, status, by_the_ca, ""), Some(Scope::Endpoint), "{call:?} {status}");
        }
        assert_eq!(of(Call::NewAccount, 429, true, "too many registrations"), None);
    }
}
