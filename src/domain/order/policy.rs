//! The policy: what becomes of an order that does not go straight to its certificate.
//!
//! Decided by a failure's class alone, as `docs/architecture.md` tells it.

use time::{Duration, OffsetDateTime};

use super::{End, ORDER_DEADLINE, Order, Outcome, Seen, Stage, State, Status, Transition};
use crate::domain::backoff::{self, Jitter};
use crate::domain::challenge::{self, Patience};
use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::ChallengeId;

/// How long a CA may deny what it has just handed out (Let's Encrypt's replicas lag by seconds).
const CONSISTENCY_FOR: Duration = Duration::minutes(2);

/// A certificate that was issued is worth waiting longer for: asking anew would cost another one.
const DOWNLOAD_FOR: Duration = Duration::minutes(10);

/// A CA that still has not taken the CSR after this long will not.
const FINALIZE_FOR: Duration = Duration::minutes(30);

/// A CSR counts as lost when the CA still wants one this long after it was sent.
const FINALIZE_LOST_AFTER: Duration = Duration::seconds(10);

/// When an order that begins at `from` is given up. Its certificate's end does not wait for it: half of
/// that life has to be left.
pub fn deadline(from: OffsetDateTime, not_after: Option<OffsetDateTime>) -> OffsetDateTime {
    from + not_after.map_or(ORDER_DEADLINE, |end| ORDER_DEADLINE.min((end - from) / 2))
}

impl Order {
    /// It is ordered once more at once, as any other certificate.
    pub(super) fn not_replacing(mut self, failure: &Failure, now: OffsetDateTime) -> Transition {
        self.replaces = None;
        self.next_action_at = Some(now);
        let message = format!("Ordering without saying what it replaces: {failure}");
        let event = Event::warning(Resource::Order(self.id), "ReplacementRefused", message);
        Transition { order: self, events: vec![event], outcome: None }
    }

    /// The step as a whole did not work, and so no part of it.
    pub(super) fn clean_up_failed(
        self,
        failure: &Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let patience = Patience { propagation: Duration::ZERO, delay: Duration::ZERO };
        let due = self.challenges.iter().filter(|known| known.due(true, now).is_some());
        let answers =
            due.map(|known| (known.id, patience, challenge::Answer::Failed(failure.clone())));
        let answers = answers.collect();
        self.solved(answers, now, jitter)
    }

    pub(super) fn solved(
        mut self,
        answers: Vec<(ChallengeId, Patience, challenge::Answer)>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let mut events = Vec::new();
        let mut fatal = None;
        let mut trouble = None;
        for (id, patience, answer) in answers {
            if let challenge::Answer::Failed(failure) = &answer {
                trouble.get_or_insert_with(|| failure.clone());
            }
            let Some(index) = self.challenges.iter().position(|known| known.id == id) else {
                continue;
            };
            let known = self.challenges.swap_remove(index);
            let (next, happened, failure) = known.apply(answer, patience, now, jitter);
            self.challenges.push(next);
            let last = self.challenges.len() - 1;
            self.challenges.swap(index, last);
            events.extend(happened);
            fatal = fatal.or(failure);
        }
        if self.is_over() {
            self.next_action_at = self.earliest_challenge();
            return Transition { order: self, events, outcome: None };
        }
        if let Some(failure) = fatal {
            self.last_error = Some(failure.clone());
            let outcome = match failure.class {
                Class::Blocked => Outcome::Blocked(failure),
                _ => Outcome::Failed(failure),
            };
            return self.end(End::Errored, outcome, now).with(events);
        }
        let unseen = self.challenges.iter().any(|known| known.reason.is_some());
        self.last_error = trouble.or(self.last_error.take().filter(|_| unseen));
        let visible = self.challenges.iter().all(|known| known.state == challenge::State::Visible);
        if visible {
            let rested = self.challenges.iter().filter_map(|known| known.next_action_at).max();
            let mut told = self.advance(Stage::Accepting, now);
            let at = rested.map_or(now, |at| at.min(told.order.deadline).max(now));
            told.order.next_action_at = Some(at);
            return told.with(events);
        }
        self.next_action_at = self.earliest_challenge().map(|at| at.min(self.deadline));
        Transition { order: self, events, outcome: None }
    }

    /// What the CA's view of the order means at the stage that it is in.
    pub(super) fn looked(
        mut self,
        stage: Stage,
        seen: &Seen,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        self.expires = seen.expires.or(self.expires);
        self.deadline = self.expires.map_or(self.deadline, |at| at.min(self.deadline));
        match (seen.status, stage) {
            (Status::Ready, Stage::Processing) => {
                // The CA refused the CSR because the order was not ready for it; now it is.
                let refused = matches!(&self.last_error, Some(it) if it.class == Class::Conflict);
                // Else either a lagging replica, or the CSR never arrived.
                if !refused && now - self.handed_out_at < FINALIZE_LOST_AFTER {
                    return self.wait(seen.retry_at, now, jitter);
                }
                self.finalize_again(now)
            }
            // It was valid before: a lagging replica, unless that goes on and on.
            (Status::Ready, Stage::Downloading) if now - self.handed_out_at >= CONSISTENCY_FOR => {
                self.finalize_again(now)
            }
            (Status::Ready, Stage::Downloading) => self.wait(seen.retry_at, now, jitter),
            (Status::Ready, _) => {
                self.mark_challenges(challenge::State::Valid);
                let events = self
                    .challenges
                    .iter()
                    .map(|proved| {
                        let message = format!(
                            "Domain \"{}\" verified with \"{}\" validation",
                            proved.domain,
                            proved.kind.as_str().to_uppercase()
                        );
                        Event::normal(Resource::Challenge(proved.id), "DomainVerified", message)
                    })
                    .collect();
                self.advance(Stage::Finalizing, now).with(events)
            }
            (Status::Valid, _) => {
                self.mark_challenges(challenge::State::Valid);
                self.advance(Stage::Downloading, now)
            }
            (Status::Processing, Stage::Finalizing) => {
                // Should the CA want the CSR again, it counts from the first time.
                let stalled = (self.stalled_since, self.last_error.clone());
                let mut sent = self.advance(Stage::Processing, now);
                (sent.order.stalled_since, sent.order.last_error) = stalled;
                sent.order.next_action_at = Some(now + backoff::poll(0, jitter));
                sent
            }
            (Status::Pending | Status::Processing | Status::Invalid, _) => {
                self.wait(seen.retry_at, now, jitter)
            }
        }
    }

