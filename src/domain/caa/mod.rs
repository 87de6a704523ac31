//! CAA records (RFC 8659): whether they let a CA issue, and which would.

mod judge;
mod property;

pub use judge::{Applicant, RelevantSet};
pub use property::Record;

use super::failure::{Failure, Subproblem, code};

/// Records that are printed at most; they show how the others look.
const MOST_RECORDS: usize = 3;

/// Why the CAA records of a name are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody says; in words.
    Silent(String),
    /// DNSSEC validation fails for this name.
    Bogus(String),
}

/// What is told of a name that is bogus.
pub fn dnssec_fails(name: &str) -> String {
    format!(
        "DNSSEC validation fails for {name}: this service's resolvers answer SERVFAIL, but do answer when they are not to validate. CAs validate, and do not issue then. Look at the chain of trust, such as with https://dnsviz.net or `delv {name}`."
    )
}

/// Names that are told at most with the reason why the CA must not issue for them.
const MOST_NAMES: usize = 3;

/// The failure of an order for these names that is not placed: for each name the reason why the CA must not issue.
pub fn forbidden(refused: &[(String, String)], applicant: &Applicant<'_>) -> Failure {
    let names: Vec<_> = refused.iter().map(|(name, _)| name.clone()).collect();
    let told = refused.iter().take(MOST_NAMES).map(|(name, why)| format!("For {name}: {why}."));
    let more = refused.len().saturating_sub(MOST_NAMES);
    let more = (more > 0).then(|| format!("And {more} more names."));
    let subproblems = refused.iter().take(MOST_NAMES).map(|(name, why)| Subproblem {
        identifier: Some(name.clone()),
        acme_type: None,
        detail: format!("CAA: {why}"),
    });
    let failure = Failure {
        subproblems: subproblems.collect(),
        ..Failure::of(code::CAA_FORBIDS, told.chain(more).collect::<Vec<_>>().join(" "))
    };
    let records = allowing(&failure, &names, applicant.identities, applicant.account);
    Failure { detail: format!("{} {records}", failure.detail), ..failure }
}

/// The records that would allow the CA, held to one account by its URI (RFC 8657), as a sentence.
///
/// `names` are those of the order, `identities` the CA's names for itself, from its directory.
pub fn allowing(
    failure: &Failure,
    names: &[String],
    identities: &[String],
    account: &str,
) -> String {
    let is_plain =
        |text: &str| text.bytes().all(|c| c.is_ascii_graphic() && c != b'"' && c != b';');
    let identity = identities.iter().map(String::as_str).find(|it| !it.is_empty() && is_plain(it));
    let blamed: Vec<_> =
        failure.subproblems.iter().filter_map(|part| part.identifier.as_deref()).collect();
    let is_concerned = |name: &&String| {
        blamed.is_empty() || blamed.contains(&name.as_str()) || blamed.contains(&base(name))
    };
    let account = if is_plain(account) { account } else { "" };
    let mut records: Vec<_> = names
        .iter()
        .filter(is_concerned)
        .map(|name| {
            let tag = if name.starts_with("*.") { "issuewild" } else { "issue" };
            let identity = identity.unwrap_or("CA-DOMAIN");
            format!("`{}. CAA 0 {tag} \"{identity}; accounturi={account}\"`", base(name))
        })
        .collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::{Subproblem, code};

    const ACCOUNT: &str = "https://ca.example/acct/7";

    #[test]
    fn the_record_names_the_ca_and_the_account() {
        let names = names(&["www.example.com", "*.example.org"]);

        let said = allowing(&failure(&[]), &names, &self::names(&["ca.example"]), ACCOUNT);

        let record =
            r#"`www.example.com. CAA 0 issue "ca.example; accounturi=https://ca.example/acct/7"`"#;
        assert!(said.contains(record), "{said}");
        assert!(said.contains(r#"`example.org. CAA 0 issuewild "ca.example;"#), "{said}");
    }

    #[test]
    fn only_the_names_that_the_ca_complains_about_get_records() {
        let names = names(&["a.example.com", "*.b.example.com"]);

        let said =
            allowing(&failure(&["b.example.com"]), &names, &self::names(&["ca.example"]), ACCOUNT);

        assert!(said.contains("`b.example.com. CAA 0 issuewild"), "{said}");
        assert!(!said.contains("a.example.com"), "{said}");
    }

    #[test]
    fn a_ca_that_does_not_name_itself_is_to_be_looked_up() {
        for identities in [vec![], names(&["", "ca.example\"; 0 issue \"evil.example", "a\nb"])] {
            let said = allowing(&failure(&[]), &names(&["a.example"]), &identities, ACCOUNT);

            assert!(said.contains("CA-DOMAIN; accounturi=https://ca.example/acct/7"), "{said}");
            assert!(said.contains("documentation") && !said.contains("evil"), "{said}");
        }
    }

    #[test]
    fn many_names_are_told_by_a_few() {
        let many: Vec<_> = (0..100).map(|n| format!("n{n}.example.com")).collect();

        let said = allowing(&failure(&[]), &many, &names(&["ca.example"]), ACCOUNT);

        assert_eq!(said.matches("CAA 0").count(), MOST_RECORDS, "{said}");
        assert!(said.contains("and so on"), "{said}");
    }

    #[test]
    fn a_failure_says_for_which_names_why_and_what_would_allow_it() {
        let identities = names(&["ca.example"]);
        let applicant = Applicant { identities: &identities, account: ACCOUNT, method: None };
        let why = |name: &str| (name.to_owned(), "at example.com stands `…`".to_owned());
        let refused: Vec<_> = ["a", "*.b", "c", "d", "e"].map(why).into();

        let failure = forbidden(&refused, &applicant);

        assert!(failure.is(code::CAA_FORBIDS));
        for words in [
            "For a: at example.com stands `…`. For *.b: ",
            "And 2 more names.",
            r#"`a. CAA 0 issue "ca.example; accounturi=https://ca.example/acct/7"`"#,
            r#"`b. CAA 0 issuewild "ca.example;"#,
        ] {
            assert!(failure.detail.contains(words), "{words}: {}", failure.detail);
        }
        assert_eq!(failure.subproblems.len(), MOST_NAMES);
    }

    fn failure(blamed: &[&str]) -> Failure {
        let part = |name: &&str| Subproblem {
            identifier: Some((*name).to_owned()),
            acme_type: None,
            detail: String::new(),
        };
        let subproblems = blamed.iter().map(part).collect();
        Failure { subproblems, ..Failure::of(code::ACME_CAA, "no") }
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
