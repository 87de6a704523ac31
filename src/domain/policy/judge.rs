//! Judging a wanted certificate by the policies of its namespace.

use super::pattern::Pattern;
use super::tree::{Covering, Tree};
use super::{Approval, EVERY, HeldBy, Policy, Spec, WantedKey};
use crate::domain::certificate::{IssuerRef, KeyAlgorithm, Spec as CertificateSpec};

/// The policies of one namespace, ready to judge by.
#[derive(Debug)]
pub struct Policies {
    namespace: String,
    /// By name.
    all: Vec<Rules>,
    tree: Tree,
}

/// A policy without its patterns, which are in the tree.
#[derive(Debug)]
struct Rules {
    name: String,
    spec: Spec,
}

/// What is judged: a certificate that is wanted.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// DNS names and addresses in canonical form.
    pub names: Vec<&'a str>,
    pub issuer: &'a IssuerRef,
    pub key: WantedKey,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This policy allows the certificate as a whole.
    Allowed { policy: String, approval: Approval },
    /// None does; each name has a reason, or is allowed by itself.
    Refused(Vec<NameVerdict>),
}

/// The judgement of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameVerdict {
    pub name: String,
    /// The policy that would allow it if it were the only name.
    pub policy: Option<String>,
    /// Why it is refused, or cannot be had together with the others. The rest of a sentence about the name.
    pub reason: String,
}

impl<'a> Wish<'a> {
    /// The wish that a certificate's specification is.
    pub fn of(spec: &'a CertificateSpec, key: WantedKey) -> Self {
        let names = spec.dns_names.iter().chain(&spec.ip_addresses).map(String::as_str).collect();
        Self { names, issuer: &spec.issuer_ref, key }
    }
}

impl Policies {
    /// The policies of a namespace. Policies for other namespaces are left out, and so are patterns that cannot be
    /// read: they allow nothing.
    pub fn of(namespace: &str, mut policies: Vec<Policy>) -> Self {
        policies.retain(|policy| policy.spec.covers(namespace));
        policies.sort_by(|one, other| one.name.cmp(&other.name));
        let mut tree = Tree::default();
        let mut all = Vec::with_capacity(policies.len());
        for (place, Policy { name, mut spec, .. }) in policies.into_iter().enumerate() {
            for rule in std::mem::take(&mut spec.names) {
                if let Ok(pattern) = Pattern::parse(&rule.pattern) {
                    tree.add(place, &pattern, rule.wildcards);
                }
            }
            all.push(Rules { name, spec });
        }
        Self { namespace: namespace.to_owned(), all, tree }
    }

    /// Judges a wish. Where several policies allow it, one that asks nobody goes first, one that asks at renewals last;
    /// then the first by name.
    pub fn judge(&self, wish: &Wish<'_>) -> Verdict {
        let covering: Vec<Covering> =
            wish.names.iter().map(|name| self.tree.covering(name)).collect();
        let allowing = self.whole(&covering).filter(|rules| rules.objection(wish).is_none());
        if let Some(rules) = allowing.min_by_key(|rules| rules.spec.approval) {
            return rules.allow();
        }
        let names = wish.names.iter().zip(&covering);
        Verdict::Refused(names.map(|(name, covering)| self.refusal(name, covering, wish)).collect())
    }

    /// Whether this policy allows a wish by itself, and whether somebody has to approve it then.
    pub fn allows(&self, policy: &str, wish: &Wish<'_>) -> Option<Approval> {
        let place = self.all.binary_search_by(|rules| rules.name.as_str().cmp(policy)).ok()?;
        let covers = |name: &str| self.tree.covering(name).policies.binary_search(&place).is_ok();
        let rules = self.all.get(place).filter(|rules| rules.objection(wish).is_none())?;
        let covers_all = !wish.names.is_empty() && wish.names.iter().all(|name| covers(name));
        covers_all.then_some(rules.spec.approval)
    }

