//! The life of an ACME order, as a pure state machine (RFC 8555, section 7.1.6).
//!
//! [`Order::next_step`] says what the outside world must do; [`Order::apply`] says what the
//! world's answer means. An order and its challenges are one aggregate under one lease: they are
//! loaded, decided on and settled together, so that a certificate with 25 names costs as many
//! transactions as one with a single name. Performing the step, and saving the result, is the
//! worker's business.

mod policy;
mod step;
#[cfg(test)]
mod tests;

pub use policy::deadline;
pub use step::*;

use time::{Duration, OffsetDateTime};

use crate::domain::backoff::{self, Jitter};
use crate::domain::challenge::{self, Challenge};
use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Class, Failure};
use crate::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};

/// One order at one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Our name for it.
    pub id: OrderId,
    /// The name that people type, as [`name`] makes it.
    pub name: String,
    /// The certificate that wants it.
    pub certificate: CertificateId,
    /// The attempt that it serves; its key and CSR outlive the order.
    pub request: RequestId,
    /// Whose account it is under.
    pub issuer: IssuerId,
    /// The certificate's namespace.
    pub namespace: String,
    /// What it is for, wildcards with `*.`.
    pub names: Vec<String>,
    /// Certificate profile asked for.
    pub profile: Option<String>,
    /// The certificate that it says it replaces, in ARI's words (RFC 9773, section 5).
    pub replaces: Option<String>,
    /// When the certificate is to end; `None` leaves that to the CA.
    pub not_after: Option<OffsetDateTime>,
    /// Orders for the same request that the CA lost before this one.
    pub predecessors: u32,
    /// Where it is.
    pub state: State,
    /// When the CA forgets it.
    pub expires: Option<OffsetDateTime>,
    /// One for each name that has to be proved.
    pub challenges: Vec<Challenge>,
    /// Answers in a row of one kind, trouble or "not yet", that brought no progress.
    pub tries: u32,
    /// Since when there has been no progress.
    pub stalled_since: Option<OffsetDateTime>,
    /// Calls made for it, all in all.
    pub attempts: u32,
    /// What last went wrong.
    pub last_error: Option<Failure>,
    /// When it was wanted.
    pub created_at: OffsetDateTime,
    /// When the CA handed out what is asked for now: a 404 soon after is a lagging replica.
    pub handed_out_at: OffsetDateTime,
    /// When it wants attention again; `None` once nothing is left to do.
    pub next_action_at: Option<OffsetDateTime>,
    /// After this moment it has failed.
    pub deadline: OffsetDateTime,
}

/// The name of an order, as cert-manager derives it: the request's, and a hash.
pub fn name(request: &str, id: OrderId) -> String {
    format!("{request}-{}", id.tail())
}

/// The name of a challenge, as cert-manager derives it: the order's, and a hash.
pub fn challenge_name(order: &str, id: ChallengeId) -> String {
    format!("{order}-{}", id.tail())
}

/// Where an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The CA has not heard of it, as far as we know.
    New,
    /// The CA has it.
    Open {
        /// The CA's name for it.
        url: String,
        /// How far it is.
        stage: Stage,
    },
    /// It is over; challenges may still have to be cleaned up.
    Done {
        /// The CA's name for it, if it ever had one.
        url: Option<String>,
        /// How it ended.
        end: End,
    },
}

/// How far an open order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The authorizations have to be read.
    Authorizing,
    /// Proofs are being shown, until all can be seen.
    Presenting,
    /// The CA is to be told that the proofs are there.
    Accepting,
    /// The CA is looking.
    Validating,
    /// Everything is proved; the CSR is to be sent.
    Finalizing,
    /// The CSR may have been sent; the CA is signing.
    Processing,
    /// The certificate is there to be fetched.
    Downloading,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a certificate.
    Valid,
    /// The CA refused it after looking.
    Invalid,
    /// It could not be carried through.
    Errored,
    /// It took longer than the CA, or we, wait.
    Expired,
}

/// What an order's end means for its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is a certificate.
    Issued,
    /// The CA lost the order or let it go stale: a fresh one may do.
    Lost(Failure),
    /// This attempt failed; the next one comes after a while.
    Failed(Failure),
    /// Nothing will change until a person changes something.
    Blocked(Failure),
}

/// What an answer makes of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The order from now on.
    pub order: Order,
    /// What happened, for the history.
    pub events: Vec<Event>,
    /// Set once, when the order has just ended.
    pub outcome: Option<Outcome>,
}

/// An open order that has not ended after this long is given up, whatever the CA says.
pub const ORDER_DEADLINE: Duration = Duration::hours(24);

