//! Checks of a wanted policy, and its canonical form.

use crate::api::field;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::domain::certificate::IssuerRef;
use crate::domain::policy::{EVERY, Keys, MOST_NAMES, NameRule, Pattern, Spec};
use crate::view::policy::PolicySpec;

const MOST_NAMESPACES: usize = 100;
const MOST_RULES: usize = 500;
const MOST_ISSUERS: usize = 100;

/// What CAs take.
const RSA_SIZES: std::ops::RangeInclusive<u32> = 2048..=8192;

/// The policy's specification in canonical form. All faults are reported at once.
pub(crate) fn check(given: &PolicySpec) -> Result<Spec, ApiError> {
    let mut faults = Faults::default();
    field::name(&given.name, "/name", &mut faults);
    let namespaces = namespaces(&given.namespaces, &mut faults);
    let names = names(&given.names, &mut faults);
    issuers(&given.issuers, &mut faults);
    keys(&given.keys, &mut faults);
    if !(1..=MOST_NAMES).contains(&given.max_names) {
        faults.invalid("/maxNames", format!("is a number from 1 to {MOST_NAMES}"));
    }
    faults.refuse()?;
    Ok(Spec {
        namespaces,
        names,
        issuers: given.issuers.clone(),
        keys: given.keys.clone(),
        max_names: given.max_names,
        approval: given.approval,
    })
}

/// Refuses an empty list, and one that is too long.
fn some(pointer: &str, len: usize, most: usize, faults: &mut Faults) {
    if len == 0 {
        let detail = "names at least one: a policy allows only what it names";
        faults.add(pointer, FieldCode::Required, detail);
    }
    if len > most {
        faults.invalid(pointer, format!("there are at most {most}; make several policies"));
    }
}

/// Each once.
fn namespaces(given: &[String], faults: &mut Faults) -> Vec<String> {
    some("/namespaces", given.len(), MOST_NAMESPACES, faults);
    let mut found: Vec<String> = Vec::new();
    for (place, namespace) in given.iter().enumerate() {
        if namespace != EVERY {
            field::namespace_at(namespace, &format!("/namespaces/{place}"), faults);
        }
        if !found.contains(namespace) {
            found.push(namespace.clone());
        }
    }
    found
}

fn names(given: &[NameRule], faults: &mut Faults) -> Vec<NameRule> {
    some("/names", given.len(), MOST_RULES, faults);
    let mut found = Vec::new();
    for (place, rule) in given.iter().take(MOST_RULES).enumerate() {
        let wildcards = rule.wildcards;
        match Pattern::parse(&rule.pattern) {
            Ok(pattern) if wildcards && !pattern.can_cover_wildcards() => {
                let detail = "goes with `*.zone` and `**.zone`: this pattern covers no wildcard";
                faults.add(format!("/names/{place}/wildcards"), FieldCode::Conflicting, detail);
            }
            Ok(pattern) => found.push(NameRule { pattern: pattern.to_string(), wildcards }),
            Err(refusal) => faults.invalid(format!("/names/{place}/pattern"), refusal.to_string()),
        }
    }
    found
}

fn issuers(given: &[IssuerRef], faults: &mut Faults) {
    some("/issuers", given.len(), MOST_ISSUERS, faults);
    for (place, issuer) in given.iter().enumerate() {
        if issuer.name != EVERY {
            field::name(&issuer.name, &format!("/issuers/{place}/name"), faults);
        }
    }
}

fn keys(given: &Keys, faults: &mut Faults) {
    if given.algorithms.is_empty() {
        let detail = "names at least one; leave it out for all";
        faults.add("/keys/algorithms", FieldCode::Required, detail);
    }
    if !RSA_SIZES.contains(&given.min_rsa_size) {
        let (least, most) = (RSA_SIZES.start(), RSA_SIZES.end());
        faults.invalid("/keys/minRsaSize", format!("is a number from {least} to {most}"));
    }
}
