//! The steps of an order in the outside world, and their answers.

use thiserror::Error;
use time::OffsetDateTime;

use super::State;
use crate::domain::challenge::{self, Action, Challenge, ProofTimeouts};
use crate::domain::failure::Failure;
use crate::domain::id::ChallengeId;

/// One step in the outside world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the CA for the order.
    Create,
    /// Read the authorizations.
    ReadAuthorizations,
    /// Work on these challenges, all at once.
    Solve(Vec<(ChallengeId, Action)>),
    /// Tell the CA that every challenge can be validated.
    Accept,
    /// Poll the order.
    Poll,
    /// Poll the order and every authorization.
    Inspect,
    /// Send the CSR.
    Finalize,
    /// Fetch the certificate.
    Download,
}

impl Step {
    /// What it is called where people look for where the time went.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create order",
            Self::ReadAuthorizations => "read authorizations",
            Self::Solve(_) => "solve challenges",
            Self::Accept => "accept challenges",
            Self::Poll => "poll order",
            Self::Inspect => "inspect order",
            Self::Finalize => "finalize order",
            Self::Download => "download certificate",
        }
    }

    /// The requests that it takes at best for so many names: a nonce, the order where that is not at hand,
    /// and the requests that the step is for. Each step fits into any minute of an order's
    /// [`super::Requests`].
    pub fn requests(&self, names: usize) -> u32 {
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        match self {
            Self::Solve(_) => 0,
            Self::Poll => 2,
            Self::Create | Self::Finalize | Self::Download => 3,
            Self::ReadAuthorizations | Self::Accept | Self::Inspect => names.saturating_add(2),
        }
    }

    /// Whether it may be taken again where its answer was lost: it only reads, or it finds what it did
    /// the first time. A DNS record is found by its name and value.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Accept | Self::Poll | Self::Inspect | Self::Finalize => true,
            Self::Solve(actions) => actions.iter().all(|(_, action)| *action != Action::CleanUp),
            Self::Create | Self::ReadAuthorizations | Self::Download => false,
        }
    }
}

/// An order as the CA describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub status: Status,
    pub expires: Option<OffsetDateTime>,
    /// The CA asked to be polled no earlier (`Retry-After`).
    pub retry_at: Option<OffsetDateTime>,
}

/// RFC 8555's order status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Some authorization is not valid yet.
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

/// The answer to a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The CA has the order under this URL.
    Created(String, Seen),
    /// The CA does not take it as a replacement, for this reason.
    NotReplacing(Failure),
    /// The challenges that were chosen; none where every authorization is valid already.
    Authorizations(Vec<Challenge>),
    /// The answer to each challenge's action.
    Solved(Vec<(ChallengeId, ProofTimeouts, challenge::Answer)>),
    /// The CA knows that the challenges can be validated.
    Accepted,
    /// The order as the CA describes it.
    Polled(Seen),
    /// The same, with the errors of challenges by their URLs.
    Inspected(Seen, Vec<(String, Failure)>),
    /// The CA ended the order, for this reason.
    Ended(Failure),
    /// The certificate was fetched and checked; the worker keeps the chain.
    Downloaded,
    /// The step failed.
    Failed(Failure),
}

/// An answer that does not belong to the order's state: a bug of the interpreter.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the answer {answer} makes no sense while the order is {state:?}")]
pub struct UnexpectedAnswer {
    pub(super) state: State,
    pub(super) answer: String,
}
