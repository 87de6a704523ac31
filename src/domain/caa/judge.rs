//! Whether the CAA records of a name let a CA issue (RFC 8659, sections 3 and 4; RFC 8657).

use super::property::{Issue, Record};
use crate::domain::challenge::Kind;
use crate::domain::name::comparable;

/// Of a record so many characters are shown, and of a set so many records.
const MAX_SHOWN: usize = 150;
const MOST_SHOWN: usize = 3;

/// The record set that counts for a name: the first one on the way from the name to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelevantSet {
    /// Where it was found, without a final dot.
    pub at: String,
    pub records: Vec<Record>,
}

/// Who asks whom for a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// The CA's names for itself, from its directory.
    pub identities: &'a [String],
    /// The account's URL.
    pub account: &'a str,
    /// How the name is going to be proved; `None` where no solver fits it.
    pub method: Option<Kind>,
}

impl RelevantSet {
    /// Why the CA must not issue for a name, if it must not.
    pub fn refusal(&self, applicant: &Applicant<'_>, is_wildcard: bool) -> Option<String> {
        let at = &self.at;
        if let Some(record) = self.records.iter().find(|one| one.is_unknown_and_critical()) {
            let shown = shown(record);
            return Some(format!(
                "at {at} stands {shown}, which is critical, so that no CA issues that does not know it"
            ));
        }
        let counting = self.counting(is_wildcard);
        let issues: Vec<_> = counting.iter().map(|one| Issue::read(&one.value)).collect();
        let named: Vec<_> = counting
            .iter()
            .zip(&issues)
            .filter(|(_, issue)| applicant.is_named(issue.domain))
            .collect();
        if counting.is_empty() || named.iter().any(|(_, issue)| applicant.satisfies(issue)) {
            return None;
        }
        let Some((record, issue)) = named.first() else {
            let more = if counting.len() > MOST_SHOWN { ", …" } else { "" };
            let others: Vec<_> = counting.iter().take(MOST_SHOWN).map(|one| shown(one)).collect();
            let others = others.join(", ");
            return Some(format!("at {at} stands {others}{more}, which does not name the CA"));
        };
        let shown = shown(record);
        let why = if applicant.is_the_account(issue) {
            let method = applicant.method.map_or("any method", Kind::as_str);
            format!("which does not allow {method}, as the issuer's solver proves")
        } else {
            "which is for another account of the CA".to_owned()
        };
        Some(format!("at {at} stands {shown}, {why}"))
    }

    /// The records that decide: a wildcard goes by `issuewild` where there is one.
    fn counting(&self, is_wildcard: bool) -> Vec<&Record> {
        let tagged = |tag| self.records.iter().filter(|one| one.is(tag)).collect::<Vec<_>>();
        let wild = if is_wildcard { tagged("issuewild") } else { Vec::new() };
        if wild.is_empty() { tagged("issue") } else { wild }
    }
}

impl Applicant<'_> {
    fn is_named(&self, domain: &str) -> bool {
        !domain.is_empty()
            && self.identities.iter().any(|known| comparable(known) == comparable(domain))
    }

    fn satisfies(&self, issue: &Issue<'_>) -> bool {
        self.is_the_account(issue) && self.is_the_method(issue)
    }

    /// A parameter that stands there twice is satisfied by nobody (RFC 8657, section 3).
    fn is_the_account(&self, issue: &Issue<'_>) -> bool {
        match issue.parameter("accounturi")[..] {
            [] => true,
            [wanted] => wanted == self.account,
            [..] => false,
        }
    }

    /// What is not known does not forbid.
    fn is_the_method(&self, issue: &Issue<'_>) -> bool {
        match (&issue.parameter("validationmethods")[..], self.method) {
            ([], _) | ([_], None) => true,
            ([allowed], Some(method)) => allowed.split(',').any(|one| one == method.as_str()),
            ([..], _) => false,
        }
    }
}

