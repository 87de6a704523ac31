//! HTTP with Cloudflare's v4 API: one call, one answer or one [`ApiError`].

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::answer::Envelope;
use super::budget::{Account, Budget, Budgets};
use super::error::{ApiError, Problem, in_words, say_rate_limited};
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::text::foreign_words;
use crate::outbound::{AddressError, Client, RetryAfter, causes};
use crate::secret::Secret;
use crate::telemetry::metrics::calls as metrics;
use crate::telemetry::trace::{Kind, Span};

/// Where the API is, unless an issuer says otherwise.
pub(super) const DEFAULT_BASE: &str = "https://api.cloudflare.com/client/v4";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 1024 * 1024;

/// Cloudflare's punishment for too many calls, where it does not say how long.
const DEFAULT_RETRY_AFTER: time::Duration = time::Duration::minutes(5);
/// Nobody who means it asks for more.
const MAX_RETRY_AFTER: time::Duration = time::Duration::days(1);

/// By then a good part of what may be spent is earned again.
const SPARE_AFTER: time::Duration = time::Duration::minutes(2);

/// Cloudflare's words are for people; more than this is not read by any.
const MAX_WORDS: usize = 300;

/// A token's way to the API.
pub(super) struct Api {
    http: Client,
    base: Url,
    /// Whether what is answered may be quoted: whoever names another base could name any host inside.
    is_cloudflares: bool,
    token: Secret<String>,
    authorization: HeaderValue,
    budget: Budget,
    clock: Arc<dyn Clock>,
}

/// The result of a call, with the number of pages where it is given.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Value,
    pub(super) total_pages: Option<u64>,
}

/// An HTTP client for tokens: no redirects, because the token would travel along.
pub(super) fn http_client() -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // Nothing is sent again but by whoever pays for it.
        .retry(reqwest::retry::never())
}

impl Api {
    /// The API at `base` as seen with `token`.
    pub(super) fn new(
        http: Client,
        base: Option<&str>,
        token: &Secret<String>,
        clock: Arc<dyn Clock>,
        budgets: &Budgets,
    ) -> Result<Self, Failure> {
        let base = parse_base(base.unwrap_or(DEFAULT_BASE))?;
        Ok(Self {
            http,
            is_cloudflares: Url::parse(DEFAULT_BASE).is_ok_and(|own| own.origin() == base.origin()),
            budget: budgets.of(account(&base, token)),
            base,
            token: token.clone(),
            authorization: authorization(token)?,
            clock,
        })
    }

    /// The present moment.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Whether calls are to be saved.
    pub(super) fn is_short_of_calls(&self) -> bool {
        self.budget.is_short(self.clock.now())
    }

    /// Says "later" where there are calls left only for what cannot wait.
    pub(super) fn spare_calls(&self) -> Result<(), ApiError> {
        if !self.is_short_of_calls() {
            return Ok(());
        }
        Err(ApiError::Limited {
            status: None,
            retry_at: self.clock.now() + SPARE_AFTER,
            reason: "Most of the calls that may be made are spent, and certificates come first."
                .to_owned(),
        })
    }

    /// `GET` of the resource that the path's segments name.
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Answer, ApiError> {
        let request = self.request(Method::GET, path)?.query(query);
        self.send("GET", request).await
    }

    /// `POST` of a JSON body.
    pub(super) async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, ApiError> {
        let request = self.request(Method::POST, path)?.json(body);
        self.send("POST", request).await.map(|answer| answer.result)
    }

