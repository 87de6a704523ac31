//! The end of an issued certificate: revocation and deletion.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Certificate, RotationPolicy, State, Transition, Trigger};
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::Failure;
use crate::domain::revocation::{self, Reason, Revocation};

/// A revocation, requested or done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RevocationView)]
pub struct Revoked {
    /// The revision.
    pub revision: i64,
    /// The reason.
    pub reason: Reason,
    /// Time of the request.
    #[serde(with = "time::serde::rfc3339")]
    pub requested_at: OffsetDateTime,
    /// Time at which the CA had revoked it; `null` while it has not.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// The error of the last try.
    pub last_error: Option<Failure>,
}

impl Certificate {
    /// Whether the current revision is revoked.
    pub fn is_revoked(&self) -> bool {
        self.of_current().is_some_and(|revoked| revoked.revoked_at.is_some())
    }

    /// Whether somebody else may have the key of what is served: it must not be used again.
    pub fn key_is_compromised(&self) -> bool {
        self.of_current().is_some_and(|revoked| revoked.reason == Reason::KeyCompromise)
    }

    /// Whether a new request has the key of the one before.
    pub fn keeps_its_key(&self) -> bool {
        self.spec.csr.is_some() || self.spec.private_key.rotation_policy == RotationPolicy::Never
    }

    /// A worker may be at it, and what is saved now takes its lease away: the row then shows when that
    /// would have run out. What is due must be due for the next one.
    fn look_again(&mut self, now: OffsetDateTime) {
        match self.state {
            State::Triggered(_) | State::AwaitingIssuer(_) | State::AwaitingApproval(_) => {
                self.next_action_at = now;
            }
            State::Idle if self.deleting_since.is_none() => {
                self.next_action_at = self.idle_until().unwrap_or(now);
            }
            State::Idle | State::Ordering(_) | State::Backoff | State::Blocked => {}
        }
    }

    fn of_current(&self) -> Option<&Revoked> {
        let revision = self.current.as_ref()?.revision;
        self.revocation.as_ref().filter(|revoked| revoked.revision == revision)
    }

    /// A client wants a revision to be revoked.
    #[must_use]
    pub fn revocation_wanted(
        mut self,
        revision: i64,
        reason: Reason,
        now: OffsetDateTime,
    ) -> Transition {
        // The revocation of the served revision takes precedence over those of its predecessors.
        let is_current = self.current.as_ref().is_some_and(|issued| issued.revision == revision);
        if is_current || self.of_current().is_none() {
            self.revocation = Some(Revoked {
                revision,
                reason,
                requested_at: now,
                revoked_at: None,
                last_error: None,
            });
        }
        self.look_again(now);
        let message =
            format!("Revocation of revision {revision} was requested ({})", reason.as_str());
        let event = Event::normal(self.id, "RevocationRequested", message);
        Transition::silent(self, now).with(vec![event])
    }

    /// Takes in the result of a revocation. A revoked certificate that stays managed is issued anew.
    #[must_use]
    pub fn revocation_progressed(
        mut self,
        revocation: &Revocation,
        now: OffsetDateTime,
    ) -> Transition {
        let revision = revocation.revision;
        let is_done = revocation.state == revocation::State::Done;
        let mut news = is_done || revocation.state == revocation::State::Failed;
        if let Some(shown) = self.revocation.as_mut().filter(|shown| shown.revision == revision) {
            let code = |failure: &Option<Failure>| failure.as_ref().map(|it| it.code.clone());
            news |= code(&shown.last_error) != code(&revocation.last_error);
            shown.last_error.clone_from(&revocation.last_error);
            shown.revoked_at = is_done.then_some(now);
        }
        let why = revocation.last_error.as_ref().map(Failure::to_string).unwrap_or_default();
        let event = match revocation.state {
            revocation::State::Done => Event::normal(
                self.id,
                "Revoked",
                format!("Revision {revision} is revoked ({})", revocation.reason.as_str()),
            ),
            revocation::State::Pending => Event::warning(
                self.id,
                "RevocationDelayed",
                format!("Revision {revision} is not revoked yet; it will be tried again: {why}"),
            ),
            revocation::State::Failed => Event::warning(
                self.id,
                "RevocationFailed",
                format!("Revision {revision} was not revoked, and is not tried again: {why}"),
            ),
        };
        let events = if news { vec![event] } else { vec![] };
        self.look_again(now);
        let anew = is_done
            && self.deleting_since.is_none()
            && self.current.as_ref().is_some_and(|issued| issued.revision == revision);
        let event_types = if is_done { vec![EventType::CertificateRevoked] } else { vec![] };
        let told = Transition::silent(self, now).with(events).telling(event_types);
        if anew { told.then(|one| one.trigger(Trigger::Revoked, now)) } else { told }
    }

