//! Why a step came to nothing.

use thiserror::Error;

use crate::domain::failure::{Failure, code};
use crate::domain::order::UnexpectedAnswer;
use crate::pki::PkiError;
use crate::secret::SealError;
use crate::storage::StorageError;

/// Why a step came to nothing, where that is ours.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The database did not do what was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A sealed value could not be opened, or one not be sealed.
    #[error("a secret could not be opened or sealed")]
    Secret(#[from] SealError),
    /// A key or CSR could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A bug: the interpreter gave the order machine an answer that its state does not allow.
    #[error("a step broke the order machine's contract")]
    Contract(#[from] UnexpectedAnswer),
    /// A background computation died.
    #[error("a computation was cut short")]
    Cut(#[from] tokio::task::JoinError),
    /// A bug: the step's code panicked.
    #[error("a step panicked: {0}")]
    Panicked(String),
}

/// Why a step has no answer of its own.
pub(crate) enum Trouble {
    /// The outside world's doing: the machine decides what it means.
    Failed(Failure),
    /// Ours.
    Broken(WorkerError),
}

pub(crate) type Tried<T> = Result<T, Trouble>;

impl Trouble {
    /// The failure that a machine is told; the error where only the pool can deal with it.
    pub(crate) fn into_failure(self) -> Result<Failure, WorkerError> {
        match self {
            Self::Failed(failure) => Ok(failure),
            Self::Broken(WorkerError::Secret(error)) => Ok(unreadable(&error)),
            Self::Broken(error) => Err(error),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<E: Into<WorkerError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// A secret of ours cannot be opened: only the right master key helps.
pub(crate) fn unreadable(error: &SealError) -> Failure {
    Failure::of(code::SECRET_UNREADABLE, error.to_string())
}
