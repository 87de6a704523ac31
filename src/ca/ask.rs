//! One question to the CA: run it through instant-acme, read the tape, classify what went wrong.

use std::ops::ControlFlow;

use instant_acme::Error;

use super::classify::{Asked, Call, Transport, Trouble, classify, is_bad_nonce};
use super::tape::{Exchange, Outcome};
use crate::domain::failure::{Class, Failure};

/// instant-acme tries three nonces a call; so many calls make 15 of them.
const ROUNDS: usize = 5;

/// Runs an operation, again if need be for the sake of a nonce.
///
/// Gives its value and its last exchange, which is `None` where it needed no request. With `raw` the
/// exchange holds an answer that instant-acme could not read: it gets to see an empty order.
///
/// A macro, because futures of a closure that borrows cannot be shown to be `Send`.
macro_rules! ask {
    ($asked:expr, $operation:expr) => {
        $crate::ca::ask::ask!($asked, raw: false, $operation)
    };
    ($asked:expr, raw: $raw:expr, $operation:expr) => {{
        let mut rounds = $crate::ca::ask::Rounds::of($asked);
        loop {
            let answer = $crate::ca::tape::record(rounds.call(), $raw, $operation).await;
            if let std::ops::ControlFlow::Break(result) = rounds.judge(answer) {
                break result;
            }
        }
    }};
}
pub(super) use ask;

/// The attempts at one question.
pub(super) struct Rounds {
    asked: Asked,
    left: usize,
}

impl Rounds {
    pub(super) fn of(asked: Asked) -> Self {
        Self { asked, left: ROUNDS }
    }

    pub(super) fn call(&self) -> Call {
        self.asked.call
    }

    /// Whether that is the answer, or another nonce might bring another.
    pub(super) fn judge<T>(
        &mut self,
        (result, outcome): (Result<T, Error>, Option<Outcome>),
    ) -> ControlFlow<Result<(T, Option<Exchange>), Failure>> {
        self.left -= 1;
        ControlFlow::Break(match (result, outcome) {
            (Ok(value), None) => Ok((value, None)),
            (Ok(value), Some(Outcome::Answered(exchange))) if exchange.is_success() => {
                Ok((value, Some(exchange)))
            }
            (_, Some(Outcome::Answered(exchange))) if self.left > 0 && is_bad_nonce(&exchange) => {
                return ControlFlow::Continue(());
            }
            (result, outcome) => Err(failure(self.asked, result.err(), outcome)),
        })
    }
}

fn failure(asked: Asked, error: Option<Error>, outcome: Option<Outcome>) -> Failure {
    let trouble = match (error, outcome) {
        (Some(error @ (Error::KeyRejected | Error::Crypto)), _) => {
            return unusable_key(&error.to_string());
        }
        (Some(error @ (Error::Http(_) | Error::InvalidUri(_))), _) => {
            Trouble::Transport(Transport::Refused(error.to_string()))
        }
        (_, Some(Outcome::Failed(trouble))) => Trouble::Transport(trouble),
        (_, Some(Outcome::Answered(exchange))) if !exchange.is_success() => {
            Trouble::Answer(exchange)
        }
        (error, _) => {
            let why = error.map(|error| error.to_string());
            Trouble::Unreadable(why.unwrap_or_else(|| "The answer is empty".into()))
        }
    };
    classify(asked, &trouble)
}

/// The key that we hold is none: nothing that the CA could change.
pub(super) fn unusable_key(why: &str) -> Failure {
    Failure::new(
        Class::Blocked,
        "acme_account_key_unusable",
        "The account's private key cannot be used.",
        format!("{why}. It has to be an ECDSA P-256 key in PKCS#8."),
    )
}

/// The answer claims success and makes no sense.
pub(super) fn unreadable(asked: Asked, why: impl Into<String>) -> Failure {
    classify(asked, &Trouble::Unreadable(why.into()))
}
