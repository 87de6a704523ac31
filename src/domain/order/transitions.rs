//! The transitions of the order machine.

use time::{Duration, OffsetDateTime};

use super::policy::may_have_ordered;
use super::{
    Answer, Conditions, End, Order, Outcome, Seen, Stage, State, Status, Transition,
    UnexpectedAnswer, challenge_name,
};
use crate::domain::backoff::{self, Jitter};
use crate::domain::caa::dnssec_fails;
use crate::domain::challenge::{self, Challenge};
use crate::domain::event::Event;
use crate::domain::failure::{Class, Failure, code};

/// An order is polled so long before its deadline, whatever it was told to wait for.
const LAST_POLLS: Duration = Duration::minutes(2);

/// An order that makes progress at its last poll gets so much longer.
const LATE_PROGRESS: Duration = Duration::minutes(10);

/// A step that was under way when its order was cancelled is over after this long: the workers' lease.
pub(super) const STEP_ENDS_WITHIN: Duration = Duration::minutes(2);

impl Order {
    /// Applies the answer of the outside world.
    ///
    /// The wake-up that comes out of this is final: nobody moves it forward afterwards.
    ///
    /// # Errors
    /// When the answer does not belong to the state: the worker broke the contract.
    pub fn apply(
        mut self,
        answer: Answer,
        now: OffsetDateTime,
        conditions: impl Into<Conditions>,
    ) -> Result<Transition, UnexpectedAnswer> {
        let conditions = conditions.into();
        self.attempts = self.attempts.saturating_add(1);
        let requests = conditions.requests.clone().unwrap_or_else(|| {
            let mut requests = self.course.requests.clone();
            let least = self.next_step(now).map_or(0, |step| step.requests(self.names.len()));
            requests.sent(least, now);
            requests
        });
        let was_asked = requests != self.course.requests;
        self.course.requests = requests;
        if self.state == State::New && may_have_ordered(&answer) {
            self.course.ordered(now);
        }
        let was_last = !self.is_over() && self.next_action_at.is_some_and(|at| at >= self.deadline);
        let reached = self.course.reached;
        let remark = self.take_note_of_dnssec(&conditions);
        let mut told = self.answered(answer, was_asked, now, &conditions)?;
        told.events.extend(remark);
        if was_last && !told.order.is_over() {
            if told.order.course.reached == reached {
                let Transition { order, events, .. } = told;
                return Ok(order.expire(now).with(events));
            }
            // Every stage is reached once: that does not go on for ever.
            told.order.deadline = told.order.deadline.max(now + LATE_PROGRESS);
        }
        told.order.pace(now);
        told.order.take_note_of_trouble(now);
        Ok(told)
    }

    /// A remark for people, once for each name.
    fn take_note_of_dnssec(&mut self, conditions: &Conditions) -> Option<Event> {
        let name = conditions.bogus.as_ref()?;
        if self.course.bogus.as_ref() == Some(name) {
            return None;
        }
        self.course.bogus = Some(name.clone());
        Some(Event::warning(self.id, "DNSSECFails", dnssec_fails(name)))
    }

