//! Issuers: which CA, which account, and how names are proved.

mod acme;
mod solver;

pub use acme::*;
pub use solver::*;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

pub use super::account_change::{AccountChange, DEACTIVATION_DEADLINE, ROTATION_WAITS};
use crate::domain::backoff::{self, Jitter};
use crate::domain::event::Event;
use crate::domain::event_type::EventType;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::IssuerId;
use crate::domain::throttle::Asker;
use crate::domain::words::words;

words! {
    /// Whether an issuer serves one namespace or all.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    pub serde enum Kind {
        /// Serves certificates of its own namespace.
        #[default]
        Issuer = "Issuer",
        /// Serves certificates of every namespace.
        ClusterIssuer = "ClusterIssuer",
    }
}

/// A CA's account and how names are proved to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    pub id: IssuerId,
    pub kind: Kind,
    /// Its namespace; empty for a `ClusterIssuer`.
    pub namespace: String,
    pub name: String,
    pub acme: Acme,
    pub generation: i64,
    /// State of its account.
    pub state: State,
    pub state_since: OffsetDateTime,
    /// The account at the CA, once there is one.
    pub account: Option<Account>,
    /// An account change that is under way or was final.
    pub account_change: Option<AccountChange>,
    pub tries: u32,
    pub last_error: Option<Failure>,
    /// The time of its creation.
    pub created_at: OffsetDateTime,
    /// `None` while all is well.
    pub next_action_at: Option<OffsetDateTime>,
}

/// An account at a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub url: String,
    /// The directory that it was registered under.
    pub server: String,
    pub email: Option<String>,
}

words! {
    /// The state of an issuer's account.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum State {
        /// The account is to be registered, or checked against a changed spec.
        Pending = "pending",
        /// Registered.
        Ready = "ready",
        /// Registration failed; see `last_error`.
        Failed = "failed",
    }
}

/// Interval at which a CA that wants a person to act is asked again.
const ASK_AFTER_ACTION: Duration = Duration::hours(1);

/// The result of a change to an issuer. Storage accepts nothing less, so that saving the issuer saves
/// what happened, and what is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub issuer: Issuer,
    pub events: Vec<Event>,
    pub event_types: Vec<EventType>,
    pub at: OffsetDateTime,
}

impl Transition {
    /// The issuer as it is, with nothing to tell.
    pub fn silent(issuer: Issuer, at: OffsetDateTime) -> Self {
        Self { issuer, events: vec![], event_types: vec![], at }
    }

    /// Adds what was remarked beside.
    #[must_use]
    pub fn remarking(mut self, remarks: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(remarks);
        self
    }
}

/// A registration is not repeated sooner because the CA denies its account.
const REGISTERED_FOR: Duration = Duration::minutes(10);

/// A certificate may save that it waits in the very moment in which its issuer becomes ready and wakes those that
/// wait: the issuer wakes them once more after this.
pub const WAKES_AGAIN_AFTER: Duration = Duration::seconds(5);

/// Former default namespace of the Secrets of `ClusterIssuer`s; the present one is out of reach of API
/// keys.
pub const FORMER_NAMESPACE: &str = "default";

/// Interval at which a blocked registration is tried again.
pub(super) const PROBE_EVERY: Duration = Duration::hours(24);

impl Issuer {
    /// The namespace that its secrets are in; `cluster` is where those of `ClusterIssuer`s are.
    pub fn secret_namespace<'a>(&'a self, cluster: &'a str) -> &'a str {
        match self.kind {
            Kind::Issuer => &self.namespace,
            Kind::ClusterIssuer => cluster,
        }
    }

    /// Takes over a changed spec; the account is checked again.
    #[must_use]
    pub fn respecified(mut self, acme: Acme, now: OffsetDateTime) -> Transition {
        if self.acme == acme {
            // A client that repeats its spec may have corrected something elsewhere.
            return match self.state {
                State::Failed => self.reconsidered(now),
                _ => Transition::silent(self, now),
            };
        }
        if self.account.as_ref().is_some_and(|known| known.server != acme.server) {
            self.account = None;
            self.account_change = None;
        }
        let before = std::mem::replace(&mut self.acme, acme);
        self.generation += 1;
        let wants = &self.acme.external_account_binding;
        let is_ignored =
            self.account.is_some() && wants.is_some() && *wants != before.external_account_binding;
        let mut next = self.reconsidered(now);
        if is_ignored {
            let event =
                Event::warning(next.issuer.id, "ExternalAccountBindingNotUsed", BINDING_NOT_USED);
            next.events.push(event);
        }
        next
    }

    /// Checks the account again now, because something that it depends on has changed.
    #[must_use]
    pub fn reconsidered(mut self, now: OffsetDateTime) -> Transition {
        self.state = State::Pending;
        self.state_since = now;
        self.tries = 0;
        self.next_action_at = Some(now);
        Transition::silent(self, now)
    }

