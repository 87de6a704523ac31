//! The wish for a certificate, and how it is kept fulfilled: a pure state machine.
//!
//! `Triggered → Ordering → Idle`, again at every renewal. What fails waits in `Backoff`, what only
//! a person can mend in `Blocked`, and what somebody has to approve first in `AwaitingApproval`. A certificate that was issued once stays served meanwhile.

mod admission;
mod approval;
mod attempt;
mod life;
mod rehearsal;
mod renewal;
mod spec;
mod state;
#[cfg(test)]
pub(super) mod tests;

pub use approval::{Course, Standing};
pub use life::*;
pub use rehearsal::is_the_providers;
pub use renewal::*;
pub use spec::*;
pub use state::*;

use std::collections::BTreeMap;

use time::OffsetDateTime;

use self::attempt::PROBE_EVERY;
use crate::domain::ari::Ari;
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::policy::AdmittedBy;
use crate::domain::principal::PrincipalRef;
use crate::domain::trace::Trace;

/// A certificate that is wanted, and perhaps there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub id: CertificateId,
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub spec: Spec,
    pub admitted_by: AdmittedBy,
    /// Whose change brought what is wanted now; `None` if it was before that was kept.
    pub requested_by: Option<PrincipalRef>,
    /// Who has had the same issued anew, before its time, since it was issued last.
    pub triggered_by: Option<PrincipalRef>,
    pub generation: i64,
    pub state: State,
    pub state_since: OffsetDateTime,
    /// The current revision, once there is one.
    pub current: Option<Issued>,
    pub ari: Option<Ari>,
    pub revocation: Option<Revoked>,
    pub deleting_since: Option<OffsetDateTime>,
    pub failed_attempts: u32,
    /// Failures that webhooks were told; cleared by success.
    pub told: Told,
    /// Cleared by success.
    pub last_error: Option<Failure>,
    /// The request that is or was last under way.
    pub request: Option<RequestId>,
    /// The newest revision that was approved, or issued, for what is wanted now.
    pub approved: Option<i64>,
    /// The order that is or was last under way.
    pub order: Option<OrderId>,
    /// What the issuance belongs to that is or was last under way: the request that asked for it, or the step that
    /// began it by itself.
    pub trace: Option<Trace>,
    /// The time of its creation.
    pub created_at: OffsetDateTime,
    pub next_action_at: OffsetDateTime,
}

/// The current revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Counts issuances, from 1.
    pub revision: i64,
    /// Hexadecimal, as `openssl x509 -serial` prints it.
    pub serial: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub renewal_time: OffsetDateTime,
}