    /// Starts issuance anew. The caller cancels the orders that are under way.
    #[must_use]
    pub fn restarted(mut self, trigger: Trigger, now: OffsetDateTime) -> Transition {
        self.state = State::Backoff;
        self.trigger(trigger, now)
    }

    /// It is to be deleted once its revocations are over; nothing is issued any more. At `latest` it
    /// is deleted all the same.
    #[must_use]
    pub fn delete_once_revoked(
        mut self,
        latest: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Transition {
        self.deleting_since = Some(now);
        self.last_error = None;
        let mut next = self.become_state(State::Idle, now);
        next.next_action_at = latest;
        let event = Event::normal(
            next.id,
            "Deleting",
            "The certificate is deleted once what was issued is revoked",
        );
        Transition::silent(next, now).with(vec![event])
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::tests::{NOW, served};
    use super::*;
    use crate::domain::certificate::Phase;

    #[test]
    fn a_revoked_certificate_says_so_and_is_issued_anew() {
        let wanted = served().revocation_wanted(1, Reason::KeyCompromise, NOW).certificate;
        assert_eq!(wanted.phase(NOW), Phase::Ready, "not before the CA has done it");
        assert!(wanted.key_is_compromised(), "but its key is not used again from now on");

        let revoked = wanted.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(revoked.certificate.phase(NOW), Phase::Revoked);
        assert_eq!(revoked.certificate.state, State::Triggered(Trigger::Revoked));
    }

    #[test]
    fn what_a_worker_was_at_when_its_lease_was_taken_away_is_due_at_once() {
        let mut claimed = served();
        claimed.state = State::Triggered(Trigger::Revoked);
        claimed.next_action_at = NOW + Duration::minutes(2);

        let told = claimed.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(told.certificate.next_action_at, NOW);
    }

    #[test]
    fn what_is_being_deleted_is_not_issued_anew() {
        let wanted = served().revocation_wanted(1, Reason::CessationOfOperation, NOW).certificate;
        let deleting = wanted.delete_once_revoked(NOW + Duration::days(3), NOW).certificate;
        assert_eq!(deleting.clone().wake(NOW + Duration::days(80)).certificate, deleting);

        let revoked = deleting.revocation_progressed(&revocation(revocation::State::Done), NOW);

        assert_eq!(revoked.certificate.state, State::Idle);
    }

    #[test]
    fn an_older_revisions_revocation_does_not_hide_that_of_the_served_one() {
        let both = served()
            .revocation_wanted(1, Reason::KeyCompromise, NOW)
            .certificate
            .revocation_wanted(0, Reason::Superseded, NOW)
            .certificate;
        assert!(both.key_is_compromised());
    }

    fn revocation(state: revocation::State) -> Revocation {
        let id = uuid::Uuid::nil();
        Revocation {
            id: crate::domain::id::RevocationId(id),
            certificate: crate::domain::id::CertificateId(id),
            namespace: "default".into(),
            issuer: crate::domain::id::IssuerId(id),
            revision: 1,
            reason: Reason::KeyCompromise,
            state,
            tries: 0,
            last_error: None,
            created_at: NOW,
            next_action_at: None,
            deadline: NOW,
        }
    }
}
