//! Certificates that a change of their issuer leaves without a solver.

use crate::api::problem::ApiError;
use crate::domain::issuer::{Issuer, Kind};
use crate::domain::scope::Scope;
use crate::domain::selection::unsolved;
use crate::storage::certificates::{self, Wanted};
use crate::storage::{Page, Read};

/// Certificates that are looked at for one issuer.
const MOST: usize = 2_000;
const PAGE: u32 = 200;
/// Certificates that are named.
const MOST_NAMED: usize = 5;

/// A sentence about the certificates that the issuer, as it is now, has no solver for; none if it has one for all.
pub(super) async fn warning(read: &mut Read, issuer: &Issuer) -> Result<Option<String>, ApiError> {
    let wanted = Wanted {
        namespace: (issuer.kind == Kind::Issuer).then(|| issuer.namespace.clone()),
        issuer: Some((Some(issuer.kind), issuer.name.clone())),
        ..Wanted::default()
    };
    let (mut looked_at, mut found) = (0, Vec::new());
    let mut page = Page::first(PAGE);
    while looked_at < MOST {
        let rows = certificates::list(read, &Scope::Everything, &wanted, page).await?.rows;
        let Some(last) = rows.last() else { break };
        (looked_at, page.after) = (looked_at + rows.len(), Some(last.id.0));
        for one in &rows {
            let names = unsolved(&issuer.acme.solvers, &one.spec, &one.namespace, &one.labels);
            if let Some(name) = names.first() {
                found.push(format!("{}/{} ({name})", one.namespace, one.name));
            }
        }
    }
    Ok(sentence(&found))
}

fn sentence(found: &[String]) -> Option<String> {
    let named = found.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match found.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let words =
        format!("spec.acme.solvers: no solver is left for {named}{more}; they will not be renewed");
    (!found.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_certificates_are_named_and_the_rest_is_counted() {
        let found =
            |count: usize| (0..count).map(|n| format!("default/c{n} (x)")).collect::<Vec<_>>();
        assert_eq!(sentence(&found(0)), None);
        let words = sentence(&found(1)).unwrap();
        assert!(words.contains("left for default/c0 (x); they"), "{words}");
        let words = sentence(&found(7)).unwrap();
        assert!(words.contains("default/c4 (x) and 2 more; they"), "{words}");
    }
}
