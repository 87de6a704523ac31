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
mod transitions;
mod trouble;

pub use course::{Course, Requests};
pub use policy::deadline;
pub use step::*;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::domain::backoff::Jitter;
use crate::domain::certificate::Certificate;
use crate::domain::challenge::Challenge;
use crate::domain::event::Event;
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, ChallengeId, IssuerId, OrderId, RequestId};
use crate::domain::issuer::Issuer;
use crate::domain::throttle::Asker;
use crate::domain::trace::{SpanId, Trace};
use crate::domain::words::words;

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
    /// What it belongs to, as its certificate has it.
    pub trace: Option<Trace>,
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

words! {
    /// How far an open order is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    pub serde enum Stage {
        /// The authorizations have to be read.
        Authorizing = "authorizing",
        /// Proofs are being shown, until all can be seen.
        Presenting = "presenting",
        /// The CA is to be told that the proofs are there.
        Accepting = "accepting",
        /// The CA is looking.
        Validating = "validating",
        /// Everything is proved; the CSR is to be sent.
        Finalizing = "finalizing",
        /// The CSR may have been sent; the CA is signing.
        Processing = "processing",
        /// The certificate is there to be fetched.
        Downloading = "downloading",
    }
}

words! {
    /// How an order ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum End {
        /// With a certificate.
        Valid = "valid",
        /// The CA refused it after looking.
        Invalid = "invalid",
        /// It could not be carried through.
        Errored = "errored",
        /// It took longer than the CA, or we, wait.
        Expired = "expired",
    }
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
    /// When the CA's present work is likely to be done, counted from its beginning, as it was not until now.
    /// It shortens no pause after a failure.
    pub likely_done: Option<Duration>,
    /// All requests of the order, those of the step included; `None` counts what the step takes at best.
    pub requests: Option<Requests>,
    /// A name for which DNSSEC validation fails, where that was looked at just now.
    pub bogus: Option<String>,
}

impl From<Jitter> for Conditions {
    fn from(jitter: Jitter) -> Self {
        Self { jitter, likely_done: None, requests: None, bogus: None }
    }
}

/// An open order that has not ended after this long is given up, whatever the CA says.
pub const ORDER_DEADLINE: Duration = Duration::hours(24);

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
            trace: certificate.trace,
            created_at: now,
            handed_out_at: now,
            next_action_at: Some(now),
            deadline: now + ORDER_DEADLINE,
        }
    }

    /// The trace at the order's own span, which its steps belong to: every process knows it by the identifier.
    pub fn own_trace(&self) -> Option<Trace> {
        self.trace.map(|trace| trace.at(SpanId::of(self.id.0)))
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

    /// The stage of what the CA was told to do and is to be polled for, where nothing has disturbed it: how long
    /// that takes can be learned. It began when the stage was handed out.
    pub fn awaits(&self) -> Option<Stage> {
        let is_undisturbed = self.tries == 0 && self.stalled_since.is_none();
        self.stage().filter(|stage| match stage {
            Stage::Validating => is_undisturbed && !self.challenges.is_empty(),
            Stage::Processing => is_undisturbed,
            _ => false,
        })
    }

    /// The asker that the CA's limits count it for.
    pub fn asker<'a>(&'a self, issuer: &'a Issuer) -> Asker<'a> {
        Asker { names: &self.names, ..issuer.asker() }
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