impl Certificate {
    /// A certificate that is to be issued for the first time.
    #[must_use]
    pub fn wanted(
        id: CertificateId,
        (namespace, name): (&str, &str),
        spec: Spec,
        admitted_by: AdmittedBy,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            spec,
            admitted_by,
            requested_by: None,
            triggered_by: None,
            generation: 1,
            state: State::Triggered(Trigger::DoesNotExist),
            state_since: now,
            current: None,
            ari: None,
            revocation: None,
            deleting_since: None,
            failed_attempts: 0,
            told: Told::default(),
            last_error: None,
            request: None,
            approved: None,
            order: None,
            trace: None,
            created_at: now,
            next_action_at: now,
        }
    }

    /// Applies the passage of time when the wake-up has come.
    #[must_use]
    pub fn wake(mut self, now: OffsetDateTime) -> Transition {
        if self.deleting_since.is_some() {
            return Transition::silent(self, now);
        }
        let due = match self.state {
            State::Idle => self.current.as_ref().is_none_or(|issued| issued.renewal_time <= now),
            State::Blocked if self.is_denied() => {
                self.next_action_at = now + PROBE_EVERY;
                false
            }
            State::Backoff | State::Blocked => true,
            State::Triggered(_)
            | State::AwaitingIssuer(_)
            | State::AwaitingApproval(_)
            | State::Ordering(_) => false,
        };
        if !due {
            if let (State::Idle, Some(at)) = (self.state, self.idle_until()) {
                self.next_action_at = at;
            }
            return Transition::silent(self, now);
        }
        self.attempt_due(now)
    }

    /// Its time has come, by the clock or because what it waited for has come.
    fn attempt_due(self, now: OffsetDateTime) -> Transition {
        let trigger =
            if self.current.is_some() { Trigger::Renewing } else { Trigger::DoesNotExist };
        self.trigger(trigger, now)
    }

    /// Starts issuance now, whatever the backoff. Joins what is under way already.
    #[must_use]
    pub fn trigger(self, trigger: Trigger, now: OffsetDateTime) -> Transition {
        if matches!(
            self.state,
            State::Triggered(_) | State::AwaitingApproval(_) | State::Ordering(_)
        ) {
            return Transition::silent(self, now);
        }
        let message = match (trigger, &self.current) {
            (Trigger::DoesNotExist, _) => {
                "Issuing certificate as none has been issued yet".to_owned()
            }
            (Trigger::Renewing, Some(issued)) => {
                format!("Renewing certificate as renewal was scheduled at {}", issued.renewal_time)
            }
            (Trigger::Renewing, None) => "Renewing certificate".to_owned(),
            (Trigger::ManuallyTriggered, _) => {
                "Certificate re-issuance manually triggered".to_owned()
            }
            (Trigger::RequestChanged, _) => {
                "Issuing certificate as its specification has changed".to_owned()
            }
            (Trigger::Revoked, _) => {
                "Issuing certificate as the present one was revoked".to_owned()
            }
        };
        let mut next = self.become_state(State::Triggered(trigger), now);
        next.next_action_at = now;
        next.trace = None;
        let event = Event::normal(next.id, "Issuing", message);
        Transition::silent(next, now).with(vec![event])
    }

    /// Takes over a changed spec and labels. Where another certificate is wanted now, it is issued
    /// at once, whatever the backoff; orders under way are then for the former spec, and the
    /// caller cancels them. Labels choose solvers: changing them lets a blocked one try again; and
    /// changed pauses one that pauses.
    #[must_use]
    pub fn respecified(
        mut self,
        spec: Spec,
        labels: BTreeMap<String, String>,
        admitted_by: AdmittedBy,
        now: OffsetDateTime,
    ) -> Transition {
        self.admitted_by = admitted_by;
        let relabelled = self.labels != labels;
        let rewritten = !self.spec.means(&spec);
        if !relabelled && !rewritten {
            return Transition::silent(self, now);
        }
        self.labels = labels;
        let anew = !self.spec.wants_the_same_as(&spec);
        let retry_changed = self.spec.retry != spec.retry;
        if rewritten {
            self.spec = spec;
            self.generation += 1;
        }
        if !anew {
            if relabelled && self.state == State::Blocked {
                return self.trigger(Trigger::RequestChanged, now);
            }
            if retry_changed && self.state == State::Backoff {
                return self.trigger(Trigger::RequestChanged, now);
            }
            return self.rescheduled(now);
        }
        self.failed_attempts = 0;
        self.last_error = None;
        self.approved = None;
        let trigger =
            if self.current.is_some() { Trigger::RequestChanged } else { Trigger::DoesNotExist };
        // Nothing that is under way may be joined.
        self.restarted(trigger, now)
    }

    /// Its management ends.
    #[must_use]
    pub fn deleted(self, now: OffsetDateTime) -> Transition {
        let message = format!("Certificate `{}` was deleted", self.name);
        let event = Event::normal(self.id, "Deleted", message);
        Transition::silent(self, now).with(vec![event])
    }

    /// The one word that sums it up at `now`.
    pub fn phase(&self, now: OffsetDateTime) -> Phase {
        let valid = self.current.as_ref().is_some_and(|issued| issued.not_after > now);
        match self.state {
            State::Backoff => Phase::Failed,
            State::Blocked | State::AwaitingApproval(_) => Phase::Blocked,
            _ if valid && self.is_revoked() => Phase::Revoked,
            State::Triggered(_) | State::AwaitingIssuer(_) | State::Ordering(_) if valid => {
                Phase::Renewing
            }
            _ if valid => Phase::Ready,
            _ if self.current.is_some() => Phase::Expired,
            _ => Phase::Issuing,
        }
    }

    /// Whether waiting any longer would bring no news soon.
    pub fn is_settled(&self) -> bool {
        matches!(
            self.state,
            State::Idle | State::Backoff | State::Blocked | State::AwaitingApproval(_)
        )
    }

    /// Whether it is being issued or renewed: an order is under way, or soon will be.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, State::Triggered(_) | State::AwaitingIssuer(_) | State::Ordering(_))
    }

    /// The time of the next attempt if the present one fails.
    pub fn next_attempt_at(&self) -> Option<OffsetDateTime> {
        matches!(self.state, State::Backoff | State::Blocked | State::AwaitingIssuer(_))
            .then_some(self.next_action_at)
    }

    /// The revision that the next success makes.
    pub fn next_revision(&self) -> i64 {
        self.current.as_ref().map_or(0, |issued| issued.revision) + 1
    }

    /// The name of the attempt at the next revision, as cert-manager derives it.
    pub fn request_name(&self) -> String {
        format!("{}-{}", self.name, self.next_revision())
    }

    /// Why something is being issued.
    pub fn wanted_because(&self) -> Trigger {
        match self.state {
            State::Triggered(trigger)
            | State::AwaitingIssuer(trigger)
            | State::AwaitingApproval(trigger)
            | State::Ordering(trigger) => trigger,
            State::Idle | State::Backoff | State::Blocked if self.current.is_some() => {
                Trigger::Renewing
            }
            State::Idle | State::Backoff | State::Blocked => Trigger::DoesNotExist,
        }
    }

    fn become_state(mut self, state: State, now: OffsetDateTime) -> Self {
        if self.state != state {
            self.state_since = now;
        }
        self.state = state;
        self
    }
}