    /// `DELETE` of a resource.
    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), ApiError> {
        let request = self.request(Method::DELETE, path)?;
        self.send("DELETE", request).await.map(drop)
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, ApiError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| unusable("the base URL takes no path"))?
            .pop_if_empty()
            .extend(path);
        let request = self.http.request(method, &url).map_err(ApiError::Guarded)?;
        Ok(request.header(AUTHORIZATION, self.authorization.clone()))
    }

    /// The one way out: every call spends of the token's budget here.
    async fn send(
        &self,
        method: &'static str,
        request: RequestBuilder,
    ) -> Result<Answer, ApiError> {
        self.budget.spend(self.clock.now()).map_err(|retry_at| ApiError::Limited {
            status: None,
            retry_at,
            reason: "This service holds back to stay below Cloudflare's limit of 1,200 calls \
                     in 5 minutes."
                .to_owned(),
        })?;
        let begun = Instant::now();
        let mut span = Span::here(Kind::Client, "cloudflare");
        let sent = request.send().await;
        let status = sent.as_ref().map(Response::status).ok();
        let shown = status.as_ref().map_or("none", StatusCode::as_str);
        metrics::dns_provider("cloudflare", method, shown, begun.elapsed());
        if let Some(span) = &mut span {
            span.asks(method, &self.base);
            span.answered(status.map(|status| status.as_u16()));
        }
        drop(span);
        let response = sent.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(response).await?;
        self.judge(status, &headers, &body)
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(unusable("the answer is longer than 1 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(super) fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, ApiError> {
        let now = self.clock.now();
        let envelope = Envelope::read(body);
        let refusal = envelope
            .as_ref()
            .filter(|envelope| envelope.success == Some(false) || !status.is_success())
            .map(|envelope| self.readable(&envelope.problems));
        let limited = refusal.as_deref().is_some_and(say_rate_limited);
        if limited || status == StatusCode::TOO_MANY_REQUESTS {
            let retry_at = retry_after(headers, now).unwrap_or(now + DEFAULT_RETRY_AFTER);
            self.budget.park(retry_at, now);
            return Err(ApiError::Limited {
                status: Some(status.as_u16()),
                retry_at,
                reason: format!(
                    "Cloudflare said {}, {}.",
                    status.as_u16(),
                    in_words(refusal.as_deref().unwrap_or_default())
                ),
            });
        }
        if status.is_server_error() {
            let reason = match &refusal {
                Some(problems) => format!("HTTP {}: {}", status.as_u16(), in_words(problems)),
                None => format!("HTTP {} without an answer in JSON", status.as_u16()),
            };
            let status = Some(status.as_u16());
            return Err(match retry_after(headers, now) {
                Some(retry_at) => ApiError::Limited { status, retry_at, reason },
                None => ApiError::Unusable { status, reason },
            });
        }
        if let Some(problems) = refusal {
            return Err(ApiError::Refused { status: status.as_u16(), problems });
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ApiError::Refused { status: 401, problems: Vec::new() });
        }
        let garbled = || ApiError::Unusable {
            status: Some(status.as_u16()),
            reason: format!("HTTP {}, but not an answer of Cloudflare's API", status.as_u16()),
        };
        let envelope = envelope.filter(|envelope| envelope.success == Some(true));
        let envelope = envelope.filter(|_| status.is_success()).ok_or_else(garbled)?;
        let result = envelope.result.ok_or_else(garbled)?;
        Ok(Answer { result, total_pages: envelope.total_pages })
    }

    /// The part of an answer's errors that may be shown. Answers from another base are not quoted, and no
    /// words may show the token that was sent.
    fn readable(&self, problems: &[Problem]) -> Vec<Problem> {
        problems
            .iter()
            .map(|problem| Problem {
                code: problem.code,
                message: if self.is_cloudflares {
                    self.clean(&problem.message)
                } else {
                    String::new()
                },
                error_chain: self.readable(&problem.error_chain),
            })
            .collect()
    }

    fn clean(&self, words: &str) -> String {
        // Cleaned first: what is left out could stand within the token, and hide it.
        let words = foreign_words(words, usize::MAX).unwrap_or_default();
        let words = words.replace(self.token.expose().as_str(), "[token]");
        foreign_words(&words, MAX_WORDS).unwrap_or_default()
    }

    fn unreachable(&self, error: reqwest::Error) -> ApiError {
        if let Some(refused) = AddressError::behind(&error) {
            return ApiError::Guarded(refused);
        }
        let error = error.without_url();
        let mut reason = if error.is_timeout() {
            format!("no answer within {} seconds", TIMEOUT.as_secs())
        } else if error.is_connect() {
            "it cannot be connected to".to_owned()
        } else {
            "the connection broke".to_owned()
        };
        // Causes may quote the other side: the names in its certificate, for example.
        for cause in causes(&error).skip(1).filter(|_| self.is_cloudflares) {
            reason = format!("{reason}: {cause}");
        }
        unusable(&self.clean(&reason))
    }
}

/// The account that the other side counts calls for: host and token, in every spelling of the URL.
fn account(base: &Url, token: &Secret<String>) -> Account {
    let host = base.host_str().unwrap_or_default().trim_end_matches('.').to_owned();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
    Account { host, token_digest: digest.as_ref().to_vec() }
}

fn unusable(reason: &str) -> ApiError {
    ApiError::Unusable { status: None, reason: reason.to_owned() }
}

fn parse_base(base: &str) -> Result<Url, Failure> {
    Url::parse(base)
        .ok()
        .filter(|url| matches!(url.scheme(), "https" | "http") && url.host().is_some())
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .ok_or_else(|| {
            Failure::of(
                code::CLOUDFLARE_INVALID_BASE_URL,
                "It must be an http or https URL without a user.",
            )
        })
}