fn shown(record: &Record) -> String {
    let text = record.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.example/acct/7";

    /// Records as zone files have them.
    fn set(records: &[(u8, &str, &str)]) -> RelevantSet {
        let record = |(flags, tag, value): &(u8, &str, &str)| Record {
            is_critical: flags & 128 != 0,
            tag: (*tag).to_owned(),
            value: (*value).to_owned(),
        };
        RelevantSet { at: "example.com".into(), records: records.iter().map(record).collect() }
    }

    fn refusal(
        records: &[(u8, &str, &str)],
        ca: &str,
        name: &str,
        method: Option<Kind>,
    ) -> Option<String> {
        let identities = [ca.to_owned()];
        let applicant = Applicant { identities: &identities, account: ACCOUNT, method };
        set(records).refusal(&applicant, name.starts_with("*."))
    }

    #[test]
    fn the_examples_of_rfc_8659_are_judged_as_it_says() {
        const ONE: &str = "ca1.example.net";
        const TWO: &str = "ca2.example.org";
        let certs = &[(0, "issue", ONE), (0, "iodef", "mailto:security@example.com")][..];
        let none = &[(0, "issue", ";")][..];
        let account = &[(0, "issue", "ca1.example.net; account=230123")][..];
        let both = &[(0, "issue", "ca1.example.net; policy=ev"), (0, "issue", TWO)][..];
        let wild = &[(0, "issue", ONE), (0, "issuewild", TWO)][..];
        let only_wild = &[(0, "issuewild", ONE), (0, "issuewild", TWO)][..];
        let one_then_none = &[(0, "issue", ONE), (0, "issuewild", ";")][..];
        let malformed = &[(0, "issue", "%%%%%")][..];
        let unknown = &[(0, "issue", ONE), (128, "tbs", "Unknown")][..];
        let tolerable = &[(0, "issue", ONE), (0, "tbs", "Unknown")][..];
        let restricts_nothing = &[(0, "iodef", "mailto:security@example.com")][..];
        for (records, ca, name, is_allowed) in [
            (certs, ONE, "example.com", true),
            (certs, TWO, "example.com", false),
            (certs, ONE, "*.example.com", true),
            (none, ONE, "nocerts.example.com", false),
            (account, ONE, "example.com", true),
            (both, ONE, "example.com", true),
            (both, TWO, "example.com", true),
            (wild, ONE, "example.com", true),
            (wild, TWO, "example.com", false),
            (wild, ONE, "*.example.com", false),
            (wild, TWO, "*.example.com", true),
            (only_wild, "ca3.example", "example.com", true),
            (only_wild, "ca3.example", "*.example.com", false),
            (one_then_none, ONE, "example.com", true),
            (one_then_none, ONE, "*.example.com", false),
            (malformed, ONE, "malformed.example.com", false),
            (unknown, ONE, "example.com", false),
            (tolerable, ONE, "example.com", true),
            (restricts_nothing, ONE, "example.com", true),
            (&[][..], ONE, "example.com", true),
        ] {
            let refused = refusal(records, ca, name, Some(Kind::Dns01));
            assert_eq!(refused.is_none(), is_allowed, "{records:?}, {ca}, {name}: {refused:?}");
        }
    }

    #[test]
    fn the_parameters_of_rfc_8657_hold_for_account_and_method() {
        let account = |more: &str| format!("ca.example; accounturi={ACCOUNT}{more}");
        for (value, method, is_allowed) in [
            (account(""), Some(Kind::Dns01), true),
            ("ca.example; accounturi=https://ca.example/acct/8".into(), None, false),
            ("ca.example; accounturi=https://CA.example/acct/7".into(), None, false),
            (account(&format!("; accounturi={ACCOUNT}")), None, false),
            ("ca.example; AccountURI=".into(), None, false),
            ("ca.example; validationmethods=dns-01".into(), Some(Kind::Dns01), true),
            ("ca.example; validationmethods=http-01,dns-01".into(), Some(Kind::Dns01), true),
            ("ca.example; validationmethods=http-01".into(), Some(Kind::Dns01), false),
            ("ca.example; validationmethods=http-01".into(), None, true),
            ("ca.example; validationmethods=".into(), Some(Kind::Http01), false),
            (
                "ca.example; validationmethods=dns-01; validationmethods=dns-01".into(),
                Some(Kind::Dns01),
                false,
            ),
            (account("; validationmethods=http-01"), Some(Kind::Http01), true),
            (account("; validationmethods=http-01"), Some(Kind::Dns01), false),
        ] {
            let refused = refusal(&[(0, "issue", &value)], "ca.example", "a.example.com", method);
            assert_eq!(refused.is_none(), is_allowed, "{value}, {method:?}: {refused:?}");
        }
    }

    #[test]
    fn one_record_that_allows_it_is_enough_and_spelling_does_not_matter() {
        let records = &[
            (0, "issue", "other.example"),
            (128, "ISSUE", "CA.Example; accounturi=https://ca.example/acct/8"),
            (0, "Issue", "ca.example."),
            (0, "issue", "Ca.exAmple"),
            (128, "contactemail", "a@example.com"),
        ];
        assert_eq!(refusal(records, "ca.EXAMPLE", "a.example.com", None), None);
    }

    #[test]
    fn the_refusal_says_which_record_and_why() {
        for (records, words) in [
            (
                &[(0, "issue", "other.example")][..],
                "at example.com stands `0 issue \"other.example\"`, which does not name the CA",
            ),
            (
                &[(128, "tbs", "x")],
                "at example.com stands `128 tbs \"x\"`, which is critical, so that no CA issues that does not know it",
            ),
            (
                &[(0, "issue", "ca.example; accounturi=x")],
                "`0 issue \"ca.example; accounturi=x\"`, which is for another account of the CA",
            ),
            (
                &[(0, "issue", "ca.example; validationmethods=http-01")],
                "which does not allow dns-01, as the issuer's solver proves",
            ),
        ] {
            let said = refusal(records, "ca.example", "a.example.com", Some(Kind::Dns01)).unwrap();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_set_that_is_endless_is_shown_in_a_few_words() {
        let long = "x".repeat(60_000);
        let records = vec![(0, "issue", long.as_str()); 100];
        let said = refusal(&records, "ca.example", "a.example.com", None).unwrap();
        assert!(said.len() < 1_000, "{} bytes", said.len());
    }
}
