//! Rules for limits and retries, which issuers and certificates share.

use super::field;
use super::problem::Faults;
use crate::domain::backoff::Retry;
use crate::domain::limits::LimitsSpec;

/// Limits that can be counted with.
pub(crate) fn limits(limits: Option<&LimitsSpec>, pointer: &str, faults: &mut Faults) {
    let Some(LimitsSpec::Each(limits)) = limits else { return };
    let refused = limits.refused_requests.iter().map(|limit| ("refusedRequests", limit));
    for (name, limit) in limits.each().chain(refused) {
        if let Some(problem) = limit.problem() {
            let part = if limit.count == 0 { "count" } else { "per" };
            faults.invalid(format!("{pointer}/{name}/{part}"), problem);
        }
    }
}

/// A pause that can be waited for, and its limit.
pub(crate) fn retry(retry: Option<&Retry>, pointer: &str, faults: &mut Faults) {
    let Some(retry) = retry else { return };
    let at = |part: &str| format!("{pointer}/{part}");
    let initial = field::duration(retry.initial.as_deref(), &at("initial"), faults);
    let max = field::duration(retry.max.as_deref(), &at("max"), faults);
    for (given, part) in [(initial, "initial"), (max, "max")] {
        if given.is_some_and(|pause| pause < Retry::SHORTEST) {
            faults.invalid(at(part), "is at least `1m`: CAs count what fails");
        }
        if given.is_some_and(|pause| pause > Retry::LONGEST) {
            faults.invalid(at(part), "is at most `720h`");
        }
    }
    if initial.or(max).is_some() && retry.schedule().0 > retry.schedule().1 {
        faults.invalid(at("max"), "is shorter than the first pause (`initial`, by default `1h`)");
    }
}