    /// `was_asked` says whether the CA was sent anything.
    fn answered(
        mut self,
        answer: Answer,
        was_asked: bool,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Result<Transition, UnexpectedAnswer> {
        let jitter = conditions.jitter;
        match (&self.state, answer) {
            (State::New, Answer::Created(url, seen)) => Ok(self.created(url, &seen, now, jitter)),
            (State::New, Answer::NotReplacing(failure)) if self.replaces.is_some() => {
                Ok(self.not_replacing(&failure, now))
            }
            (State::Open { stage: Stage::Authorizing, .. }, Answer::Authorizations(challenges)) => {
                Ok(self.authorized(challenges, now, jitter))
            }
            (
                State::Open { stage: Stage::Presenting, .. } | State::Done { .. },
                Answer::Solved(answers),
            ) => Ok(self.solved(answers, now, jitter)),
            (State::Open { stage: Stage::Accepting, .. }, Answer::Accepted) => {
                for challenge in &mut self.challenges {
                    challenge.state = challenge::State::Processing;
                }
                Ok(self.begin_waiting(Stage::Validating, now, conditions))
            }
            (State::Open { stage, .. }, Answer::Polled(seen)) => {
                let stage = *stage;
                Ok(self.polled(stage, &seen, now, conditions))
            }
            (State::Open { stage: Stage::Validating, .. }, Answer::Inspected(seen, said)) => {
                Ok(self.inspected(&seen, said, now, conditions))
            }
            (State::Open { .. }, Answer::Ended(failure)) => Ok(self.ended_by_ca(failure, now)),
            (State::Open { stage: Stage::Downloading, .. }, Answer::Downloaded) => {
                let event = Event::normal(self.id, "Complete", "Order completed successfully");
                Ok(self.end(End::Valid, Outcome::Issued, now).with(vec![event]))
            }
            (State::New, Answer::NotReplacing(failure))
            | (State::New | State::Open { .. }, Answer::Failed(failure)) => {
                Ok(self.failed(failure, was_asked, now, jitter))
            }
            (State::Done { .. }, Answer::Failed(failure)) => {
                Ok(self.clean_up_failed(&failure, now, jitter))
            }
            (state, answer) => {
                // Its variant is enough; what it holds is the CA's.
                let answer = format!("{answer:?}").split('(').next().map(str::to_owned);
                let answer = answer.unwrap_or_default();
                Err(UnexpectedAnswer { state: state.clone(), answer })
            }
        }
    }

    fn created(
        mut self,
        url: String,
        seen: &Seen,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        self.take_note_of_expiry(seen, now);
        let stage = match seen.status {
            Status::Pending | Status::Invalid => Stage::Authorizing,
            Status::Ready => Stage::Finalizing,
            Status::Processing => Stage::Processing,
            Status::Valid => Stage::Downloading,
        };
        self.state = State::Open { url, stage: Stage::Authorizing };
        self.advance(stage, now, jitter)
    }

    fn authorized(
        mut self,
        challenges: Vec<Challenge>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let events = challenges
            .iter()
            .map(|challenge| {
                let message = format!(
                    "Created Challenge resource \"{}\" for domain \"{}\"",
                    challenge_name(&self.name, challenge.id),
                    challenge.domain
                );
                Event::normal(self.id, "Created", message)
            })
            .collect();
        let stage = if challenges.is_empty() { Stage::Validating } else { Stage::Presenting };
        self.challenges = challenges;
        self.advance(stage, now, jitter).with(events)
    }

    /// Whether its time is up, and there is nothing at the CA that could be polled once more.
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.state == State::New && now >= self.deadline
    }

    /// Ends an order whose time is up: a failed attempt.
    #[must_use]
    pub fn expire(self, now: OffsetDateTime) -> Transition {
        let failure = self.last_error.clone().unwrap_or_else(|| {
            Failure::of(
                code::ORDER_EXPIRED,
                "The CA had not finished when it was looked at for the last time.",
            )
        });
        self.end(End::Expired, Outcome::Failed(failure), now)
    }

    /// Takes the next step now, because a person wants it: what is outside may have been mended. What the CA has
    /// asked to wait for is waited for, and so is what keeps its requests few. `None` if nothing comes sooner so.
    #[must_use]
    pub fn woken(mut self, now: OffsetDateTime) -> Option<Self> {
        let planned = self.next_action_at?;
        let is_parked = self.last_error.as_ref().is_some_and(|why| why.class == Class::Throttle);
        if self.is_over() || is_parked {
            return None;
        }
        self.next_action_at = Some(now);
        for known in &mut self.challenges {
            known.next_action_at = known.next_action_at.map(|at| at.min(now));
        }
        self.pace(now);
        (self.next_action_at? < planned).then_some(self)
    }

    /// Ends an order that is not wanted any more, because of `why`. Its proofs are still taken away.
    #[must_use]
    pub fn cancel(self, why: &str, now: OffsetDateTime) -> Transition {
        if self.is_over() {
            return self.unchanged();
        }
        let failure = Failure::of(code::ORDER_CANCELLED, why.to_owned());
        let unsettled: Vec<_> = self
            .challenges
            .iter()
            .filter(|known| known.state == challenge::State::Pending)
            .map(|known| known.id)
            .collect();
        let mut ended = self.end(End::Errored, Outcome::Failed(failure), now);
        // A worker may be writing these proofs at this moment: look for them once it has ended.
        for known in &mut ended.order.challenges {
            if unsettled.contains(&known.id) {
                known.schedule_clean_up(now + STEP_ENDS_WITHIN);
            }
        }
        ended.order.next_action_at = ended.order.earliest_challenge();
        ended
    }

