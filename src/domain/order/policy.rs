//! The policy for orders that do not go straight to their certificate.
//!
//! A failure's class alone decides, as `docs/architecture.md` describes.

use time::{Duration, OffsetDateTime};

use super::{
    Answer, Conditions, End, ORDER_DEADLINE, Order, Outcome, Seen, Stage, State, Status, Transition,
};
use crate::domain::backoff::{self, Jitter};
use crate::domain::challenge::{self, ProofTimeouts};
use crate::domain::event::Event;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::ChallengeId;

/// How long a CA may deny what it has just handed out (Let's Encrypt's replicas lag by seconds).
const CONSISTENCY_FOR: Duration = Duration::minutes(2);

/// The same for a certificate that was issued: a fresh order would cost another one.
const DOWNLOAD_FOR: Duration = Duration::minutes(10);

/// A CA that has not taken the CSR after this long will not: with the steps before, half an hour.
const FINALIZE_FOR: Duration = Duration::minutes(29);

/// A CSR counts as lost when the CA still wants one this long after it was sent.
const FINALIZE_LOST_AFTER: Duration = Duration::seconds(10);

/// The authorizations are read after this long, to see what keeps the CA, and then at intervals.
const INSPECT_AFTER: Duration = Duration::minutes(2);
const INSPECT_EVERY: Duration = Duration::minutes(10);

/// A CA that has not finished validating after this long never says that it failed.
const VALIDATE_FOR: Duration = Duration::hours(1);

/// Upper bound for the pause between polls, whatever the CA asks for, beside an eighth of the time that
/// is left before the deadline.
const LONGEST_POLL: Duration = Duration::minutes(5);

/// So many refusals with a `Retry-After` are obeyed to the letter. A CA that goes on refusing is taken
/// for one that is in trouble.
const PROMISES: u32 = 3;

/// An order that the CA has not begun on waits for limits and quotas for so long.
const WAIT_FOR: Duration = Duration::days(30);

/// The deadline of an order that begins at `from`. Half of the certificate's life has to be left by
/// then, where its end is given.
pub fn deadline(from: OffsetDateTime, not_after: Option<OffsetDateTime>) -> OffsetDateTime {
    from + not_after.map_or(ORDER_DEADLINE, |end| ORDER_DEADLINE.min((end - from) / 2))
}

/// Whether the CA may have made an order, whatever came of asking for it.
pub(super) fn may_have_ordered(answer: &Answer) -> bool {
    match answer {
        Answer::Created(..) => true,
        Answer::Failed(failure) | Answer::NotReplacing(failure) => failure.may_have_been_heard(),
        _ => false,
    }
}

impl Order {
    /// Orders once more at once, without saying what is replaced.
    pub(super) fn not_replacing(mut self, failure: &Failure, now: OffsetDateTime) -> Transition {
        self.replaces = None;
        self.next_action_at = Some(now);
        let message = format!("Ordering without saying what it replaces: {failure}");
        let event = Event::warning(self.id, "ReplacementRefused", message);
        Transition { order: self, events: vec![event], outcome: None }
    }

    /// The whole step failed, and with it every action that was due.
    pub(super) fn clean_up_failed(
        self,
        failure: &Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let patience =
            ProofTimeouts { propagation: Duration::ZERO, delay: Duration::ZERO, likely: None };
        let due = self.challenges.iter().filter(|known| known.due(true, now).is_some());
        let answers =
            due.map(|known| (known.id, patience, challenge::Answer::Failed(failure.clone())));
        let answers = answers.collect();
        self.solved(answers, now, jitter)
    }

