//! Name policies: whether a certificate is still allowed, and what happens where it is not.

use time::OffsetDateTime;

use super::{Certificate, State, Told, Transition};
use crate::domain::event::{Event, Resource};
use crate::domain::event_type::EventType;
use crate::domain::failure::{Failure, code};
use crate::domain::policy::{
    AdmittedBy, Approval, Judgement, Policies, Verdict, WantedKey, Wish, withheld,
};

impl Certificate {
    /// Judges it anew: by what right it may be issued now, or why not. The policy that it was admitted by stays the
    /// one that is named, as long as that allows it and no other is milder about approval.
    pub fn judged(&self, policies: &Policies, key: WantedKey) -> Result<Judgement, Failure> {
        let AdmittedBy::Policy(present) = &self.admitted_by else {
            // No other right comes from a policy, and so nobody is asked.
            return Ok(Judgement { by: self.admitted_by.clone(), approval: Approval::Auto });
        };
        let wish = Wish::of(&self.spec, key);
        match policies.judge(&wish) {
            Verdict::Allowed { policy, approval } => {
                let stays = policies.allows(present, &wish) == Some(approval);
                let policy = if stays { present.clone() } else { policy };
                Ok(Judgement { by: AdmittedBy::Policy(policy), approval })
            }
            Verdict::Refused(names) => Err(withheld(present, &names)),
        }
    }

    /// By this right from now on.
    #[must_use]
    pub fn admitted(self, admitted_by: AdmittedBy) -> Self {
        Self { admitted_by, ..self }
    }

    /// What a judgement changes that was made because policies have changed; `None` if nothing. What is on its way is
    /// judged where it goes on: before its order is placed, and before that is finalized.
    pub fn reviewed(
        self,
        judged: Result<Judgement, Failure>,
        now: OffsetDateTime,
    ) -> Option<Transition> {
        if self.deleting_since.is_some() {
            return None;
        }
        if let State::AwaitingApproval(_) = self.state {
            let waits_on = judged.is_ok_and(|judged| self.needs_approval(judged.approval));
            let look_now = Self { next_action_at: now, ..self };
            return (!waits_on).then(|| Transition::silent(look_now, now));
        }
        match (judged.map(|judged| judged.by), self.state) {
            (Err(failure), State::Idle | State::Backoff) => Some(self.withhold(failure, now)),
            (Ok(by), State::Blocked) if self.is_withheld() => Some(self.allow_again(by, now)),
            (Ok(by), _) if by != self.admitted_by => {
                Some(Transition::silent(Self { admitted_by: by, ..self }, now))
            }
            _ => None,
        }
    }

    /// Whether it is blocked because no policy allows it.
    fn is_withheld(&self) -> bool {
        self.last_error.as_ref().is_some_and(|error| error.is(code::NAME_NOT_ALLOWED))
    }

    /// Nothing is issued any more; what is served stays served. One that was at rest fails when its renewal is due.
    fn withhold(self, failure: Failure, now: OffsetDateTime) -> Transition {
        let about = Resource::Certificate(self.id);
        let due = self.idle_until().filter(|_| self.state == State::Idle);
        let mut next = self.become_state(State::Blocked, now);
        next.next_action_at = due.unwrap_or(next.next_action_at);
        let event_types = next.tell_failure();
        let message = format!("The certificate is not renewed: {failure}");
        next.last_error = Some(failure);
        let event = Event::warning(about, "NameNotAllowed", message);
        Transition::silent(next, now).with(vec![event]).telling(event_types)
    }

