//! Taking a certificate back at its CA (RFC 8555, section 7.6): a small machine of its own.
//!
//! It holds all that it needs, so that it outlives the revision, and the certificate, that it is
//! about. It is asked for until the CA has done it, refuses for good, or the deadline has passed.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::backoff::{self, Jitter};
use super::failure::{Class, Failure, code};
use super::id::{CertificateId, IssuerId, RevocationId};
use crate::domain::words::words;

words! {
    /// Why a certificate is revoked: RFC 5280's words, as far as they are a subscriber's to say.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub serde enum Reason {
        /// None is given.
        Unspecified = "unspecified",
        /// Somebody else may have the private key.
        KeyCompromise = "keyCompromise",
        /// The subject's data has changed.
        AffiliationChanged = "affiliationChanged",
        /// Another certificate has taken its place.
        Superseded = "superseded",
        /// It is not used any more.
        CessationOfOperation = "cessationOfOperation",
    }
}

impl Reason {
    /// RFC 5280's number for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }
}

/// One revocation that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub id: RevocationId,
    /// May be gone by now.
    pub certificate: CertificateId,
    pub namespace: String,
    pub issuer: IssuerId,
    pub revision: i64,
    pub reason: Reason,
    pub state: State,
    pub tries: u32,
    pub last_error: Option<Failure>,
    pub created_at: OffsetDateTime,
    /// `None` once it is over.
    pub next_action_at: Option<OffsetDateTime>,
    /// After this moment it has failed.
    pub deadline: OffsetDateTime,
}

words! {
    /// The state of a revocation.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum State {
        /// The CA is to be told.
        Pending = "pending",
        /// The CA has done it.
        Done = "done",
        /// The CA will not do it, or did not in time.
        Failed = "failed",
    }
}

/// Time for which a failed revocation is tried again.
pub const DEADLINE: Duration = Duration::hours(72);

/// Between tries at what only a person can mend.
const PROBE_EVERY: Duration = Duration::hours(1);

impl Revocation {
    /// Applies the CA's answer.
    #[must_use]
    pub fn apply(
        mut self,
        answer: Result<(), Failure>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Self {
        let failure = match answer {
            Ok(()) => return self.end(State::Done, None),
            // It was done before, and the answer was lost; or somebody else did it.
            Err(failure) if failure.is(code::ACME_ALREADY_REVOKED) => {
                return self.end(State::Done, None);
            }
            Err(failure) => failure,
        };
        if failure.is(code::ACME_BAD_REVOCATION_REASON) || now >= self.deadline {
            return self.end(State::Failed, Some(failure));
        }
        let pause = match failure.class {
            Class::Blocked => jitter.stretch(PROBE_EVERY, 0.1),
            _ => backoff::transient(self.tries, jitter),
        };
        let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
        self.next_action_at = Some(at.min(self.deadline.max(now)));
        self.tries = self.tries.saturating_add(1);
        self.last_error = Some(failure);
        self
    }

    fn end(mut self, state: State, failure: Option<Failure>) -> Self {
        self.state = state;
        self.next_action_at = None;
        self.last_error = failure;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn what_is_revoked_already_is_revoked() {
        let answer = Err(failure(code::ACME_ALREADY_REVOKED));
        assert_eq!(pending().apply(answer, NOW, Jitter::NONE).state, State::Done);
        assert_eq!(pending().apply(Ok(()), NOW, Jitter::NONE).next_action_at, None);
    }

    #[test]
    fn a_ca_that_is_down_is_asked_until_the_deadline_and_not_longer() {
        let mut wanted = pending();
        let mut now = NOW;
        while let Some(at) = wanted.next_action_at {
            assert!(at <= NOW + DEADLINE, "a wake-up after the deadline");
            now = at;
            wanted = wanted.apply(Err(failure(code::ACME_UNREACHABLE)), at, Jitter::NONE);
        }

        assert_eq!((wanted.state, now), (State::Failed, NOW + DEADLINE));
        assert!(wanted.last_error.is_some(), "and says why");
    }

    #[test]
    fn a_reason_that_the_ca_refuses_is_not_tried_again() {
        let answer = Err(failure(code::ACME_BAD_REVOCATION_REASON));
        assert_eq!(pending().apply(answer, NOW, Jitter::NONE).state, State::Failed);
    }

    #[test]
    fn what_a_person_may_mend_is_tried_hourly() {
        let answer = Err(failure(code::ACME_UNAUTHORIZED));
        let next = pending().apply(answer, NOW, Jitter::NONE);
        assert_eq!(
            (next.state, next.next_action_at),
            (State::Pending, Some(NOW + Duration::hours(1)))
        );
    }

    fn failure(code: code::Code) -> Failure {
        Failure::of(code, "no")
    }

    fn pending() -> Revocation {
        let id = uuid::Uuid::nil();
        Revocation {
            id: RevocationId(id),
            certificate: CertificateId(id),
            namespace: "default".into(),
            issuer: IssuerId(id),
            revision: 1,
            reason: Reason::KeyCompromise,
            state: State::Pending,
            tries: 0,
            last_error: None,
            created_at: NOW,
            next_action_at: Some(NOW),
            deadline: NOW + DEADLINE,
        }
    }
}
