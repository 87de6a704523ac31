//! Challenges: which one to use, what to show, and when it may be shown to the CA.

mod observation;
mod proof;
#[cfg(test)]
mod tests;

pub use observation::*;
pub use proof::*;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use crate::domain::backoff::{self, Jitter};
use crate::domain::event::Event;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::ChallengeId;
use crate::domain::words::words;

/// A TXT record that a provider wrote for us: all that is needed to take it away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Name of the record after following CNAMEs, without the final dot.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The provider's name for the zone.
    pub zone: String,
    /// The provider's name for the record.
    pub id: String,
}

words! {
    /// Kinds of challenge.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Kind {
        /// A file below `/.well-known/acme-challenge/`.
        Http01 = "http-01",
        /// A TXT record.
        Dns01 = "dns-01",
    }
}

/// One proof on its way: shown, seen, accepted, and taken away again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub id: ChallengeId,
    pub authorization_url: String,
    pub url: String,
    /// The name under proof, without `*.`.
    pub domain: String,
    /// Whether the proof is for every name below `domain`.
    pub wildcard: bool,
    pub kind: Kind,
    /// Index of the chosen solver in the issuer's list; for people to read.
    pub solver: u32,
    pub token: String,
    /// RFC 8555, section 8.1. Stored, so that clean-up needs no CA.
    pub key_authorization: String,
    pub state: State,
    /// The record that a DNS provider wrote.
    pub record: Option<Record>,
    /// Whether nothing of it is left in the outside world.
    pub clean: bool,
    /// Looks or tries in a row that brought nothing.
    pub tries: u32,
    /// The last failure, or the observers that do not see the proof yet.
    pub reason: Option<String>,
    /// The last observations; empty before the first check.
    pub observations: Vec<Observation>,
    /// `None` once nothing is left to do.
    pub next_action_at: Option<OffsetDateTime>,
    /// After this moment the present phase has failed.
    pub deadline: OffsetDateTime,
}

words! {
    /// The state of a challenge.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[schema(as = ChallengeState)]
    pub serde enum State {
        /// The proof is to be published; after a crash it may have been.
        Pending = "pending",
        /// Shown; waiting until it can be seen.
        Presented = "presented",
        /// Every observer sees it.
        Visible = "visible",
        /// The CA was told to look.
        Processing = "processing",
        /// The CA saw it.
        Valid = "valid",
        /// The CA looked and did not see it.
        Invalid = "invalid",
        /// It could not be shown, or nobody saw it in time.
        Errored = "errored",
    }
}

/// The action that a challenge needs in the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Show the proof.
    Present,
    /// Look whether it can be seen.
    Check,
    /// Take it away.
    CleanUp,
}

/// The result of an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The proof was written, with the record to remember.
    Presented(Option<Record>),
    /// It can be seen.
    Seen,
    /// Not every observer sees it yet.
    NotSeen(Vec<Observation>),
    /// The proof was removed.
    CleanedUp,
    /// It did not work.
    Failed(Failure),
}

/// The times of a proof: its timeout, the pause between its visibility and telling the CA, and what was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofTimeouts {
    /// From shown to seen.
    pub propagation: Duration,
    /// From seen to told.
    pub delay: Duration,
    /// From shown to when it is likely to be seen, as it was not until now.
    pub likely: Option<Duration>,
}

/// A provider that refused a proof so often in a row, for a reason that nobody knows, was asked for
/// about an hour; the attempt has failed then, and is told.
const REFUSALS: u32 = 16;

/// Clean-up is tried for this long; what a crash or a lost token leaves behind is then named in an event.
const CLEAN_UP_FOR: Duration = Duration::hours(24);

/// Whether it is a definite refusal, rather than silence or "later".
fn is_refused(failure: &Failure) -> bool {
    failure.class == Class::Transient
        && failure.http_status.is_some_and(|status| (400..500).contains(&status))
}

impl Challenge {
    /// The proof that is to be shown.
    pub fn proof(&self) -> Proof {
        Proof {
            challenge: self.id,
            domain: self.domain.clone(),
            token: self.token.clone(),
            key_authorization: self.key_authorization.clone(),
        }
    }

    /// The action that is due at `now`, given whether the order is over.
    pub fn due(&self, order_is_over: bool, now: OffsetDateTime) -> Option<Action> {
        if self.next_action_at.is_none_or(|at| at > now) {
            return None;
        }
        match self.state {
            _ if self.clean => None,
            _ if order_is_over => Some(Action::CleanUp),
            State::Pending => Some(Action::Present),
            State::Presented => Some(Action::Check),
            State::Visible | State::Processing | State::Valid | State::Invalid | State::Errored => {
                None
            }
        }
    }