    /// A policy allows it again. One that was at rest has not failed since, and rests again: nothing is missing.
    fn allow_again(mut self, by: AdmittedBy, now: OffsetDateTime) -> Transition {
        let about = Resource::Certificate(self.id);
        self.admitted_by = by;
        let Some(due) = self.idle_until().filter(|_| self.failed_attempts == 0) else {
            let trigger = self.wanted_because();
            return self.trigger(trigger, now);
        };
        let mut next = self.become_state(State::Idle, now);
        let was_told = std::mem::take(&mut next.told) != Told::default();
        next.last_error = None;
        next.next_action_at = due;
        let event = Event::normal(about, "NameAllowed", "A policy allows the certificate again");
        let event_types = if was_told { vec![EventType::CertificateRecovered] } else { vec![] };
        Transition::silent(next, now).with(vec![event]).telling(event_types)
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::tests::{NOW, served, wanted};
    use super::*;
    use crate::domain::backoff::Jitter;
    use crate::domain::certificate::{Phase, Trigger};
    use crate::domain::order::Outcome;

    fn by(policy: &str) -> AdmittedBy {
        AdmittedBy::Policy(policy.to_owned())
    }

    fn judged(by: AdmittedBy) -> Judgement {
        Judgement { by, approval: Approval::Auto }
    }

    fn refused() -> Failure {
        withheld("team", &[])
    }

    #[test]
    fn what_was_at_rest_is_blocked_until_a_policy_allows_it_and_is_not_issued_anew_then() {
        let rests = Certificate { admitted_by: by("team"), ..served() };
        let renewal = rests.next_action_at;

        let blocked = rests.clone().reviewed(Err(refused()), NOW).unwrap();
        assert_eq!(blocked.certificate.phase(NOW), Phase::Blocked);
        assert_eq!(blocked.event_types, [EventType::CertificateBlocked]);
        assert_eq!(blocked.certificate.next_action_at, renewal);
        let shown = blocked.certificate.last_error.clone().unwrap();
        assert!(shown.is(code::NAME_NOT_ALLOWED) && shown.detail.contains("`team`"), "{shown}");
        let again = blocked.certificate.clone().reviewed(Err(refused()), NOW);
        assert_eq!(again, None, "it is told once");

        let allowed = blocked.certificate.reviewed(Ok(judged(by("other"))), NOW).unwrap();
        assert_eq!(allowed.event_types, [EventType::CertificateRecovered]);
        let state_since = rests.state_since.max(NOW);
        let as_before = Certificate { admitted_by: by("other"), state_since, ..rests };
        assert_eq!(allowed.certificate, as_before);
    }

    #[test]
    fn what_could_not_be_renewed_is_tried_at_once_when_a_policy_allows_it() {
        let due = served().wake(NOW + Duration::days(80)).certificate;
        let outcome = Outcome::Blocked(refused());
        let blocked = due.order_failed(outcome, 0, NOW, Jitter::NONE).certificate;

        let allowed = blocked.reviewed(Ok(judged(by("team"))), NOW).unwrap().certificate;

        assert_eq!(allowed.state, State::Triggered(Trigger::Renewing));
        assert_eq!(allowed.next_action_at, NOW);
    }

    #[test]
    fn only_what_rests_is_blocked_by_a_review_and_only_what_policies_block_is_freed() {
        let failed = |failure| {
            let outcome = Outcome::Blocked(failure);
            wanted().order_failed(outcome, 0, NOW, Jitter::NONE).certificate
        };
        let paused = {
            let outcome = Outcome::Failed(Failure::of(code::ACME_DNS, ""));
            wanted().order_failed(outcome, 0, NOW, Jitter::NONE).certificate
        };
        let deleting = served().delete_once_revoked(NOW, NOW).certificate;
        let other = failed(Failure::of(code::NO_SOLVER, ""));
        let kept = || Ok(judged(wanted().admitted_by));
        let cases = [
            ("under way", wanted(), Err(refused()), None),
            ("paused", paused, Err(refused()), Some(State::Blocked)),
            ("blocked for it", failed(refused()), Err(refused()), None),
            ("blocked otherwise", other.clone(), Err(refused()), None),
            ("blocked otherwise", other, kept(), None),
            ("to be deleted", deleting, Err(refused()), None),
            ("at rest", served(), kept(), None),
            ("by another", served(), Ok(judged(by("other"))), Some(State::Idle)),
        ];
        for (what, certificate, judgement, becomes) in cases {
            let next = certificate.reviewed(judgement, NOW).map(|next| next.certificate.state);
            assert_eq!(next, becomes, "{what}");
        }
    }
}