    /// The CSR did not arrive, or the CA did not take it: once more, but not for ever.
    fn finalize_again(mut self, now: OffsetDateTime) -> Transition {
        let since = *self.stalled_since.get_or_insert(now);
        if now - since >= FINALIZE_FOR {
            let failure = self.last_error.clone().unwrap_or_else(|| {
                Failure::new(
                    Class::Transient,
                    "acme_not_finalized",
                    "The CA takes the CSR and does nothing with it",
                    "The order stays ready, however often the CSR is sent.",
                )
            });
            return self.end(End::Errored, Outcome::Failed(failure), now);
        }
        if let State::Open { stage, .. } = &mut self.state {
            *stage = Stage::Finalizing;
        }
        self.handed_out_at = now;
        self.next_action_at = Some(now);
        self.unchanged()
    }

    pub(super) fn ended_by_ca(mut self, failure: Failure, now: OffsetDateTime) -> Transition {
        self.last_error = Some(failure.clone());
        for known in &mut self.challenges {
            if known.state == challenge::State::Processing {
                known.state = challenge::State::Invalid;
                known.reason = Some(failure.to_string());
            }
        }
        let event = Event::warning(
            Resource::Order(self.id),
            "Failed",
            format!("The CA ended the order. {failure}"),
        );
        let outcome = match failure.class {
            Class::Blocked => Outcome::Blocked(failure),
            Class::Gone | Class::Consistency => Outcome::Lost(failure),
            Class::Throttle | Class::Transient | Class::Validation | Class::Conflict => {
                Outcome::Failed(failure)
            }
        };
        self.end(End::Invalid, outcome, now).with(vec![event])
    }

    /// The failure policy of the design, for everything but a challenge's own trouble.
    pub(super) fn failed(
        mut self,
        failure: Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let since = *self.stalled_since.get_or_insert(now);
        // Looks that only found nothing new are no trouble: its backoff begins here.
        if self.last_error.is_none() {
            self.tries = 0;
        }
        let stage = match self.state {
            State::Open { stage, .. } => Some(stage),
            State::New | State::Done { .. } => None,
        };
        self.last_error = Some(failure.clone());
        match failure.class {
            Class::Throttle => {
                let pause = failure.retry_at.map_or(Duration::minutes(1), |at| at - now);
                let at = now + jitter.stretch(pause.max(Duration::seconds(1)), 0.1);
                if self.state == State::New {
                    // The CA has not begun to count: waiting for it uses up nothing.
                    self.not_after = self.not_after.map(|end| end + (at - now));
                    self.deadline = self.deadline.max(deadline(at, self.not_after));
                }
                self.next_action_at = Some(at.min(self.deadline));
                self.unchanged()
            }
            Class::Consistency => {
                let patience =
                    if stage == Some(Stage::Downloading) { DOWNLOAD_FOR } else { CONSISTENCY_FOR };
                if now - since >= patience {
                    return self.end(End::Errored, Outcome::Lost(failure), now);
                }
                self.next_action_at =
                    Some((now + backoff::consistency(self.tries, jitter)).min(self.deadline));
                self.tries += 1;
                self.unchanged()
            }
            Class::Gone => self.end(End::Errored, Outcome::Lost(failure), now),
            Class::Transient | Class::Conflict => {
                let at = (now + backoff::transient(self.tries, jitter)).min(self.deadline);
                let at = failure.retry_at.map_or(at, |asked| asked.max(at)).min(self.deadline);
                // The CSR may have arrived: look before it is sent again.
                let at_once = failure.class == Class::Conflict && self.tries == 0;
                let (stage, at) = match stage {
                    Some(Stage::Finalizing) if at_once => (Some(Stage::Processing), now),
                    Some(Stage::Finalizing) => (Some(Stage::Processing), at),
                    stage => (stage, at),
                };
                if let (State::Open { stage: present, .. }, Some(stage)) = (&mut self.state, stage)
                {
                    *present = stage;
                }
                self.next_action_at = Some(at);
                self.tries += 1;
                self.unchanged()
            }
            // At the CA the order is valid; what came of it cannot be used.
            Class::Validation if stage == Some(Stage::Downloading) => {
                self.end(End::Errored, Outcome::Failed(failure), now)
            }
            Class::Validation => self.end(End::Invalid, Outcome::Failed(failure), now),
            Class::Blocked => self.end(End::Errored, Outcome::Blocked(failure), now),
        }
    }
}