    /// The CA denies an account that it has given: it is registered again, but not over and over by a CA
    /// that gives it each time and denies it to each order.
    #[must_use]
    pub fn denied(self, now: OffsetDateTime) -> Transition {
        let at = now.max(self.state_since + REGISTERED_FOR);
        let mut next = self.reconsidered(now);
        next.issuer.next_action_at = Some(at);
        next
    }

    /// The account is there.
    #[must_use]
    pub fn registered(mut self, account: Account, now: OffsetDateTime) -> Transition {
        self.account = Some(account);
        self.state = State::Ready;
        self.state_since = now;
        self.tries = 0;
        self.last_error = None;
        self.next_action_at = Some(now + WAKES_AGAIN_AFTER);
        let event = Event::normal(self.id, "ACMEAccountRegistered", REGISTERED_MESSAGE);
        Transition {
            issuer: self,
            events: vec![event],
            event_types: vec![EventType::IssuerReady],
            at: now,
        }
    }

    /// Ready, with everybody woken that waited for it: nothing is left to do.
    #[must_use]
    pub fn rested(mut self, now: OffsetDateTime) -> Transition {
        self.next_action_at = None;
        Transition::silent(self, now)
    }

    /// Registration did not work this time.
    #[must_use]
    pub fn not_registered(
        mut self,
        failure: Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let throttled = failure.class == Class::Throttle && failure.retry_at.is_some();
        let pause = match (failure.class, failure.retry_at) {
            (Class::Blocked, _) if failure.is(code::ACME_USER_ACTION_REQUIRED) => {
                jitter.stretch(ASK_AFTER_ACTION, 0.1)
            }
            (Class::Blocked, _) => jitter.stretch(PROBE_EVERY, 0.1),
            (Class::Throttle, Some(asked)) => {
                jitter.spread((asked - now).max(Duration::seconds(1)))
            }
            _ => backoff::transient(self.tries, jitter),
        };
        let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
        let news = self.last_error.as_ref().is_none_or(|last| last.code != failure.code);
        // Trying again is no news; that something was changed and did not help is.
        let event_types = if self.tries == 0 { vec![EventType::IssuerFailed] } else { vec![] };
        let event = Event::warning(self.id, self.failure_reason(), failure.to_string());
        if self.state != State::Failed {
            self.state_since = now;
        }
        self.state = State::Failed;
        // A pause that the CA asked for makes no later one longer.
        self.tries = self.tries.saturating_add(u32::from(!throttled));
        self.last_error = Some(failure);
        self.next_action_at = Some(at);
        let events = if news { vec![event] } else { vec![] };
        Transition { issuer: self, events, event_types, at: now }
    }

    /// It is no longer wanted.
    #[must_use]
    pub fn deleted(self, now: OffsetDateTime) -> Transition {
        let message = format!("{} `{}` was deleted", self.kind.as_str(), self.name);
        let event = Event::normal(self.id, "Deleted", message);
        Transition { events: vec![event], ..Transition::silent(self, now) }
    }

    /// Who its CA counts orders for, whatever their names.
    pub fn asker(&self) -> Asker<'_> {
        let account = self.account.as_ref().map_or("", |account| &account.url);
        Asker { server: &self.acme.server, account, names: &[] }
    }

    /// The Ready condition: status, reason and message, in cert-manager's words.
    pub fn ready(&self) -> (&'static str, &'static str, String) {
        match self.state {
            State::Ready => ("True", "ACMEAccountRegistered", REGISTERED_MESSAGE.to_owned()),
            State::Pending => {
                let (reason, message) = match self.account_change {
                    Some(AccountChange::RotatingKey { .. }) => {
                        ("RotatingAccountKey", "The ACME account's key is being replaced")
                    }
                    Some(AccountChange::Deactivating { .. }) => {
                        ("DeactivatingAccount", "The ACME account is being deactivated")
                    }
                    Some(AccountChange::Deactivated { .. }) | None => {
                        ("Registering", "The ACME account is being registered")
                    }
                };
                ("Unknown", reason, message.to_owned())
            }
            State::Failed => {
                let message = self.last_error.as_ref().map(Failure::to_string).unwrap_or_default();
                ("False", self.failure_reason(), message)
            }
        }
    }

    fn failure_reason(&self) -> &'static str {
        if self.account.is_some() { "ErrUpdateACMEAccount" } else { "ErrRegisterACMEAccount" }
    }
}

const BINDING_NOT_USED: &str = "The issuer has an account already, and CAs bind accounts only when they are registered: the changed externalAccountBinding has no effect. For an account under it, create another issuer, or delete this one with `deactivate` and create it again";
const REGISTERED_MESSAGE: &str = "The ACME account was registered with the ACME server";
