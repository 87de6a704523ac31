//! The life of an ACME order, as a pure state machine (RFC 8555, section 7.1.6).
//!
//! [`Order::next_step`] says what the outside world must do; [`Order::apply`] says what the
//! world's answer means. An order and its challenges are one aggregate under one lease: they are
//! loaded, decided on and settled together, so that a certificate with 25 names costs as many
//! transactions as one with a single name. Performing the step, and saving the result, is the
//! worker's business.

mod course;
mod policy;
mod step;
#[cfg(test)]
mod tests;

pub use course::{Course, Requests};
pub use policy::deadline;
use policy::may_have_ordered;
pub use step::*;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::domain::backoff::{self, Jitter};
use crate::domain::certificate::Certificate;
use crate::domain::challenge::{self, Challenge};
use crate::domain::event::{Event, Resource};
use crate::domain::failure::{Failure, code};
use crate::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};
use crate::domain::issuer::Issuer;
use crate::domain::throttle::Asker;

/// One order at one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// The name that people type; see [`name`].
    pub name: String,
    pub certificate: CertificateId,
    /// The attempt that it serves; its key and CSR outlive the order.
    pub request: RequestId,
    pub issuer: IssuerId,
    pub namespace: String,
    /// Wildcards are written with `*.`.
    pub names: Vec<String>,
    pub profile: Option<String>,
    /// ARI's identifier of the certificate that it replaces (RFC 9773, section 5).
    pub replaces: Option<String>,
    /// The end of the certificate that is asked for; `None` leaves it to the CA.
    pub not_after: Option<OffsetDateTime>,
    /// Orders for the same request that the CA lost before this one.
    pub predecessors: u32,
    pub state: State,
    /// The CA forgets the order then.
    pub expires: Option<OffsetDateTime>,
    /// One for each name that is not proved yet.
    pub challenges: Vec<Challenge>,
    /// Failures since the last progress.
    pub tries: u32,
    /// Time of the first of these failures.
    pub stalled_since: Option<OffsetDateTime>,
    pub course: Course,
    /// Steps taken, all in all.
    pub attempts: u32,
    pub last_error: Option<Failure>,
    pub created_at: OffsetDateTime,
    /// When the CA handed out what is asked for now: a 404 soon after is a lagging replica.
    pub handed_out_at: OffsetDateTime,
    /// The next step is due then; `None` once nothing is left to do.
    pub next_action_at: Option<OffsetDateTime>,
    /// After this moment the order has failed.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// The meaning of an order's end for its certificate.
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

/// The result of applying an answer to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub order: Order,
    pub events: Vec<Event>,
    /// Set once, by the transition that ends the order.
    pub outcome: Option<Outcome>,
}

/// The conditions under which an answer is applied.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub jitter: Jitter,
    /// Pause before the first poll of work that the CA has just begun, where the CA was lately done
    /// sooner than usual. It shortens no pause after a failure.
    pub first_poll: Option<Duration>,
    /// All requests of the order, those of the step included; `None` counts what the step takes at best.
    pub requests: Option<Requests>,
}

impl From<Jitter> for Conditions {
    fn from(jitter: Jitter) -> Self {
        Self { jitter, first_poll: None, requests: None }
    }
}

/// An open order that has not ended after this long is given up, whatever the CA says.
pub const ORDER_DEADLINE: Duration = Duration::hours(24);

/// An order is polled so long before its deadline, whatever it was told to wait for.
const LAST_POLLS: Duration = Duration::minutes(2);

/// An order that makes progress at its last poll gets so much longer.
const LATE_PROGRESS: Duration = Duration::minutes(10);

/// A step that was under way when its order was cancelled is over after this long: the workers' lease.
const STEP_ENDS_WITHIN: Duration = Duration::minutes(2);