    /// Policies whose patterns cover all names.
    fn whole<'s>(&'s self, covering: &'s [Covering]) -> impl Iterator<Item = &'s Rules> {
        let (first, rest) = match covering {
            [first, rest @ ..] => (first.policies.as_slice(), rest),
            [] => (&[][..], covering),
        };
        let covers_all =
            |policy: &&usize| rest.iter().all(|one| one.policies.binary_search(policy).is_ok());
        first.iter().filter(covers_all).filter_map(|policy| self.all.get(*policy))
    }

    fn refusal(&self, name: &str, covering: &Covering, wish: &Wish<'_>) -> NameVerdict {
        let rules = |places: &[usize]| -> Vec<&Rules> {
            places.iter().filter_map(|place| self.all.get(*place)).collect()
        };
        let alone = Wish { names: vec![name], ..wish.clone() };
        let allowing = rules(&covering.policies);
        let by_itself = allowing.iter().find(|rules| rules.objection(&alone).is_none());
        let reason = match (by_itself, allowing.first(), rules(&covering.but_for_wildcards).first())
        {
            (Some(rules), ..) => match rules.objection(wish) {
                Some(objection) => {
                    format!("is allowed by the policy `{}`, but {objection}", rules.name)
                }
                None => format!(
                    "is allowed by the policy `{}`, which does not allow all the other names: one policy has to; ask for several certificates",
                    rules.name
                ),
            },
            (None, Some(rules), _) => {
                let objection = rules.objection(&alone).unwrap_or_default();
                format!("is allowed by the policy `{}`, but {objection}", rules.name)
            }
            (None, None, Some(rules)) => {
                format!(
                    "is a wildcard: the policy `{}` allows names there, but no wildcards",
                    rules.name
                )
            }
            (None, None, None) if self.all.is_empty() => format!(
                "is not allowed: the namespace `{}` has no policy, and so no names; an administrator can create one (POST /policies)",
                self.namespace
            ),
            (None, None, None) => format!(
                "is not allowed: no policy of the namespace `{}` covers it; an administrator can add it to one",
                self.namespace
            ),
        };
        let policy = by_itself.map(|rules| rules.name.clone());
        NameVerdict { name: name.to_owned(), policy, reason }
    }
}

impl Rules {
    fn allow(&self) -> Verdict {
        Verdict::Allowed { policy: self.name.clone(), approval: self.spec.approval }
    }

    /// Why it does not allow a certificate whose names it covers. The rest of a sentence.
    fn objection(&self, wish: &Wish<'_>) -> Option<String> {
        let Spec { issuers, keys, max_names, .. } = &self.spec;
        let fits = |known: &&IssuerRef| {
            known.kind == wish.issuer.kind
                && (known.name == EVERY || known.name == wish.issuer.name)
        };
        if issuers.iter().find(fits).is_none() {
            let listed: Vec<_> =
                issuers.iter().map(|one| format!("{} `{}`", one.kind.as_str(), one.name)).collect();
            return Some(format!("only from {}", listed.join(", ")));
        }
        if keys.held_by == HeldBy::Client && !wish.key.held_by_client {
            return Some("only with a key that the client holds: give a `csr`".to_owned());
        }
        let is_listed = wish.key.algorithm.is_some_and(|one| keys.algorithms.contains(&one));
        if !is_listed {
            let listed: Vec<_> = keys.algorithms.iter().map(|one| one.as_str()).collect();
            return Some(format!("only with a key of the kind {}", listed.join(" or ")));
        }
        if wish.key.algorithm == Some(KeyAlgorithm::Rsa) && wish.key.bits < keys.min_rsa_size {
            return Some(format!("an RSA key has to have at least {} bits", keys.min_rsa_size));
        }
        if wish.names.len() > usize::try_from(*max_names).unwrap_or(usize::MAX) {
            return Some(format!("a certificate may have at most {max_names} of its names"));
        }
        None
    }
}