    /// Goes to a stage that the CA has confirmed. Without progress the counters of failures go on, and
    /// the next step waits like a poll that found nothing new.
    pub(super) fn advance(
        mut self,
        stage: Stage,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        if let State::Open { stage: present, .. } = &mut self.state {
            *present = stage;
        }
        self.handed_out_at = now;
        self.course.denied_since = None;
        if self.course.reached.is_some_and(|reached| reached >= stage) {
            self.next_action_at = Some(now + self.next_poll(jitter));
            return self.unchanged();
        }
        self.course.reached = Some(stage);
        self.course.polls = 0;
        self.tries = 0;
        self.stalled_since = None;
        self.last_error = None;
        self.next_action_at = Some(now);
        self.unchanged()
    }

    /// The CA has begun on something: polls first when it is likely to be done.
    pub(super) fn begin_waiting(
        self,
        stage: Stage,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Transition {
        let mut told = self.advance(stage, now, conditions.jitter);
        let order = &mut told.order;
        if order.course.polls == 0 {
            let pause = order.likely_pause(now, conditions);
            // A poll as soon as the CA may be done is none that found nothing.
            let pause = pause.unwrap_or_else(|| order.next_poll(conditions.jitter));
            order.next_action_at = Some(now + pause);
        }
        told
    }

    /// The pause after one more poll that found nothing new.
    pub(super) fn next_poll(&mut self, jitter: Jitter) -> Duration {
        let pause = backoff::poll(self.course.polls, jitter);
        self.course.polls = self.course.polls.saturating_add(1);
        pause
    }

    /// The pause until what the CA is at is likely to be done.
    pub(super) fn likely_pause(
        &self,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Option<Duration> {
        self.awaits()?;
        let waited = (now - self.handed_out_at).max(Duration::ZERO);
        let likely = conditions.likely_done?;
        Some(backoff::likely(self.course.polls, waited, likely))
    }

    /// Bounds every wake-up by the deadlines, which leave time for one more poll, and by the requests
    /// that may be sent.
    fn pace(&mut self, now: OffsetDateTime) {
        let Some(mut at) = self.next_action_at.filter(|_| !self.is_over()) else { return };
        if self.state == State::New {
            at = self.course.may_order_at().map_or(at, |may| at.max(may));
        }
        if let Some(end) = self.finalized_by().filter(|end| *end > now) {
            at = at.min(end);
        }
        let closing = self.deadline - LAST_POLLS;
        let looks = !matches!(self.stage(), None | Some(Stage::Presenting));
        at = at.min(if looks && now < closing { closing } else { self.deadline }).max(now);
        self.next_action_at = Some(at);
        let names = self.names.len();
        let wanted = self.next_step(at).map_or(0, |step| step.requests(names));
        self.next_action_at = Some(self.course.requests.free_at(names, wanted, at));
    }

    pub(super) fn end(mut self, end: End, outcome: Outcome, now: OffsetDateTime) -> Transition {
        let url = self.url().map(str::to_owned);
        // The CA cannot have refused an order that it never had.
        let end = if url.is_none() && end == End::Invalid { End::Errored } else { end };
        self.state = State::Done { url, end };
        for known in &mut self.challenges {
            known.schedule_clean_up(backoff::next_clean_up(now));
        }
        self.next_action_at = self.earliest_challenge();
        let mut events = Vec::new();
        if let Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) =
            &outcome
        {
            self.last_error = Some(failure.clone());
            events.push(Event::warning(self.id, "OrderFailed", failure.to_string()));
        }
        Transition { order: self, events, outcome: Some(outcome) }
    }

    /// A proof that can be seen waits for the others, not for a time.
    pub(super) fn earliest_challenge(&self) -> Option<OffsetDateTime> {
        self.challenges
            .iter()
            .filter(|known| known.state != challenge::State::Visible)
            .filter_map(|known| known.next_action_at)
            .min()
    }

    pub(super) fn mark_challenges(&mut self, state: challenge::State) {
        for known in &mut self.challenges {
            known.state = state;
            known.reason = None;
            known.observations.clear();
        }
    }

    pub(super) fn unchanged(self) -> Transition {
        Transition { order: self, events: Vec::new(), outcome: None }
    }
}