/// A step that was under way when an order was cancelled is over after this long (the workers' lease).
const STEP_ENDS_WITHIN: Duration = Duration::minutes(2);

impl Order {
    /// The step that would bring the order further, if one is due at `now`.
    pub fn next_step(&self, now: OffsetDateTime) -> Option<Step> {
        if self.next_action_at.is_none_or(|at| at > now) {
            return None;
        }
        match &self.state {
            State::New => Some(Step::Create),
            State::Open { stage: Stage::Authorizing, .. } => Some(Step::ReadAuthorizations),
            State::Open { stage: Stage::Presenting, .. } | State::Done { .. } => {
                let due: Vec<_> = self
                    .challenges
                    .iter()
                    .filter_map(|challenge| {
                        challenge.due(self.is_over(), now).map(|action| (challenge.id, action))
                    })
                    .collect();
                (!due.is_empty()).then_some(Step::Solve(due))
            }
            State::Open { stage: Stage::Accepting, .. } => Some(Step::Accept),
            State::Open { stage: Stage::Validating | Stage::Processing, .. } => Some(Step::Poll),
            State::Open { stage: Stage::Finalizing, .. } => Some(Step::Finalize),
            State::Open { stage: Stage::Downloading, .. } => Some(Step::Download),
        }
    }

    /// Whether it has ended; its challenges may still want cleaning up.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// How far it is, between its beginning and its end.
    pub fn stage(&self) -> Option<Stage> {
        match self.state {
            State::Open { stage, .. } => Some(stage),
            State::New | State::Done { .. } => None,
        }
    }

    /// Is looked at by this time already, where it would be later: one look more than else.
    pub fn look_sooner(&mut self, at: OffsetDateTime) {
        if self.next_action_at.is_some_and(|known| at < known) {
            self.next_action_at = Some(at);
            self.tries = 0;
        }
    }

    /// The CA's name for it.
    pub fn url(&self) -> Option<&str> {
        match &self.state {
            State::New => None,
            State::Open { url, .. } => Some(url),
            State::Done { url, .. } => url.as_deref(),
        }
    }

    /// What the order becomes once the outside world has answered.
    ///
    /// # Errors
    /// When the answer does not belong to the state: the worker broke the contract.
    pub fn apply(
        mut self,
        answer: Answer,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Result<Transition, UnexpectedAnswer> {
        self.attempts = self.attempts.saturating_add(1);
        match (&self.state, answer) {
            (State::New, Answer::Created(url, seen)) => {
                self.expires = seen.expires;
                self.deadline = seen.expires.map_or(self.deadline, |at| at.min(self.deadline));
                let stage = match seen.status {
                    Status::Pending | Status::Invalid => Stage::Authorizing,
                    Status::Ready => Stage::Finalizing,
                    Status::Processing => Stage::Processing,
                    Status::Valid => Stage::Downloading,
                };
                self.state = State::Open { url, stage: Stage::Authorizing };
                Ok(self.advance(stage, now))
            }
            (State::New, Answer::NotReplacing(failure)) => Ok(self.not_replacing(&failure, now)),
            (State::Open { stage: Stage::Authorizing, .. }, Answer::Authorizations(challenges)) => {
                let events = challenges
                    .iter()
                    .map(|challenge| {
                        let message = format!(
                            "Created Challenge resource \"{}\" for domain \"{}\"",
                            challenge_name(&self.name, challenge.id),
                            challenge.domain
                        );
                        Event::normal(Resource::Order(self.id), "Created", message)
                    })
                    .collect();
                let stage =
                    if challenges.is_empty() { Stage::Validating } else { Stage::Presenting };
                self.challenges = challenges;
                Ok(self.advance(stage, now).with(events))
            }
            (
                State::Open { stage: Stage::Presenting, .. } | State::Done { .. },
                Answer::Solved(answers),
            ) => Ok(self.solved(answers, now, jitter)),
            (State::Open { stage: Stage::Accepting, .. }, Answer::Accepted) => {
                for challenge in &mut self.challenges {
                    challenge.state = challenge::State::Processing;
                }
                let mut told = self.advance(Stage::Validating, now);
                told.order.next_action_at = Some(now + backoff::poll(0, jitter));
                told.order.tries = 1;
                Ok(told)
            }
            (State::Open { stage, .. }, Answer::Looked(seen)) => {
                let stage = *stage;
                Ok(self.looked(stage, &seen, now, jitter))
            }
            (State::Open { .. }, Answer::Ended(failure)) => Ok(self.ended_by_ca(failure, now)),
            (State::Open { stage: Stage::Downloading, .. }, Answer::Downloaded) => {
                let event = Event::normal(
                    Resource::Order(self.id),
                    "Complete",
                    "Order completed successfully",
                );
                Ok(self.end(End::Valid, Outcome::Issued, now).with(vec![event]))
            }
            (State::New | State::Open { .. }, Answer::Failed(failure)) => {
                Ok(self.failed(failure, now, jitter))
            }
            (State::Done { .. }, Answer::Failed(failure)) => {
                Ok(self.clean_up_failed(&failure, now, jitter))
            }
            (state, answer) => {
                Err(UnexpectedAnswer { state: state.clone(), answer: answer.word() })
            }
        }
    }

    /// Whether its time is up.
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        !self.is_over() && now >= self.deadline
    }

