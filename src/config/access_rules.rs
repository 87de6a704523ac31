//! Rules by which the claims of a credential become a role and namespaces, as tables.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::access_rule::{Namespaces, PLACEHOLDER, Rule, check_placeholder};
use crate::domain::role::Role;
use crate::domain::scope::is_namespace;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    #[serde(rename = "match")]
    claims: BTreeMap<String, String>,
    role: Role,
    namespaces: Option<Vec<String>>,
    namespace_claim: Option<String>,
}

/// The rules, if they make sense; `usual` is a claim that every credential has.
pub(super) fn check(rules: Vec<RuleTable>, usual: &str) -> Result<Vec<Rule>, String> {
    let check = |(number, rule): (usize, RuleTable)| {
        rule.check(usual).map_err(|problem| format!("rule {number}: {problem}"))
    };
    (1..).zip(rules).map(check).collect()
}

impl RuleTable {
    fn check(self, usual: &str) -> Result<Rule, String> {
        if self.claims.is_empty() {
            return Err(format!(
                "`match` names no claim; a rule for everybody is `match = {{{usual} = \"*\"}}`"
            ));
        }
        for (claim, glob) in &self.claims {
            check_placeholder(glob).map_err(|problem| format!("`{claim}`: {problem}"))?;
        }
        let with_placeholder: Vec<_> =
            self.claims.iter().filter(|(_, glob)| glob.contains(PLACEHOLDER)).collect();
        let namespaces = match (self.namespaces, self.namespace_claim, &with_placeholder[..]) {
            (Some(names), None, []) if names == ["*"] => Namespaces::All,
            (Some(names), None, []) => {
                if names.is_empty() || !names.iter().all(|name| is_namespace(name)) {
                    let expected = "expected names of namespaces, or `[\"*\"]` for all of them";
                    return Err(format!("`namespaces`: {expected}"));
                }
                Namespaces::These(names)
            }
            (None, Some(claim), []) if !claim.is_empty() => Namespaces::Claim(claim),
            (None, None, [(claim, _)]) => Namespaces::Part((*claim).clone()),
            _ => {
                let expected = "expected either `namespaces`, which is `[\"*\"]` for all of them, or `namespace_claim`, or `{namespace}` in one claim of `match`";
                return Err(expected.to_owned());
            }
        };
        Ok(Rule { claims: self.claims.into_iter().collect(), role: self.role, namespaces })
    }
}
