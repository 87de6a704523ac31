//! One question to the CA: run it through instant-acme, read the tape, classify what went wrong.
//!
//! What can be asked again without harm, and may well be answered then, is asked again here, a few
//! times within a second or two. So a step that needs many answers does not depend on every single
//! one coming at the first try. Everything that takes longer is waited for in the database.

use std::ops::ControlFlow;
use std::time::Duration;

use instant_acme::Error;
use tokio::time::Instant;

use super::classify::{Asked, Call, Transport, Trouble, classify, is_bad_nonce};
use super::problem::outline;
use super::recorder;
use super::recorder::{End, Exchange, Outcome};
use crate::domain::failure::{Class, Failure, code};

/// instant-acme, and [`super::jose`], try three nonces a call; so many calls make 15 of them.
const NONCE_ROUNDS: usize = 5;
/// The pauses before a question is put again.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// A question that has taken this long is not put again: the step, and its lease, have an end.
const LONGEST: Duration = Duration::from_secs(10);

/// Runs an operation, again if need be for the sake of a nonce, or where that is harmless.
///
/// Gives its value and its last exchange, which is `None` where it needed no request.
///
/// A macro, because futures of a closure that borrows cannot be shown to be `Send`.
macro_rules! ask {
    ($asked:expr, $operation:expr) => {{
        let mut rounds = $crate::ca::ask::Rounds::of($asked);
        loop {
            let answer = $crate::ca::recorder::record(rounds.call(), false, $operation).await;
            match rounds.judge(answer) {
                std::ops::ControlFlow::Break(result) => break result,
                std::ops::ControlFlow::Continue(pause) => $crate::ca::ask::rest(pause).await,
            }
        }
    }};
}
pub(super) use ask;

/// Reads what is at a URL (POST-as-GET), in our own words; again where what came makes no sense.
pub(super) async fn fetch<T>(
    account: &instant_acme::Account,
    asked: Asked,
    url: &str,
    read: impl Fn(Exchange) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let mut rounds = Rounds::of(asked);
    loop {
        // instant-acme asks for any URL in this way only; what it takes for an order is none.
        let answer = recorder::record(asked.call, true, account.order(url.to_owned())).await;
        let pause = match rounds.judge(answer) {
            ControlFlow::Continue(pause) => pause,
            ControlFlow::Break(Err(failure)) => return Err(failure),
            ControlFlow::Break(Ok((_, None))) => return Err(unreadable(asked, "no answer")),
            ControlFlow::Break(Ok((_, Some(exchange)))) => match read(exchange) {
                Err(failure) if failure.is(code::ACME_UNREADABLE_ANSWER) => {
                    match rounds.next_pause() {
                        Some(pause) => pause,
                        None => return Err(failure),
                    }
                }
                read => return read,
            },
        };
        rest(pause).await;
    }
}

/// The attempts at one question.
pub(super) struct Rounds {
    asked: Asked,
    nonces: usize,
    again: usize,
    began: Instant,
}

impl Rounds {
    pub(super) fn of(asked: Asked) -> Self {
        Self { asked, nonces: 1, again: 0, began: Instant::now() }
    }

    pub(super) fn call(&self) -> Call {
        self.asked.call
    }

    /// Whether that is the answer, or asking once more, after the pause, might bring another.
    pub(super) fn judge<T>(
        &mut self,
        (result, outcome): (Result<T, Error>, Option<Outcome>),
    ) -> ControlFlow<Result<(T, Option<Exchange>), Failure>, Duration> {
        let for_nonce = outcome.as_ref().is_some_and(|outcome| outcome.for_nonce);
        let (result, end) = match (result, outcome.map(|outcome| outcome.end)) {
            (Ok(value), None) => return ControlFlow::Break(Ok((value, None))),
            (Ok(value), Some(End::Answered(exchange))) if exchange.is_success() => {
                return ControlFlow::Break(Ok((value, Some(exchange))));
            }
            other => other,
        };
        if let Some(End::Answered(exchange)) = &end
            && is_bad_nonce(exchange)
            && self.nonces < NONCE_ROUNDS
        {
            self.nonces += 1;
            return ControlFlow::Continue(Duration::ZERO);
        }
        // What never left this machine, or only asks, cannot happen twice.
        let unsent = for_nonce || matches!(end, Some(End::Failed(Transport::Unreachable(_))));
        let failure = failure(self.asked, result.err(), end);
        if (unsent || self.asked.call.only_asks())
            && passes_soon(&failure)
            && let Some(pause) = self.next_pause()
        {
            tracing::debug!(%failure, call = ?self.asked.call, "asking again");
            return ControlFlow::Continue(pause);
        }
        ControlFlow::Break(Err(failure))
    }

    /// The pause before one more try, while there is one.
    fn next_pause(&mut self) -> Option<Duration> {
        let pause = PAUSES.get(self.again).copied();
        self.again += 1;
        pause.filter(|_| self.began.elapsed() < LONGEST)
    }
}