    /// Applies an answer. A failure that ends the whole order comes back beside it.
    #[must_use]
    pub fn apply(
        mut self,
        answer: Answer,
        timeouts: ProofTimeouts,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> (Self, Vec<Event>, Option<Failure>) {
        match answer {
            Answer::Presented(record) => {
                self.record = record;
                self.state = State::Presented;
                self.tries = 0;
                self.reason = None;
                self.next_action_at = Some(now);
                self.deadline = now + timeouts.propagation;
                let message =
                    format!("Presented challenge using {} challenge mechanism", self.kind.as_str());
                let event = Event::normal(self.id, "Presented", message);
                (self, vec![event], None)
            }
            Answer::Seen => {
                self.state = State::Visible;
                self.tries = 0;
                self.reason = None;
                self.observations.clear();
                self.next_action_at = Some(now + timeouts.delay);
                (self, vec![], None)
            }
            Answer::NotSeen(observations) => {
                let observed = in_words(&observations);
                self.observations = observations;
                self.reason = Some(observed.clone());
                if now >= self.deadline {
                    return self.give_up(Failure::of(code::CHALLENGE_NOT_PROPAGATED, observed));
                }
                let waited = now - self.shown_at(timeouts);
                let pause = match timeouts.likely {
                    Some(likely) => {
                        let pause = backoff::likely(self.tries, waited, likely);
                        pause.min(backoff::LONGEST_PROPAGATION)
                    }
                    None => backoff::propagation(self.tries, jitter),
                };
                self.next_action_at = Some((now + pause).min(self.deadline));
                self.tries += 1;
                (self, vec![], None)
            }
            Answer::CleanedUp => {
                self.clean = true;
                self.next_action_at = None;
                (self, vec![], None)
            }
            Answer::Failed(failure) => self.failed(failure, now, jitter),
        }
    }

    /// When a proof that is not seen yet was shown.
    pub fn shown_at(&self, timeouts: ProofTimeouts) -> OffsetDateTime {
        self.deadline - timeouts.propagation
    }

    /// Has the proof taken away, from `now` on, now that the order is over.
    pub fn schedule_clean_up(&mut self, now: OffsetDateTime) {
        if matches!(self.state, State::Pending | State::Presented | State::Visible) {
            self.state = State::Errored;
            self.reason.get_or_insert_with(|| "The order ended before this was proved".to_owned());
        }
        if !self.clean {
            self.tries = 0;
            self.next_action_at = Some(now);
            self.deadline = now + CLEAN_UP_FOR;
        }
    }

    fn failed(
        mut self,
        failure: Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> (Self, Vec<Event>, Option<Failure>) {
        let cleaning = !matches!(self.state, State::Pending | State::Presented);
        let pause = self.pause_after(&failure, cleaning, now, jitter);
        let hopeless = matches!(failure.class, Class::Blocked | Class::Validation)
            || (is_refused(&failure) && self.tries >= REFUSALS);
        self.reason = Some(failure.to_string());
        if cleaning && now >= self.deadline {
            self.clean = true;
            self.next_action_at = None;
            let left = self.record.as_ref().map_or_else(
                || format!("what was shown for {}", self.domain),
                |record| format!("TXT record {} with value {}", record.name, record.value),
            );
            let message = format!(
                "Error cleaning up challenge: {failure}. Left behind: {left}; remove it by hand"
            );
            let event = Event::warning(self.id, "CleanUpError", message);
            return (self, vec![event], None);
        }
        if !cleaning && (hopeless || now >= self.deadline) {
            return self.give_up(failure);
        }
        // The last try is at the deadline, and not later.
        let first = self.tries == 0;
        self.tries += 1;
        self.next_action_at = Some((now + pause).min(self.deadline).max(now));
        let (reason, verb) =
            if cleaning { ("CleanUpError", "cleaning up") } else { ("PresentError", "presenting") };
        let event = Event::warning(self.id, reason, format!("Error {verb} challenge: {failure}"));
        (self, if first { vec![event] } else { vec![] }, None)
    }

    /// Soon, then ever more seldom, and never sooner than somebody asked for: an answer that asks for
    /// nothing, or for no time at all, shortens no pause.
    fn pause_after(
        &self,
        failure: &Failure,
        cleaning: bool,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Duration {
        let own = if cleaning {
            backoff::clean_up(self.tries, jitter)
        } else {
            backoff::transient(self.tries, jitter)
        };
        let asked = failure.retry_at.map(|at| jitter.spread(at - now));
        match (failure.class, failure.http_status, asked) {
            // Nobody was called: we wait for a place of our own.
            (Class::Throttle, None, Some(asked)) => asked.max(Duration::seconds(1)),
            (_, _, asked) => asked.map_or(own, |asked| asked.max(own)),
        }
    }

    fn give_up(mut self, failure: Failure) -> (Self, Vec<Event>, Option<Failure>) {
        self.state = State::Errored;
        self.reason = Some(failure.to_string());
        self.next_action_at = None;
        let message = format!("Challenge for {} failed: {failure}", self.domain);
        let event = Event::warning(self.id, "Failed", message);
        (self, vec![event], Some(failure))
    }
}
