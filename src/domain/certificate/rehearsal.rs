//! Rehearsals: looks whether a DNS provider lets a proof be written, or CAA records let the CA issue, while a
//! certificate is blocked because they did not.
//!
//! Nobody tells us when a token is given a permission, or a zone or record is added. A whole attempt would find out, and
//! costs an order of the CA's limits; writing a record and removing it costs two calls of the provider's, and looking up
//! CAA records a few questions.

use time::{Duration, OffsetDateTime};

use super::attempt::PROBE_EVERY;
use super::{Certificate, State, Transition};
use crate::domain::backoff::{self, Jitter};
use crate::domain::failure::{Class, Failure, code};

/// The longest pause between two rehearsals.
const SELDOM: Duration = Duration::minutes(30);

impl Certificate {
    /// Whether the look that is due is a rehearsal, and not an attempt.
    pub fn is_to_rehearse(&self, now: OffsetDateTime) -> bool {
        self.state == State::Blocked
            && self.deleting_since.is_none()
            && self.last_error.as_ref().is_some_and(is_rehearsed)
            && now < self.state_since + PROBE_EVERY
    }

    /// Takes in what the look found. A new attempt begins once nothing is in its way.
    #[must_use]
    pub fn rehearsed(
        mut self,
        said: Result<(), Failure>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let Err(failure) = said else { return self.attempt_due(now) };
        let asked = failure.retry_at;
        // What passes by itself says nothing about why it is blocked.
        if failure.class == Class::Blocked {
            self.last_error = Some(failure);
        }
        let at = now + self.rehearsal_pause(now, jitter);
        let at = asked.map_or(at, |asked| asked.max(at));
        self.next_action_at = at.min(self.state_since + PROBE_EVERY).max(now);
        Transition::silent(self, now)
    }

    /// Half of the time that it has been blocked, within half an hour, and twice as long at least after each attempt
    /// that a rehearsal has led to and that failed all the same.
    pub(super) fn rehearsal_pause(&self, now: OffsetDateTime, jitter: Jitter) -> Duration {
        let least = backoff::rehearsal(self.failed_attempts.saturating_sub(1));
        let blocked_for = now - self.state_since;
        let pause = blocked_for.checked_div(2).unwrap_or(SELDOM).min(SELDOM).max(least);
        jitter.stretch(pause, 0.1)
    }
}

/// Whether a look of our own finds out that the cause is mended.
pub(super) fn is_rehearsed(failure: &Failure) -> bool {
    is_the_providers(failure) || failure.is(code::CAA_FORBIDS)
}

/// Whether a provider was asked for the record, or for where it has to stand, and refuses it until somebody changes
/// something there.
pub fn is_the_providers(failure: &Failure) -> bool {
    matches!(
        failure.known_code(),
        Some(
            code::CLOUDFLARE_PERMISSION_DENIED
                | code::CLOUDFLARE_ZONE_NOT_FOUND
                | code::CLOUDFLARE_INVALID_TOKEN
                | code::CLOUDFLARE_NAME_TAKEN
                | code::DNS_CNAME_LOOP
                | code::DNS_CNAME_OUTSIDE
        )
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, served};
    use super::*;
    use crate::domain::failure::Code;
    use crate::domain::order::Outcome;

    fn blocked(code: Code) -> Certificate {
        let outcome = Outcome::Blocked(Failure::of(code, "It said no."));
        served().order_failed(outcome, 0, NOW, Jitter::NONE).certificate
    }

    fn refused(certificate: Certificate, at: OffsetDateTime) -> Certificate {
        let failure = Failure::of(code::CLOUDFLARE_PERMISSION_DENIED, "It still says no.");
        certificate.rehearsed(Err(failure), at, Jitter::NONE).certificate
    }

    #[test]
    fn what_the_provider_refuses_is_rehearsed_within_minutes_and_nothing_else_is() {
        for (code, is_to_rehearse, pause) in [
            (code::CLOUDFLARE_PERMISSION_DENIED, true, Duration::minutes(5)),
            (code::CLOUDFLARE_ZONE_NOT_FOUND, true, Duration::minutes(5)),
            (code::DNS_CNAME_LOOP, true, Duration::minutes(5)),
            (code::DNS_CNAME_OUTSIDE, true, Duration::minutes(5)),
            (code::CAA_FORBIDS, true, Duration::minutes(5)),
            (code::ACME_REJECTED_IDENTIFIER, false, PROBE_EVERY),
            (code::SECRET_NOT_FOUND, false, PROBE_EVERY),
        ] {
            let blocked = blocked(code);
            assert_eq!(blocked.next_action_at, NOW + pause, "{code:?}");
            assert_eq!(blocked.is_to_rehearse(NOW + pause), is_to_rehearse, "{code:?}");
        }
    }

    #[test]
    fn a_day_of_refusals_costs_the_provider_few_calls_and_ends_in_an_attempt() {
        let mut certificate = blocked(code::CLOUDFLARE_PERMISSION_DENIED);
        let mut calls = 0;
        while certificate.is_to_rehearse(certificate.next_action_at) {
            let at = certificate.next_action_at;
            certificate = refused(certificate, at);
            let pause = certificate.next_action_at - at;
            assert!(pause <= SELDOM, "{pause}");
            calls += 1;
        }
        assert!((48..60).contains(&calls), "{calls}");
        assert_eq!(certificate.next_action_at, NOW + PROBE_EVERY);
        let tried = certificate.wake(NOW + PROBE_EVERY).certificate;
        assert!(matches!(tried.state, State::Triggered(_)), "{:?}", tried.state);
    }

    #[test]
    fn an_attempt_begins_once_the_provider_takes_the_record() {
        let certificate = blocked(code::CLOUDFLARE_ZONE_NOT_FOUND);
        let at = certificate.next_action_at;

        let tried = certificate.rehearsed(Ok(()), at, Jitter::NONE).certificate;

        assert!(matches!(tried.state, State::Triggered(_)), "{:?}", tried.state);
        assert_eq!(tried.next_action_at, at);
    }

    #[test]
    fn rehearsals_that_promise_too_much_do_not_spend_the_cas_orders() {
        let mut certificate = served();
        let mut at = NOW;
        let mut orders = 0;
        while at < NOW + Duration::days(2) {
            let failure = Failure::of(code::CLOUDFLARE_PERMISSION_DENIED, "Not this name.");
            let blocked = certificate.order_failed(Outcome::Blocked(failure), 0, at, Jitter::NONE);
            orders += 1;
            at = blocked.certificate.next_action_at;
            certificate = blocked.certificate.rehearsed(Ok(()), at, Jitter::NONE).certificate;
        }
        assert!(orders <= 11, "{orders} orders in two days");
    }

    #[test]
    fn what_passes_by_itself_does_not_replace_the_reason() {
        let certificate = blocked(code::CLOUDFLARE_PERMISSION_DENIED);
        let at = certificate.next_action_at;
        let later = at + Duration::minutes(20);
        let busy = Failure::of(code::CLOUDFLARE_RATE_LIMITED, "Later.").not_before(Some(later));

        let waits = certificate.rehearsed(Err(busy), at, Jitter::NONE).certificate;

        assert!(waits.last_error.unwrap().is(code::CLOUDFLARE_PERMISSION_DENIED));
        assert_eq!(waits.next_action_at, later);
    }
}