#[expect(clippy::disallowed_methods, reason = "a second at most, within one question to the CA")]
pub(super) async fn rest(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Trouble of a front end or the network, which the next connection may not meet. A CA that names a
/// time gets it, and its own errors are given more than moments.
fn passes_soon(failure: &Failure) -> bool {
    failure.class == Class::Transient
        && failure.retry_at.is_none()
        && match failure.http_status {
            Some(status) => matches!(status, 502..=504),
            None => matches!(
                failure.known_code(),
                Some(
                    code::ACME_UNREACHABLE
                        | code::ACME_TIMEOUT
                        | code::ACME_CONNECTION_LOST
                        | code::ACME_NOT_A_DIRECTORY
                        | code::ACME_UNREADABLE_ANSWER
                )
            ),
        }
}

fn failure(asked: Asked, error: Option<Error>, end: Option<End>) -> Failure {
    let trouble = match (error, end) {
        (Some(error @ (Error::KeyRejected | Error::Crypto)), _) => {
            return unusable_key(&error.to_string());
        }
        (Some(error @ (Error::Http(_) | Error::InvalidUri(_))), _) => {
            Trouble::Transport(Transport::Refused(error.to_string()))
        }
        (_, Some(End::Failed(trouble))) => Trouble::Transport(trouble),
        (_, Some(End::Answered(exchange))) if !exchange.is_success() => Trouble::Answer(exchange),
        (error, _) => {
            let why = error.map(|error| match error {
                Error::Json(error) => outline(&error),
                error => error.to_string(),
            });
            Trouble::Unreadable(why.unwrap_or_else(|| "The answer is empty".into()))
        }
    };
    classify(asked, &trouble)
}

/// The key that we hold is none: nothing that the CA could change.
pub(super) fn unusable_key(why: &str) -> Failure {
    Failure::of(code::ACME_ACCOUNT_KEY_UNUSABLE, why)
}

/// The answer claims success and makes no sense.
pub(super) fn unreadable(asked: Asked, why: impl Into<String>) -> Failure {
    classify(asked, &Trouble::Unreadable(why.into()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};
    use time::OffsetDateTime;

    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    #[tokio::test(start_paused = true)]
    async fn a_question_is_put_four_times_and_an_order_once() {
        assert_eq!(tries(Call::GetAuthorization, || page(502, None)), 4);
        assert_eq!(tries(Call::GetOrder, || lost(false)), 4);
        assert_eq!(tries(Call::Directory, || page(504, None)), 4);
        for call in [Call::NewOrder, Call::Challenge, Call::Finalize, Call::NewAccount] {
            assert_eq!(tries(call, || page(502, None)), 1, "{call:?} may have been heard");
            assert_eq!(tries(call, || lost(false)), 1, "{call:?} may have been heard");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_is_sent_again_whatever_it_is() {
        assert_eq!(tries(Call::NewOrder, || lost(true)), 4, "only a nonce was asked for");
        let unreachable = || ended(End::Failed(Transport::Unreachable("refused".into())), false);
        assert_eq!(tries(Call::Finalize, unreachable), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_names_a_time_or_has_trouble_of_its_own_is_left_alone() {
        assert_eq!(tries(Call::GetOrder, || page(503, Some("30"))), 1);
        assert_eq!(tries(Call::GetOrder, || page(502, Some("30"))), 1);
        assert_eq!(tries(Call::GetOrder, || page(500, None)), 1);
        assert_eq!(tries(Call::GetOrder, || page(404, None)), 1, "replicas need longer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_took_long_is_not_put_again() {
        let mut rounds = Rounds::of(Asked::of(Call::GetOrder));
        rounds.began = rounds.began.checked_sub(LONGEST).unwrap();

        assert!(rounds.judge(page(502, None)).is_break());
    }

    #[tokio::test(start_paused = true)]
    async fn bad_nonces_cost_no_time() {
        let nonce = r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#;
        let mut rounds = Rounds::of(Asked::of(Call::Finalize));

        for _ in 1..NONCE_ROUNDS {
            let again = rounds.judge(answered(400, nonce, None));
            assert!(matches!(again, ControlFlow::Continue(Duration::ZERO)));
        }
        assert!(rounds.judge(answered(400, nonce, None)).is_break());
    }

    type Answer = (Result<(), Error>, Option<Outcome>);

    fn tries(call: Call, answer: impl Fn() -> Answer) -> usize {
        let mut rounds = Rounds::of(Asked::of(call));
        1 + std::iter::from_fn(|| rounds.judge(answer()).continue_value()).count()
    }

    fn page(status: u16, retry_after: Option<&'static str>) -> Answer {
        answered(status, "<html>", retry_after)
    }

    fn lost(for_nonce: bool) -> Answer {
        ended(End::Failed(Transport::Broken("reset".into())), for_nonce)
    }

    fn answered(status: u16, body: &'static str, retry_after: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
        }
        let body = Bytes::from_static(body.as_bytes());
        let url = "https://ca.example/x".to_owned();
        ended(End::Answered(Exchange::new(url, status, &headers, body, NOON)), false)
    }

    fn ended(end: End, for_nonce: bool) -> Answer {
        (Err(Error::Str("no")), Some(Outcome { end, for_nonce }))
    }
}
