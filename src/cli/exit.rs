//! How the program ends: scripts rely on these numbers, docs/cli.md lists them.

use thiserror::Error;

use super::words;
use crate::client::ClientError;

/// What the command line itself has to complain about.
#[derive(Debug, Error)]
pub(super) enum Complaint {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It did not come in time.
    #[error("{0}")]
    TimedOut(String),
    /// What `diff` was to find; it has been printed.
    #[error("there are differences")]
    Differs,
    /// What `diff` could not find out.
    #[error("it cannot be said what would change")]
    CannotTell,
}

impl Complaint {
    pub(super) fn usage(problem: impl Into<String>) -> anyhow::Error {
        Self::Usage(problem.into()).into()
    }

    pub(super) fn not_found(problem: impl Into<String>) -> anyhow::Error {
        Self::NotFound(problem.into()).into()
    }
}

/// What is wrong, in the command line's own words; nothing where all has been said.
pub fn message(error: &anyhow::Error) -> Option<String> {
    let is_said = matches!(error.downcast_ref::<Complaint>(), Some(Complaint::Differs));
    (!is_said).then(|| words::own(&format!("{error:#}")))
}

/// Whether something is not there.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    status_of(error) == NOT_FOUND
}

/// Success.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const TIMED_OUT: u8 = 4;
const NOT_ALLOWED: u8 = 5;
const UNREACHABLE: u8 = 6;

/// The exit status for an error.
pub fn status_of(error: &anyhow::Error) -> u8 {
    // Said around the cause, whose own status is not the one that counts.
    if matches!(error.downcast_ref(), Some(Complaint::CannotTell)) {
        return USAGE;
    }
    for cause in error.chain() {
        if let Some(complaint) = cause.downcast_ref::<Complaint>() {
            return match complaint {
                Complaint::Usage(_) | Complaint::CannotTell => USAGE,
                Complaint::NotFound(_) => NOT_FOUND,
                Complaint::TimedOut(_) => TIMED_OUT,
                Complaint::Differs => FAILED,
            };
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return match (error, error.status()) {
                (
                    ClientError::Address(_)
                    | ClientError::CertificateWithoutTls(_)
                    | ClientError::Certificate,
                    _,
                ) => USAGE,
                (ClientError::CertificateRefused { .. }, _) => NOT_ALLOWED,
                (ClientError::Unreachable { .. }, _) => UNREACHABLE,
                (_, Some(404)) => NOT_FOUND,
                (_, Some(401 | 403)) => NOT_ALLOWED,
                _ => FAILED,
            };
        }
    }
    FAILED
}

/// The table of docs/cli.md.
pub(super) const TABLE: &[(u8, &str)] = &[
    (0, "done"),
    (FAILED, "failed; the message says why. `diff`: something differs"),
    (USAGE, "the command line makes no sense. `diff`: failed"),
    (NOT_FOUND, "there is no such resource"),
    (TIMED_OUT, "`--timeout` is over, and what was waited for has not come"),
    (NOT_ALLOWED, "no API key or client certificate, or one that may not do this"),
    (UNREACHABLE, "the server does not answer"),
];
