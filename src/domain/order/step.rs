//! What the outside world is asked to do for an order, and what it may answer.

use thiserror::Error;
use time::OffsetDateTime;

use super::State;
use crate::domain::challenge::{self, Action, Challenge, Patience};
use crate::domain::failure::Failure;
use crate::domain::id::ChallengeId;

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
    /// See how far the CA is, and what it says of each authorization.
    Inspect,
    /// Send the CSR.
    Finalize,
    /// Fetch the certificate.
    Download,
}

impl Step {
    /// What it asks of the CA for so many names where every answer is good: a nonce, the order where that
    /// is not at hand, and what it is for. Each fits into any minute of an order's [`super::Requests`].
    pub fn requests(&self, names: usize) -> u32 {
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        match self {
            Self::Solve(_) => 0,
            Self::Poll => 2,
            Self::Create | Self::Finalize | Self::Download => 3,
            Self::ReadAuthorizations | Self::Accept | Self::Inspect => names.saturating_add(2),
        }
    }

    /// Whether it may be taken again where its answer was lost: it only looks, or what came of it is
    /// found when it is taken again. What is written into the DNS is found by its name and value.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Accept | Self::Poll | Self::Inspect | Self::Finalize => true,
            Self::Solve(actions) => actions.iter().all(|(_, action)| *action != Action::CleanUp),
            Self::Create | Self::ReadAuthorizations | Self::Download => false,
        }
    }
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
    /// The CA does not take it as a replacement, for this reason.
    NotReplacing(Failure),
    /// What has to be proved, and how; empty when everything is already.
    Authorizations(Vec<Challenge>),
    /// What came of each challenge's action.
    Solved(Vec<(ChallengeId, Patience, challenge::Answer)>),
    /// The CA was told.
    Accepted,
    /// The order as the CA sees it.
    Looked(Seen),
    /// The same, and what the CA says of challenges, by their URLs.
    Inspected(Seen, Vec<(String, Failure)>),
    /// The CA ended the order, for this reason.
    Ended(Failure),
    /// The certificate was fetched and checked; the worker keeps the chain.
    Downloaded,
    /// It did not work.
    Failed(Failure),
}

/// An answer that does not belong to the order's state: a bug, not the world's doing.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the answer {answer} makes no sense while the order is {state:?}")]
pub struct UnexpectedAnswer {
    pub(super) state: State,
    pub(super) answer: &'static str,
}

impl Answer {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Created(..) => "Created",
            Self::NotReplacing(_) => "NotReplacing",
            Self::Authorizations(_) => "Authorizations",
            Self::Solved(_) => "Solved",
            Self::Accepted => "Accepted",
            Self::Looked(_) => "Looked",
            Self::Inspected(..) => "Inspected",
            Self::Ended(_) => "Ended",
            Self::Downloaded => "Downloaded",
            Self::Failed(_) => "Failed",
        }
    }
}