    pub(super) fn solved(
        mut self,
        answers: Vec<(ChallengeId, ProofTimeouts, challenge::Answer)>,
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
            let mut told = self.advance(Stage::Accepting, now, jitter);
            told.order.next_action_at = told.order.next_action_at.max(rested);
            return told.with(events);
        }
        self.next_action_at = self.earliest_challenge();
        Transition { order: self, events, outcome: None }
    }

    /// Keeps when the CA lets go of the order. An end that has passed while the order is still there belongs to a
    /// CA with another clock: the order would be given up, and another one asked for, again and again.
    pub(super) fn take_note_of_expiry(&mut self, seen: &Seen, now: OffsetDateTime) {
        if let Some(at) = seen.expires.filter(|at| *at > now) {
            self.expires = Some(at);
            self.deadline = self.deadline.min(at);
        }
    }

    /// Applies the CA's description of the order at the stage that the order is in.
    pub(super) fn polled(
        mut self,
        stage: Stage,
        seen: &Seen,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Transition {
        let jitter = conditions.jitter;
        self.take_note_of_expiry(seen, now);
        match (seen.status, stage) {
            (Status::Ready, Stage::Processing | Stage::Finalizing) => {
                // The CA refused the CSR because the order was not ready for it; now it is.
                let refused = matches!(&self.last_error, Some(it) if it.class == Class::Conflict);
                // Else either a lagging replica, or the CSR never arrived.
                if !refused && now - self.handed_out_at < FINALIZE_LOST_AFTER {
                    return self.wait(seen.retry_at, now, conditions);
                }
                // It was read back at once, and says what it said before the refusal.
                let contradicts = refused && self.tries == 1 && self.course.polls == 0;
                let pause =
                    if contradicts { backoff::transient(0, jitter) } else { Duration::ZERO };
                self.finalize_again(pause, now)
            }
            // It was valid before: a lagging replica, unless that goes on and on.
            (Status::Ready, Stage::Downloading) if now - self.handed_out_at >= CONSISTENCY_FOR => {
                self.finalize_again(Duration::ZERO, now)
            }
            (Status::Ready, Stage::Downloading) => self.wait(seen.retry_at, now, conditions),
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
                        Event::normal(proved.id, "DomainVerified", message)
                    })
                    .collect();
                self.advance(Stage::Finalizing, now, jitter).with(events)
            }
            (Status::Valid, _) => {
                self.mark_challenges(challenge::State::Valid);
                self.advance(Stage::Downloading, now, jitter)
            }
            (Status::Processing, Stage::Finalizing) => {
                let mut sent = self.begin_waiting(Stage::Processing, now, conditions);
                let patience = longest_poll(now, sent.order.deadline);
                let asked = seen.retry_at.map(|asked| asked.min(now + patience));
                sent.order.next_action_at = sent.order.next_action_at.max(asked);
                sent
            }
            (Status::Pending | Status::Processing | Status::Invalid, _) => {
                self.wait(seen.retry_at, now, conditions)
            }
        }
    }

    /// Nothing new yet: polls again, in [`LONGEST_POLL`] at the latest.
    fn wait(
        mut self,
        asked: Option<OffsetDateTime>,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Transition {
        self.course.denied_since = None;
        let stage = self.stage();
        if stage == Some(Stage::Validating) && now - self.handed_out_at >= VALIDATE_FOR {
            return self.not_validated(now);
        }
        // The CA answers again, so that its trouble is over; but for what it said of a proof, and a CSR
        // that it may not take.
        let is_words = matches!(&self.last_error, Some(it) if it.class == Class::Validation);
        if stage != Some(Stage::Processing) && !is_words {
            self.last_error = None;
        }
        let likely = self.likely_pause(now, conditions);
        let usual = self.next_poll(conditions.jitter);
        let at = now + likely.unwrap_or(usual);
        let asked = asked.map(|asked| asked.min(now + longest_poll(now, self.deadline)));
        self.next_action_at = Some(at).max(asked);
        self.unchanged()
    }

    /// Whether the authorizations are to be read, to see what keeps the CA from validating.
    pub(super) fn wants_inspection(&self, now: OffsetDateTime) -> bool {
        now - self.handed_out_at >= INSPECT_AFTER
            && self.course.inspected_at.is_none_or(|at| now - at >= INSPECT_EVERY)
    }

    /// Applies what the CA says of the challenges that it is still validating.
    pub(super) fn inspected(
        mut self,
        seen: &Seen,
        said: Vec<(String, Failure)>,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Transition {
        self.course.inspected_at = Some(now);
        let mut events = Vec::new();
        for (url, failure) in &said {
            let Some(known) = self.challenges.iter_mut().find(|known| known.url == *url) else {
                continue;
            };
            let reason = Some(failure.to_string());
            if known.reason != reason {
                let message = format!("The CA is still looking, and says: {failure}");
                events.push(Event::warning(known.id, "Looking", message));
                known.reason = reason;
            }
        }
        if let Some((_, failure)) = said.into_iter().next() {
            // It is about a proof, whatever it says.
            self.last_error = Some(Failure { class: Class::Validation, ..failure });
        }
        self.polled(Stage::Validating, seen, now, conditions).with(events)
    }

    /// The CA never finished validating.
    fn not_validated(self, now: OffsetDateTime) -> Transition {
        let is_words = |failure: &Failure| failure.class == Class::Validation;
        let failure = self.last_error.clone().filter(is_words).unwrap_or_else(|| {
            Failure::of(
                code::ACME_VALIDATION_UNFINISHED,
                "It says neither that it found them nor that it did not.",
            )
        });
        self.end(End::Errored, Outcome::Failed(failure), now)
    }

    /// The end of the time in which the CA has to take the CSR, once it has not taken it at first;
    /// `None` where the CA has named a time itself.
    pub(super) fn finalized_by(&self) -> Option<OffsetDateTime> {
        let is_told = self.last_error.as_ref().is_some_and(|it| it.retry_at.is_some());
        let at_it = !is_told && matches!(self.stage(), Some(Stage::Finalizing | Stage::Processing));
        self.stalled_since.filter(|_| at_it).map(|since| since + FINALIZE_FOR)
    }

    /// The CSR did not arrive, or the CA did not take it: sends it again, but not for ever.
    fn finalize_again(mut self, pause: Duration, now: OffsetDateTime) -> Transition {
        let since = *self.stalled_since.get_or_insert(now);
        if now - since >= FINALIZE_FOR {
            let failure = self.last_error.clone().unwrap_or_else(|| {
                Failure::of(
                    code::ACME_NOT_FINALIZED,
                    "The order stays ready, however often the CSR is sent.",
                )
            });
            return self.end(End::Errored, Outcome::Failed(failure), now);
        }
        if let State::Open { stage, .. } = &mut self.state {
            *stage = Stage::Finalizing;
        }
        self.handed_out_at = now;
        self.next_action_at = Some(now + pause);
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
        let event = Event::warning(self.id, "Failed", format!("The CA ended the order. {failure}"));
        let outcome = match failure.class {
            Class::Blocked => Outcome::Blocked(failure),
            Class::Gone | Class::Consistency => Outcome::Lost(failure),
            Class::Throttle | Class::Transient | Class::Validation | Class::Conflict => {
                Outcome::Failed(failure)
            }
        };
        self.end(End::Invalid, outcome, now).with(vec![event])
    }

    /// The failure policy, for everything but a challenge's own failures.
    pub(super) fn failed(
        mut self,
        failure: Failure,
        was_asked: bool,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        // An order that waits as it was told has met no trouble.
        if failure.class != Class::Throttle {
            self.stalled_since.get_or_insert(now);
        }
        self.last_error = Some(failure.clone());
        let is_new = self.state == State::New;
        if failure.class != Class::Consistency {
            self.course.denied_since = None;
        }
        match failure.class {
            Class::Throttle => self.throttled(&failure, was_asked, now, jitter),
            // A CA that has not made the order has nothing that a replica could lag with.
            Class::Consistency if !is_new => self.denied(failure, now, jitter),
            Class::Gone => self.end(End::Errored, Outcome::Lost(failure), now),
            Class::Transient | Class::Conflict | Class::Consistency => {
                // Read back once at once; from then on like any other trouble.
                let at_once = failure.class == Class::Conflict && self.tries == 0 && !is_new;
                let own = if at_once { now } else { now + backoff::transient(self.tries, jitter) };
                // The CSR may have arrived: look before it is sent again.
                if let State::Open { stage: stage @ Stage::Finalizing, .. } = &mut self.state {
                    *stage = Stage::Processing;
                }
                self.tries = self.tries.saturating_add(1);
                self.next_action_at = Some(own).max(failure.retry_at);
                self.unchanged()
            }
            // At the CA the order is valid; what came of it cannot be used.
            Class::Validation if self.stage() == Some(Stage::Downloading) => {
                self.end(End::Errored, Outcome::Failed(failure), now)
            }
            Class::Validation => self.end(End::Invalid, Outcome::Failed(failure), now),
            Class::Blocked => self.end(End::Errored, Outcome::Blocked(failure), now),
        }
    }

    /// Comes back later, as the CA or a limit of ours asked.
    fn throttled(
        mut self,
        failure: &Failure,
        was_asked: bool,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let is_new = self.state == State::New;
        if is_new && now - self.created_at >= WAIT_FOR {
            return self.end(End::Errored, Outcome::Failed(failure.clone()), now);
        }
        let pause = failure.retry_at.map_or(Duration::minutes(1), |at| at - now);
        let pause = pause.max(Duration::seconds(1));
        // Every view shows the moment that was named. The gate and the throttle of those that are refused again let new
        // orders through a few at a time; nothing else stands before the others.
        let mut at = now + if is_new { pause } else { jitter.spread(pause) };
        // What the CA itself has said now, and not what somebody was told before.
        if was_asked && failure.http_status.is_some() {
            if let Some(more) = self.tries.checked_sub(PROMISES) {
                at = at.max(now + backoff::distrust(more, jitter));
            }
            self.tries = self.tries.saturating_add(1);
        }
        if is_new {
            // The CA has not begun to count: waiting for it uses up nothing.
            self.not_after = self.not_after.map(|end| end + (at - now));
            self.deadline += at - now;
        }
        self.next_action_at = Some(at);
        self.unchanged()
    }

    /// The CA does not know what it has handed out.
    fn denied(mut self, failure: Failure, now: OffsetDateTime, jitter: Jitter) -> Transition {
        let since = *self.course.denied_since.get_or_insert(now);
        let is_there = self.stage() == Some(Stage::Downloading);
        let patience = if is_there { DOWNLOAD_FOR } else { CONSISTENCY_FOR };
        if now - since >= patience {
            return self.end(End::Errored, Outcome::Lost(failure), now);
        }
        self.next_action_at = Some(now + backoff::consistency(self.tries, jitter));
        self.tries = self.tries.saturating_add(1);
        self.unchanged()
    }
}

fn longest_poll(now: OffsetDateTime, deadline: OffsetDateTime) -> Duration {
    LONGEST_POLL.min((deadline - now) / 8)
}