    /// The order once its time is up.
    #[must_use]
    pub fn expire(self, now: OffsetDateTime) -> Transition {
        let failure = self.last_error.clone().unwrap_or_else(|| {
            Failure::new(
                Class::Gone,
                "order_expired",
                "The order was not completed in time",
                "The CA forgets an order that is not completed before it expires.",
            )
        });
        self.end(End::Expired, Outcome::Lost(failure), now)
    }

    /// Nobody wants it any more, because of `why`. What was shown for it is still taken away.
    #[must_use]
    pub fn cancel(self, why: &str, now: OffsetDateTime) -> Transition {
        if self.is_over() {
            return self.unchanged();
        }
        let failure =
            Failure::new(Class::Gone, "order_cancelled", "The order was cancelled", why.to_owned());
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
                known.wind_down(now + STEP_ENDS_WITHIN);
            }
        }
        ended.order.next_action_at = ended.order.earliest_challenge();
        ended
    }

    fn advance(mut self, stage: Stage, now: OffsetDateTime) -> Transition {
        if let State::Open { stage: present, .. } = &mut self.state {
            *present = stage;
        }
        self.tries = 0;
        self.stalled_since = None;
        self.last_error = None;
        self.handed_out_at = now;
        self.next_action_at = Some(now);
        self.unchanged()
    }

    fn wait(
        mut self,
        asked: Option<OffsetDateTime>,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let processing = matches!(self.state, State::Open { stage: Stage::Processing, .. });
        let pause = match self.last_error {
            // It may be the CSR that the CA does not take: that is not over before it is signing.
            Some(_) if processing => jitter.stretch(Duration::seconds(1), 0.1),
            Some(_) => {
                // The CA answers again: its trouble is over.
                self.last_error = None;
                self.stalled_since = None;
                self.tries = 1;
                backoff::poll(0, jitter)
            }
            None => {
                self.tries += 1;
                backoff::poll(self.tries - 1, jitter)
            }
        };
        let at = now + pause;
        self.next_action_at = Some(asked.map_or(at, |asked| asked.max(at)).min(self.deadline));
        self.unchanged()
    }

    fn end(mut self, end: End, outcome: Outcome, now: OffsetDateTime) -> Transition {
        let url = self.url().map(str::to_owned);
        // What the CA never had it has not looked at.
        let end = if url.is_none() && end == End::Invalid { End::Errored } else { end };
        self.state = State::Done { url, end };
        for known in &mut self.challenges {
            known.wind_down(backoff::next_tidying(now));
        }
        self.next_action_at = self.earliest_challenge();
        let mut events = Vec::new();
        if let Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) =
            &outcome
        {
            self.last_error = Some(failure.clone());
            events.push(Event::warning(
                Resource::Order(self.id),
                "OrderFailed",
                failure.to_string(),
            ));
        }
        Transition { order: self, events, outcome: Some(outcome) }
    }

    /// A proof that can be seen waits for the others, not for a time.
    fn earliest_challenge(&self) -> Option<OffsetDateTime> {
        self.challenges
            .iter()
            .filter(|known| known.state != challenge::State::Visible)
            .filter_map(|known| known.next_action_at)
            .min()
    }

    fn mark_challenges(&mut self, state: challenge::State) {
        for known in &mut self.challenges {
            known.state = state;
            known.reason = None;
            known.observations.clear();
        }
    }

    fn unchanged(self) -> Transition {
        Transition { order: self, events: Vec::new(), outcome: None }
    }
}

impl Transition {
    /// Nothing happened: look again in half a minute.
    pub fn waiting(mut order: Order, now: OffsetDateTime) -> Self {
        order.next_action_at = Some(now + Duration::seconds(30));
        order.unchanged()
    }

    fn with(mut self, events: Vec<Event>) -> Self {
        self.events.splice(0..0, events);
        self
    }
}