fn authorization(token: &Secret<String>) -> Result<HeaderValue, Failure> {
    let token = token.expose();
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = Zeroizing::new(format!("Bearer {token}"));
    let value = HeaderValue::from_str(&value).ok().filter(|_| fits);
    let mut value = value.ok_or_else(|| {
        Failure::of(
            code::CLOUDFLARE_INVALID_TOKEN.with_advice("Store it again."),
            "It is empty or has characters that no token has, such as spaces or line ends.",
        )
        .titled("The Cloudflare API token cannot be sent")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<OffsetDateTime> {
    Some(RetryAfter::read(headers)?.from(now).clamp(now, now + MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use reqwest::header::RETRY_AFTER;
    use time::macros::datetime;

    use super::*;
    use crate::clock::ManualClock;
    use crate::solver::dns01::cloudflare::error::Concerning;

    const NOW: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

    fn api(token: &str) -> Result<Api, Failure> {
        api_at(None, token)
    }

    fn api_at(base: Option<&str>, token: &str) -> Result<Api, Failure> {
        let http = Client::open(http_client()).unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        Api::new(http, base, &Secret::new(token.to_owned()), clock, &Budgets::new())
    }

    fn asks_for(value: &str) -> Option<OffsetDateTime> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, NOW)
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_without_showing_it() {
        for token in ["line\nend-s3cret", "späce-s3cret", "two s3cret", ""] {
            let failure = api(token).err().unwrap();
            assert_eq!(failure.code, "cloudflare_invalid_token");
            assert!(!format!("{failure:?}").contains("s3cret"));
        }
    }

    #[test]
    fn an_echoed_token_is_not_passed_on() {
        let body = br#"{"success":false,"errors":[{"code":1,"message":"you sent s3cret\n"}]}"#;
        let api = api("s3cret").unwrap();

        let error = api.judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), body).err().unwrap();

        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn cloudflares_own_words_are_shown_cleaned_and_nobody_elses() {
        let canary = format!("\\u001b[31mno\\r\\nroom\\u202e {}", "x".repeat(5_000));
        let body = format!(
            r#"{{"success":false,"errors":[{{"code":10000,"message":"{canary}"}},
                {{"code":424242,"message":"{canary}","error_chain":[{{"code":9,"message":"{canary}"}}]}}]}}"#
        );
        for base in [
            None,
            Some("https://api.cloudflare.com/client/v4/"),
            Some("https://API.Cloudflare.com:443/"),
        ] {
            let api = api_at(base, "t").unwrap();
            let error = api.judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes());
            let ApiError::Refused { problems, .. } = error.unwrap_err() else {
                panic!("a refusal")
            };
            let words = in_words(&problems);
            assert!(
                words.starts_with("10000: [31mno room x") && words.contains("424242"),
                "{words}"
            );
            assert!(problems[0].message.chars().count() <= MAX_WORDS);
        }
        for base in
            ["http://api.cloudflare.com/", "https://api.cloudflare.com:8443/", "http://10.0.0.1/"]
        {
            let api = api_at(Some(base), "t").unwrap();
            for status in [400, 403, 429, 500] {
                let status = StatusCode::from_u16(status).unwrap();
                let error = api.judge(status, &HeaderMap::new(), body.as_bytes()).unwrap_err();
                let words = error.into_failure(Concerning::ZonesFor("a.example")).to_string();
                assert!(!words.contains("room") && !words.contains("424242"), "{words}");
            }
        }
    }

    #[test]
    fn every_spelling_of_a_host_spends_the_same_budget() {
        let (http, token) = (Client::open(http_client()).unwrap(), Secret::new("t".to_owned()));
        let budgets = Budgets::new();
        let at = |base| {
            let clock = Arc::new(ManualClock::at(NOW));
            Api::new(http.clone(), base, &token, clock, &budgets).unwrap()
        };
        at(None).budget.park(NOW + DEFAULT_RETRY_AFTER, NOW);

        for base in [
            "https://api.cloudflare.com/client/v4/",
            "https://API.cloudflare.com.:443/x",
            "http://api.cloudflare.com/",
        ] {
            assert!(at(Some(base)).budget.spend(NOW).is_err(), "{base}");
        }
        assert!(at(Some("https://other.example/")).budget.spend(NOW).is_ok());
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        assert_eq!(asks_for("90"), Some(datetime!(2026-01-01 0:01:30 UTC)));
        assert_eq!(asks_for("Thu, 01 Jan 2026 00:02:00 GMT"), Some(datetime!(2026-01-01 0:02 UTC)));
        assert_eq!(asks_for("Wed, 31 Dec 2025 00:00:00 GMT"), Some(NOW), "the past is now");
        assert_eq!(asks_for("4294967295"), Some(datetime!(2026-01-02 0:00 UTC)));
        assert_eq!(asks_for("soon"), None);
    }

    #[test]
    fn a_limit_parks_every_later_call_of_the_token() {
        let api = api("t").unwrap();

        let error = api.judge(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), b"").err().unwrap();

        let until = NOW + DEFAULT_RETRY_AFTER;
        assert!(matches!(error, ApiError::Limited { retry_at, .. } if retry_at == until));
        assert_eq!(api.budget.spend(NOW), Err(until));
    }

    #[test]
    fn html_is_transient_whatever_its_status() {
        let api = api("t").unwrap();
        for status in [StatusCode::OK, StatusCode::BAD_GATEWAY, StatusCode::FORBIDDEN] {
            let error = api.judge(status, &HeaderMap::new(), b"<html>").err().unwrap();
            assert!(matches!(error, ApiError::Unusable { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_base_url_with_a_user_or_another_scheme_is_refused() {
        for base in ["ftp://x/", "https://u:p@x/", "nothing", "data:x"] {
            assert!(parse_base(base).is_err(), "{base}");
        }
    }
}
