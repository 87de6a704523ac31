//! One question to the CA: run it through instant-acme, read the tape, classify what went wrong.

use instant_acme::Error;

use super::classify::{Asked, Transport, Trouble, classify, is_bad_nonce};
use super::tape::{Exchange, Outcome};
use crate::domain::failure::{Class, Failure};

/// instant-acme tries three nonces a call; so many calls make 15 of them.
pub(super) const ROUNDS: usize = 5;

/// Runs an operation (an `async` block), again if need be for the sake of a nonce.
///
/// Gives `Result<(T, Option<Exchange>), Failure>`: the value with the last exchange, which is `None`
/// where no request was needed. With `raw`, for an answer that instant-acme cannot read, it gets to
/// see an empty order instead.
///
/// A macro and not a function over `AsyncFnMut`: the compiler cannot prove yet that such a
/// function's future may move between threads, as a worker's steps do.
macro_rules! ask {
    ($asked:expr, $operation:expr) => {
        $crate::ca::ask::ask!(@run $asked, false, $operation)
    };
    (raw $asked:expr, $operation:expr) => {
        $crate::ca::ask::ask!(@run $asked, true, $operation)
    };
    (@run $asked:expr, $raw:expr, $operation:expr) => {{
        let asked = $asked;
        let mut rounds = $crate::ca::ask::ROUNDS;
        loop {
            rounds -= 1;
            let (result, outcome) =
                $crate::ca::tape::record(asked.call, $raw, $operation).await;
            if let Some(verdict) = $crate::ca::ask::verdict(asked, result, outcome, rounds > 0) {
                break verdict;
            }
        }
    }};
}
pub(super) use ask;

/// What came of one round; `None` when another one is worth it.
pub(super) fn verdict<T>(
    asked: Asked,
    result: Result<T, Error>,
    outcome: Option<Outcome>,
    may_repeat: bool,
) -> Option<Result<(T, Option<Exchange>), Failure>> {
    match (result, outcome) {
        (Ok(value), None) => Some(Ok((value, None))),
        (Ok(value), Some(Outcome::Answered(exchange))) if exchange.is_success() => {
            Some(Ok((value, Some(exchange))))
        }
        (_, Some(Outcome::Answered(exchange))) if is_bad_nonce(&exchange) && may_repeat => None,
        (result, outcome) => Some(Err(failure(asked, result.err(), outcome))),
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
