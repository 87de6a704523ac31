//! Account changes beside registration: key rollover and deactivation.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::event::Event;
use super::failure::{Failure, code};
use super::issuer::{Issuer, PROBE_EVERY, State, Transition};

/// A change to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum AccountChange {
    /// Its key is being replaced by another one, which is stored already.
    RotatingKey {
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// It is being given up at the CA.
    #[serde(rename_all = "camelCase")]
    Deactivating {
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// The issuer is deleted afterwards.
        then_delete: bool,
    },
    /// It was given up: its key is of no use at that CA any more.
    Deactivated {
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
}

/// Orders that are under way hold the present key's proofs: so long they may take to end before the
/// key is replaced all the same.
pub const ROTATION_WAITS: Duration = Duration::minutes(10);

/// After this long an issuer that waits to be deleted goes although its account is not deactivated.
pub const DEACTIVATION_DEADLINE: Duration = Duration::hours(24);

impl Issuer {
    /// A client wants the account's key replaced; the new one is stored beside the present one.
    #[must_use]
    pub fn rotate_key(mut self, now: OffsetDateTime) -> Transition {
        self.account_change = Some(AccountChange::RotatingKey { since: now });
        self.reconsidered(now)
            .told("AccountKeyRotationRequested", "The ACME account's key will be replaced")
    }

    /// The CA knows the account by its new key, which is checked by using it.
    #[must_use]
    pub fn key_rotated(mut self, now: OffsetDateTime) -> Transition {
        self.account_change = None;
        self.reconsidered(now).told(
            "AccountKeyRotated",
            "The ACME account has a new key; the former one is forgotten",
        )
    }

    /// The CA does not replace the key: the present one stays.
    #[must_use]
    pub fn key_kept(mut self, failure: &Failure, now: OffsetDateTime) -> Transition {
        self.account_change = None;
        let message = format!("The ACME account keeps its key: {failure}");
        let event = Event::warning(self.id, "AccountKeyRotationFailed", message);
        let mut transition = self.reconsidered(now);
        transition.events.push(event);
        transition
    }

    /// A client wants the account given up at the CA, perhaps with the issuer.
    #[must_use]
    pub fn deactivate(mut self, then_delete: bool, now: OffsetDateTime) -> Transition {
        self.account_change = Some(AccountChange::Deactivating { since: now, then_delete });
        self.reconsidered(now)
            .told("AccountDeactivationRequested", "The ACME account will be deactivated")
    }

    /// The CA has given the account up.
    #[must_use]
    pub fn deactivated(mut self, now: OffsetDateTime) -> Transition {
        let at = match self.account_change {
            Some(AccountChange::Deactivated { at }) => at,
            _ => now,
        };
        self.account_change = Some(AccountChange::Deactivated { at });
        self.state = State::Failed;
        self.state_since = now;
        self.tries = 0;
        self.last_error = Some(Failure::of(
            code::ACCOUNT_DEACTIVATED,
            "Its key cannot be used at this CA any more.",
        ));
        self.next_action_at = Some(now + PROBE_EVERY);
        Transition::silent(self, now).told("AccountDeactivated", "The ACME account was deactivated")
    }

    /// Postpones the account change to `at`, perhaps because of a failure.
    #[must_use]
    pub fn account_change_waits(
        mut self,
        failure: Option<Failure>,
        at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Transition {
        self.tries = self.tries.saturating_add(u32::from(failure.is_some()));
        self.last_error = failure;
        self.next_action_at = Some(at);
        Transition::silent(self, now)
    }
}

impl Transition {
    fn told(mut self, reason: &'static str, message: &str) -> Self {
        self.events.push(Event::normal(self.issuer.id, reason, message));
        self
    }
}
