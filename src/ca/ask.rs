//! One call to the CA: it is sent, what went wrong is classified, and it is sent again where that helps.
//!
//! A call that changes nothing, or never left this machine, is repeated a few times within a second or
//! two, so that a step that needs many answers does not depend on each single one coming at the first
//! try. Everything that takes longer is waited for in the database.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::call::{Answer, Asked, Request, Signed, Transport, Trouble};
use super::classify::{classify, unreadable, unusable_key};
use super::directory::{Directory, Endpoint};
use super::exchange::Exchange;
use super::http::CaClient;
use crate::acme::jose::Signer;
use crate::domain::failure::{Class, Failure, code};
use crate::secret::Secret;

/// Nonces that are tried in one call.
const NONCES: usize = 15;
/// The pauses before a question is put again.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// A question that has taken this long is not put again: the step, and its lease, have an end.
const LONGEST: Duration = Duration::from_secs(10);

/// A signing key from PKCS#8 in DER.
pub(super) fn signer(key: &Secret<Vec<u8>>) -> Result<Signer, Failure> {
    Signer::from_pkcs8(key).map_err(unusable_key)
}

/// Whoever holds a key, be it that of an account or not.
pub(super) struct KeyHolder {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) directory: Arc<Directory>,
    pub(super) signer: Signer,
}

impl KeyHolder {
    pub(super) async fn of(
        endpoint: Arc<Endpoint>,
        key: &Secret<Vec<u8>>,
    ) -> Result<Self, Failure> {
        let directory = endpoint.directory().await?;
        Ok(Self { endpoint, directory, signer: signer(key)? })
    }

    /// Posts in the name of an account, or of the key itself.
    pub(super) async fn post(
        &self,
        asked: Asked,
        account: Option<&str>,
        url: &str,
        payload: &Value,
    ) -> Result<Exchange, Failure> {
        let (signer, new_nonce) = (&self.signer, &*self.directory.new_nonce);
        let request = Signed { signer, new_nonce, account, url, payload: Some(payload) };
        post(self.endpoint.client(), asked, request).await
    }
}

/// Fetches a document that needs no signature.
pub(super) async fn get(client: &CaClient, asked: Asked, url: &str) -> Result<Exchange, Failure> {
    ask(client, asked, Request::Get(url), Ok).await
}

/// Signs and sends; the caller reads the answer.
pub(super) async fn post(
    client: &CaClient,
    asked: Asked,
    request: Signed<'_>,
) -> Result<Exchange, Failure> {
    ask(client, asked, Request::Post(request), Ok).await
}

/// Makes a call and reads its answer. Where that is harmless, an answer that makes no sense is asked for
/// again, too.
pub(super) async fn ask<T>(
    client: &CaClient,
    asked: Asked,
    request: Request<'_>,
    read: impl Fn(Exchange) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let mut rounds = Rounds::of(asked);
    loop {
        let answer = client.send(asked.call, request).await;
        match rounds.judge(answer, &read) {
            ControlFlow::Break(result) => return result,
            ControlFlow::Continue(pause) => rest(pause).await,
        }
    }
}

/// The attempts at one question.
struct Rounds {
    asked: Asked,
    nonces: usize,
    again: usize,
    began: Instant,
}

impl Rounds {
    fn of(asked: Asked) -> Self {
        Self { asked, nonces: 1, again: 0, began: Instant::now() }
    }

    /// The result, or the pause after which the call is made once more.
    fn judge<T>(
        &mut self,
        answer: Answer,
        read: impl FnOnce(Exchange) -> Result<T, Failure>,
    ) -> ControlFlow<Result<T, Failure>, Duration> {
        if let Ok(exchange) = &answer.end
            && exchange.is_bad_nonce()
            && self.nonces < NONCES
        {
            self.nonces += 1;
            return ControlFlow::Continue(Duration::ZERO);
        }
        // Repeating is safe if the request never left this machine, or changes nothing.
        let unsent = answer.for_nonce || matches!(answer.end, Err(Transport::Unreachable(_)));
        let failure = match success(self.asked, answer).and_then(read) {
            Ok(value) => return ControlFlow::Break(Ok(value)),
            Err(failure) => failure,
        };
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
async fn rest(pause: Duration) {
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

/// The answer to the request itself, if it says that it worked.
fn success(asked: Asked, answer: Answer) -> Result<Exchange, Failure> {
    match answer.end {
        Err(trouble) => Err(classify(asked, &Trouble::Transport(trouble))),
        Ok(exchange) if !exchange.is_success() => Err(classify(asked, &Trouble::Answer(exchange))),
        Ok(_) if answer.for_nonce => Err(unreadable(asked, "The CA gave no nonce")),
        Ok(exchange) => Ok(exchange),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};
    use time::OffsetDateTime;

    use super::*;
    use crate::ca::call::Call;

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
        let unreachable = || ended(Err(Transport::Unreachable("refused".into())), false);
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

        assert!(rounds.judge(page(502, None), Ok).is_break());
    }

    #[tokio::test(start_paused = true)]
    async fn bad_nonces_cost_no_time() {
        let nonce = r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#;
        let mut rounds = Rounds::of(Asked::of(Call::Finalize));

        for _ in 1..NONCES {
            let again = rounds.judge(answered(400, nonce, None), Ok);
            assert!(matches!(again, ControlFlow::Continue(Duration::ZERO)));
        }
        assert!(rounds.judge(answered(400, nonce, None), Ok).is_break());
    }

    fn tries(call: Call, answer: impl Fn() -> Answer) -> usize {
        let mut rounds = Rounds::of(Asked::of(call));
        1 + std::iter::from_fn(|| rounds.judge(answer(), Ok).continue_value()).count()
    }

    fn page(status: u16, retry_after: Option<&'static str>) -> Answer {
        answered(status, "<html>", retry_after)
    }

    fn lost(for_nonce: bool) -> Answer {
        ended(Err(Transport::Broken("reset".into())), for_nonce)
    }

    fn answered(status: u16, body: &'static str, retry_after: Option<&'static str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
        }
        let body = Bytes::from_static(body.as_bytes());
        let url = "https://ca.example/x".to_owned();
        ended(Ok(Exchange::new(url, status, &headers, body, NOON)), false)
    }

    fn ended(end: Result<Exchange, Transport>, for_nonce: bool) -> Answer {
        Answer { end, for_nonce }
    }
}
