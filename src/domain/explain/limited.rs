//! The words for a wait that the CA or a DNS provider has asked for.

use super::causes::{Cause, Context};
use super::text;
use crate::domain::failure::{Failure, code};
use crate::domain::throttle::{Scope, registered_domain};

/// How long the wait is, and what helps whoever cannot wait for so long.
pub(super) fn limited(failure: &Failure, context: &Context<'_>) -> Cause {
    let is_cloudflare = failure.is(code::CLOUDFLARE_RATE_LIMITED);
    let who = if is_cloudflare { "Cloudflare" } else { "The CA" };
    let until = match failure.retry_at {
        Some(at) => format!("until {}", text(at)),
        None => "for a while, without saying how long".to_owned(),
    };
    let said = format!(
        "{who} asked to be left alone {until} (rate limit or overload); the wait counts as no failed attempt."
    );
    let Some(ends) = failure.retry_at.and_then(|until| context.ends_before(until)) else {
        return Cause::new(said)
            .with("Nothing needs to be done. If it happens often, ask for fewer certificates, or put more names into one.");
    };
    let cause = Cause::new(format!("{said} {ends}"));
    if is_cloudflare {
        return cause
            .with("Store a token of another Cloudflare user in the Secret that the issuer's solver names, or choose another issuer for the certificate.");
    }
    cause
        .with(format!("Choose another issuer for the certificate, {}: it is tried at once.", elsewhere(failure.scope.as_ref())))
        .with_some(other_names(failure.scope.as_ref(), context))
        .with("If the CA allows more by now, the service's operator has it asked at once: `certwright throttles list` shows the throttle, `certwright throttles lift ID` ends it.")
}

/// Where a limit does not count.
fn elsewhere(scope: Option<&Scope>) -> &'static str {
    match scope {
        Some(Scope::Account | Scope::Name(_)) => "at another CA or with another account",
        _ => "at another CA",
    }
}

/// The names that a limit does not count, where there are some.
fn other_names(scope: Option<&Scope>, context: &Context<'_>) -> Option<String> {
    let counted: &dyn Fn(&String) -> bool = match scope? {
        Scope::ExactSet => {
            return Some(
                "Or ask for one name more or less: that set is counted for itself.".into(),
            );
        }
        Scope::RegisteredDomain(domain) => &move |name| registered_domain(name) == *domain,
        Scope::Name(known) => &move |name| name.trim_start_matches("*.") == known,
        Scope::Endpoint | Scope::Account => return None,
    };
    let (counted, others): (Vec<_>, Vec<_>) =
        context.order?.names.iter().cloned().partition(counted);
    let helps = !counted.is_empty() && !others.is_empty();
    helps.then(|| format!("Or leave out {}.", counted.join(", ")))
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::domain::certificate::{Certificate, State, Trigger};
    use crate::domain::challenge::Kind;
    use crate::domain::explain::tests::{NOW, certificate, failure, issuer, order, served};
    use crate::domain::explain::{Explanation, explain};
    use crate::domain::failure::Class;
    use crate::domain::fixtures;
    use crate::domain::order::{self, Order};

    /// What is said of a renewal that waits for so many days of the ninety for which a certificate is served.
    fn said(days: i64, code: &str, scope: Scope, state: order::State) -> Explanation {
        let until = Some(NOW + Duration::days(days));
        let why =
            Failure { scope: Some(scope), ..failure(code, Class::Throttle).not_before(until) };
        let certificate = Certificate {
            last_error: Some(why.clone()),
            ..served(State::Ordering(Trigger::Renewing))
        };
        let order = Order {
            names: vec!["app.example.com".into(), "app.example.org".into()],
            state,
            last_error: Some(why),
            next_action_at: until,
            deadline: NOW + Duration::days(95),
            ..fixtures::order(NOW)
        };
        explain(&certificate, Some(&issuer()), Some(&order), NOW)
    }

    #[test]
    fn nothing_needs_to_be_done_only_while_what_is_served_lasts() {
        let account = || Scope::Account;
        let lasts = said(89, "acme_rate_limited", account(), order::State::New);
        assert!(lasts.actions[0].starts_with("Nothing needs to be done"), "{lasts:?}");
        assert!(!lasts.summary.contains("does not last"), "{lasts:?}");

        for days in [90, 91] {
            let ends = said(days, "acme_rate_limited", account(), order::State::New);
            assert!(ends.summary.contains("What is served does not last until then."), "{ends:?}");
            let actions = ends.actions.join("\n");
            assert!(!actions.contains("Nothing needs to be done"), "{actions}");
            assert!(actions.contains("another issuer"), "{actions}");
            assert!(actions.contains("certwright throttles lift ID"), "{actions}");
        }
    }

    #[test]
    fn an_order_that_is_given_up_before_a_throttle_ends_says_so() {
        let state = order::State::Open {
            url: "https://ca.example/1".into(),
            stage: order::Stage::Processing,
        };
        let (why, order) = (failure("acme_busy", Class::Throttle), order(Kind::Dns01));
        let ends = NOW + Duration::days(1);
        let order = Order { state, deadline: ends, ..order };
        let context = Context { order: Some(&order), ..Context::default() };

        let late = limited(&why.clone().not_before(Some(ends)), &context);
        assert!(late.summary.ends_with("it is given up at 2026-11-25T12:00:00Z."), "{late:?}");
        let in_time = limited(&why.clone().not_before(Some(ends - Duration::SECOND)), &context);
        assert!(in_time.actions[0].starts_with("Nothing needs to be done"), "{in_time:?}");

        let waits = certificate(State::Ordering(Trigger::DoesNotExist));
        let (last_error, next) = (Some(why.not_before(Some(ends))), ends - Duration::MINUTE);
        let order = Order { last_error, next_action_at: Some(next), ..order };
        let next = explain(&waits, Some(&issuer()), Some(&order), NOW).next.unwrap();
        assert_eq!(next.what, "The order is looked at once more, before it is given up.");
    }

    #[test]
    fn what_helps_depends_on_what_is_limited() {
        let domain = Scope::RegisteredDomain("example.com".into());
        let elsewhere = Scope::RegisteredDomain("example.net".into());
        let name = Scope::Name("app.example.org".into());
        for (code, scope, words, never) in [
            ("acme_rate_limited", domain, "leave out app.example.com.", "another account"),
            ("acme_rate_limited", elsewhere, "at another CA:", "leave out ."),
            ("acme_rate_limited", Scope::ExactSet, "one name more or less", "another account"),
            ("acme_rate_limited", name, "leave out app.example.org.", "example.com"),
            ("acme_rate_limited", Scope::Account, "with another account", "leave out"),
            ("acme_busy", Scope::Endpoint, "at another CA:", "leave out"),
            ("cloudflare_rate_limited", Scope::Endpoint, "another Cloudflare user", "throttles"),
        ] {
            let actions = said(91, code, scope, order::State::New).actions.join("\n");
            assert!(actions.contains(words) && !actions.contains(never), "{words}: {actions}");
        }
    }
}