impl Order {
    /// An order that the CA has not heard of yet, for all names of a certificate.
    #[must_use]
    pub fn placed(
        id: OrderId,
        certificate: &Certificate,
        request: RequestId,
        issuer: IssuerId,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            id,
            name: name(&certificate.request_name(), id),
            certificate: certificate.id,
            request,
            issuer,
            namespace: certificate.namespace.clone(),
            names: certificate.spec.names(),
            profile: None,
            replaces: None,
            not_after: None,
            predecessors: 0,
            state: State::New,
            expires: None,
            challenges: Vec::new(),
            tries: 0,
            stalled_since: None,
            course: Course::default(),
            attempts: 0,
            last_error: None,
            created_at: now,
            handed_out_at: now,
            next_action_at: Some(now),
            deadline: now + ORDER_DEADLINE,
        }
    }

    /// The step that would bring the order further, if one is due at `now`.
    pub fn next_step(&self, now: OffsetDateTime) -> Option<Step> {
        if self.next_action_at.is_none_or(|at| at > now) {
            return None;
        }
        match &self.state {
            State::New => Some(Step::Create),
            // No order is given up without a last poll.
            State::Open { .. } if now >= self.deadline => Some(Step::Poll),
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
            State::Open { stage: Stage::Validating, .. } if self.wants_inspection(now) => {
                Some(Step::Inspect)
            }
            State::Open { stage: Stage::Validating | Stage::Processing, .. } => Some(Step::Poll),
            State::Open { stage: Stage::Finalizing, .. } => Some(Step::Finalize),
            State::Open { stage: Stage::Downloading, .. } => Some(Step::Download),
        }
    }

    /// Whether it has ended. Its challenges may still have to be cleaned up.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Its stage, between its beginning and its end.
    pub fn stage(&self) -> Option<Stage> {
        match self.state {
            State::Open { stage, .. } => Some(stage),
            State::New | State::Done { .. } => None,
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

    /// The asker that the CA's limits count it for.
    pub fn asker<'a>(&'a self, issuer: &'a Issuer) -> Asker<'a> {
        let account = issuer.account.as_ref().map_or("", |account| &account.url);
        Asker { server: &issuer.acme.server, account, names: &self.names }
    }

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
        let mut told = self.answered(answer, was_asked, now, &conditions)?;
        if was_last && !told.order.is_over() {
            if told.order.course.reached == reached {
                let Transition { order, events, .. } = told;
                return Ok(order.expire(now).with(events));
            }
            // Every stage is reached once: that does not go on for ever.
            told.order.deadline = told.order.deadline.max(now + LATE_PROGRESS);
        }
        told.order.pace(now);
        Ok(told)
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
                let event = Event::normal(
                    Resource::Order(self.id),
                    "Complete",
                    "Order completed successfully",
                );
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
                Err(UnexpectedAnswer { state: state.clone(), answer: answer.word() })
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
        // An order that is over before it has begun is a CA with another clock.
        self.expires = seen.expires.filter(|at| *at > now);
        self.deadline = self.expires.map_or(self.deadline, |at| at.min(self.deadline));
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
                Event::normal(Resource::Order(self.id), "Created", message)
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
    fn advance(mut self, stage: Stage, now: OffsetDateTime, jitter: Jitter) -> Transition {
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

    /// The CA has begun on something: polls first about when the CA was done lately.
    fn begin_waiting(
        self,
        stage: Stage,
        now: OffsetDateTime,
        conditions: &Conditions,
    ) -> Transition {
        let mut told = self.advance(stage, now, conditions.jitter);
        let order = &mut told.order;
        if order.course.polls == 0 {
            let usual = order.next_poll(conditions.jitter);
            let sooner = conditions.first_poll.filter(|pause| *pause < usual);
            order.course.polls = u32::from(sooner.is_none());
            order.next_action_at = Some(now + sooner.unwrap_or(usual));
        }
        told
    }

    /// The pause after one more poll that found nothing new.
    fn next_poll(&mut self, jitter: Jitter) -> Duration {
        let pause = backoff::poll(self.course.polls, jitter);
        self.course.polls = self.course.polls.saturating_add(1);
        pause
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

    fn end(mut self, end: End, outcome: Outcome, now: OffsetDateTime) -> Transition {
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
    /// Nothing happened: the order is due again in half a minute.
    pub fn waiting(mut order: Order, now: OffsetDateTime) -> Self {
        order.next_action_at = Some(now + Duration::seconds(30));
        order.unchanged()
    }

    fn with(mut self, events: Vec<Event>) -> Self {
        self.events.splice(0..0, events);
        self
    }
}
