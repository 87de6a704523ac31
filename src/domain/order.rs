//! The life of an ACME order, as a pure state machine (RFC 8555, section 7.1.6).
//!
//! [`Order::next_step`] says what the outside world must do; [`Order::apply`] says what the
//! world's answer means. An order and its challenges are one aggregate under one lease: they are
//! loaded, decided on and settled together, so that a certificate with 25 names costs as many
//! transactions as one with a single name. Performing the step, and saving the result, is the
//! worker's business.

use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::backoff::{self, Jitter};
use super::challenge::{self, Action, Challenge, Patience};
use super::event::{Event, Resource};
use super::failure::{Class, Failure};
use super::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};

/// One order at one CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Our name for it.
    pub id: OrderId,
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

/// What must happen in the outside world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the CA for the order.
    Create,
    /// Read what has to be proved.
    ReadAuthorizations,
    /// Work on these challenges, all at once.
    Solve(Vec<(ChallengeId, Action)>),
    /// Tell the CA that every proof is there.
    Accept,
    /// See how far the CA is.
    Poll,
    /// Send the CSR.
    Finalize,
    /// Fetch the certificate.
    Download,
}

/// The CA's word for an order's state, with what it said beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// RFC 8555's status.
    pub status: Status,
    /// When the CA forgets the order.
    pub expires: Option<OffsetDateTime>,
    /// Not before this moment, as the CA asked.
    pub retry_at: Option<OffsetDateTime>,
}

/// RFC 8555's order status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Something is not proved yet.
    Pending,
    /// The CSR may be sent.
    Ready,
    /// The CA is signing.
    Processing,
    /// The certificate is there.
    Valid,
    /// It is over.
    Invalid,
}

/// What came of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The CA has the order under this URL.
    Created(String, Seen),
    /// What has to be proved, and how; empty when everything is already.
    Authorizations(Vec<Challenge>),
    /// What came of each challenge's action.
    Solved(Vec<(ChallengeId, Patience, challenge::Answer)>),
    /// The CA was told.
    Accepted,
    /// The order as the CA sees it.
    Looked(Seen),
    /// The CA ended the order, for this reason.
    Ended(Failure),
    /// The certificate was fetched and checked; the worker keeps the chain.
    Downloaded,
    /// The CA says that the certificate is not there yet.
    NotThereYet,
    /// It did not work.
    Failed(Failure),
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

/// An answer that does not belong to the order's state: a bug, not the world's doing.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the answer {answer} makes no sense while the order is {state:?}")]
pub struct UnexpectedAnswer {
    state: State,
    answer: &'static str,
}

/// An open order that has not ended after this long is given up, whatever the CA says.
pub const ORDER_DEADLINE: Duration = Duration::hours(24);

/// How long a CA may deny what it has just handed out (Let's Encrypt's replicas lag by seconds).
const CONSISTENCY_FOR: Duration = Duration::minutes(2);

/// A certificate that was issued is worth waiting longer for: asking anew would cost another one.
const DOWNLOAD_FOR: Duration = Duration::minutes(10);

/// A CSR counts as lost when the CA still wants one this long after it was sent.
const FINALIZE_LOST_AFTER: Duration = Duration::seconds(10);

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
            (State::Open { stage: Stage::Authorizing, .. }, Answer::Authorizations(challenges)) => {
                let events = challenges
                    .iter()
                    .map(|challenge| {
                        let message = format!(
                            "Created Challenge resource {} for domain \"{}\"",
                            challenge.id, challenge.domain
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
            (State::Open { stage: Stage::Downloading, .. }, Answer::NotThereYet) => {
                Ok(self.wait(None, now, jitter))
            }
            (State::New | State::Open { .. }, Answer::Failed(failure)) => {
                Ok(self.failed(failure, now, jitter))
            }
            (state, answer) => {
                Err(UnexpectedAnswer { state: state.clone(), answer: answer.word() })
            }
        }
    }

    /// The order once its time is up, if it is.
    pub fn expire(self, now: OffsetDateTime) -> Result<Transition, Self> {
        if self.is_over() || now < self.deadline {
            return Err(self);
        }
        let failure = self.last_error.clone().unwrap_or_else(|| {
            Failure::new(
                Class::Gone,
                "order_expired",
                "The order was not completed in time",
                "The CA forgets an order that is not completed before it expires.",
            )
        });
        Ok(self.end(End::Expired, Outcome::Lost(failure), now))
    }

    fn solved(
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
        self.last_error = trouble;
        let visible = self.challenges.iter().all(|known| known.state == challenge::State::Visible);
        if visible {
            let rested = self.challenges.iter().filter_map(|known| known.next_action_at).max();
            let mut told = self.advance(Stage::Accepting, now);
            told.order.next_action_at = rested.map_or(Some(now), |at| Some(at.max(now)));
            return told.with(events);
        }
        self.next_action_at = self.earliest_challenge();
        Transition { order: self, events, outcome: None }
    }

    /// What the CA's view of the order means at the stage that it is in.
    fn looked(
        mut self,
        stage: Stage,
        seen: &Seen,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        self.expires = seen.expires.or(self.expires);
        match (seen.status, stage) {
            (Status::Ready, Stage::Processing) => {
                // Either a lagging replica, or the CSR never arrived.
                if now - self.handed_out_at < FINALIZE_LOST_AFTER {
                    return self.wait(seen.retry_at, now, jitter);
                }
                self.advance(Stage::Finalizing, now)
            }
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
            (Status::Processing, Stage::Finalizing) => self.advance(Stage::Processing, now),
            (Status::Pending | Status::Processing | Status::Invalid, _) => {
                self.wait(seen.retry_at, now, jitter)
            }
        }
    }

    fn ended_by_ca(mut self, failure: Failure, now: OffsetDateTime) -> Transition {
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
    fn failed(mut self, failure: Failure, now: OffsetDateTime, jitter: Jitter) -> Transition {
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
                let pause = jitter.stretch(pause.max(Duration::seconds(1)), 0.1);
                self.next_action_at = Some((now + pause).min(self.deadline));
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
                let at = failure.retry_at.map_or(at, |asked| asked.max(at));
                // The CSR may have arrived: look before it is sent again.
                let (stage, at) = match (stage, failure.class) {
                    (Some(Stage::Finalizing), Class::Conflict) => (Some(Stage::Processing), now),
                    (Some(Stage::Finalizing), _) => (Some(Stage::Processing), at),
                    (stage, _) => (stage, at),
                };
                if let (State::Open { stage: present, .. }, Some(stage)) = (&mut self.state, stage)
                {
                    *present = stage;
                }
                self.next_action_at = Some(at);
                self.tries += 1;
                self.unchanged()
            }
            Class::Validation => self.end(End::Invalid, Outcome::Failed(failure), now),
            Class::Blocked => self.end(End::Errored, Outcome::Blocked(failure), now),
        }
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
        // The CA answers again: the pauses of its trouble are over.
        if self.last_error.take().is_some() {
            self.tries = 0;
        }
        let at = now + backoff::poll(self.tries, jitter);
        self.next_action_at = Some(asked.map_or(at, |asked| asked.max(at)).min(self.deadline));
        self.tries += 1;
        self.unchanged()
    }

    fn end(mut self, end: End, outcome: Outcome, now: OffsetDateTime) -> Transition {
        let url = self.url().map(str::to_owned);
        self.state = State::Done { url, end };
        for known in &mut self.challenges {
            known.wind_down(now);
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

impl Answer {
    fn word(&self) -> &'static str {
        match self {
            Self::Created(..) => "Created",
            Self::Authorizations(_) => "Authorizations",
            Self::Solved(_) => "Solved",
            Self::Accepted => "Accepted",
            Self::Looked(_) => "Looked",
            Self::Ended(_) => "Ended",
            Self::Downloaded => "Downloaded",
            Self::NotThereYet => "NotThereYet",
            Self::Failed(_) => "Failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn a_cancelled_order_still_takes_its_records_away() {
        let cancelled = order([challenge::State::Pending, challenge::State::Presented])
            .cancel("its certificate was deleted", NOW)
            .order;

        assert!(cancelled.is_over());
        assert_eq!(cancelled.next_action_at, Some(NOW));
        let due = |at| cancelled.challenges.iter().map(|one| one.due(true, at)).collect::<Vec<_>>();
        assert_eq!(due(NOW), [None, Some(Action::CleanUp)], "the first may just be written");
        assert_eq!(due(NOW + STEP_ENDS_WITHIN), [Some(Action::CleanUp); 2]);
    }

    #[test]
    fn cancelling_what_is_over_changes_nothing() {
        let once = order([]).cancel("first", NOW).order;
        let twice = once.clone().cancel("second", NOW);

        assert_eq!((twice.order, twice.outcome), (once, None));
    }

    #[test]
    fn looks_that_found_nothing_new_do_not_lengthen_the_pause_after_the_first_trouble() {
        let mut waiting = order([]);
        let url = "https://ca.example/1".to_owned();
        waiting.state = State::Open { url, stage: Stage::Validating };
        let told = |order: Order, answer| order.apply(answer, NOW, Jitter::NONE).unwrap().order;
        let not_yet =
            || Answer::Looked(Seen { status: Status::Pending, expires: None, retry_at: None });
        let down = || Answer::Failed(Failure::new(Class::Transient, "down", "Down", "502"));
        for _ in 0..10 {
            waiting = told(waiting, not_yet());
        }

        let first = told(waiting, down());
        let second = told(first.clone(), down());
        let after = told(second.clone(), not_yet());

        assert_eq!(first.next_action_at, Some(NOW + Duration::seconds(5)));
        assert_eq!(second.next_action_at, Some(NOW + Duration::seconds(10)));
        assert_eq!(after.next_action_at, Some(NOW + Duration::milliseconds(100)));
    }

    fn order<const N: usize>(states: [challenge::State; N]) -> Order {
        Order {
            id: OrderId(Uuid::nil()),
            certificate: CertificateId(Uuid::nil()),
            request: RequestId(Uuid::nil()),
            issuer: IssuerId(Uuid::nil()),
            namespace: "default".into(),
            names: vec!["a.example.com".into()],
            profile: None,
            predecessors: 0,
            state: State::Open { url: "https://ca.example/1".into(), stage: Stage::Presenting },
            expires: None,
            challenges: (1..).zip(states).map(|(place, state)| challenge(place, state)).collect(),
            tries: 0,
            stalled_since: None,
            attempts: 0,
            last_error: None,
            created_at: NOW,
            handed_out_at: NOW,
            next_action_at: Some(NOW),
            deadline: NOW + ORDER_DEADLINE,
        }
    }

    fn challenge(place: u128, state: challenge::State) -> Challenge {
        Challenge {
            id: ChallengeId(Uuid::from_u128(place)),
            authorization_url: String::new(),
            url: String::new(),
            domain: "a.example.com".into(),
            wildcard: false,
            kind: challenge::Kind::Dns01,
            solver: 0,
            token: "token".into(),
            state,
            record: None,
            clean: false,
            tries: 0,
            reason: None,
            next_action_at: Some(NOW),
            deadline: NOW + Duration::minutes(5),
        }
    }
}
