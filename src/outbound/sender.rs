//! Posts to URLs that clients name: webhooks.
//!
//! A URL is checked three times over: as it is written ([`Sender::check`]), by where its host leads
//! when it is registered ([`Sender::check_reachable`]), and again, by the very look-up that is
//! connected to, at each delivery. Nothing is followed, no proxy is asked, and of the answer only
//! the beginning is read. However many webhooks of whomever name a host, it is posted to no more often
//! than [`RECEIVER_PER_MINUTE`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use thiserror::Error;
use time::OffsetDateTime;
use url::Url;

use super::client::Client;
use super::guard::{AddressError, Guard, literal};
use super::innermost;
use super::rate::{Rate, Rates};
use crate::clock::{Clock, SystemClock};

/// From the look-up to the last byte that is read.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read.
const FIRST_BYTES: usize = 1024;

/// Posts to one host in any minute, at most: whoever is posted to need not have asked for it.
pub const RECEIVER_PER_MINUTE: u32 = 1_000;

/// Half of them may come at once; the rest is earned over the minute.
const RATE: Rate = Rate {
    burst: RECEIVER_PER_MINUTE / 2,
    interval: time::Duration::milliseconds(2 * 60_000 / RECEIVER_PER_MINUTE as i64),
};

/// Hosts that were posted to lately; beyond, no other one is.
const MOST_RECEIVERS: usize = 10_000;

/// Longest URL that is accepted.
const LONGEST_URL: usize = 2048;

/// Restrictions on the URLs of a [`Sender`].
#[derive(Debug, Clone)]
pub struct SenderSettings {
    /// Whether `http` is allowed everywhere.
    pub allow_http: bool,
    pub ports: BTreeSet<u16>,
}

/// Why a URL is not posted to. Says nothing of what it resolves to: whoever named it may not know.
#[derive(Debug, Clone, Error)]
pub enum UrlError {
    #[error("the URL is longer than {LONGEST_URL} characters")]
    TooLong,
    #[error(
        "`{0}` is not a scheme that is sent to: use `https` (the setting `outbound.allow_http` permits `http`)"
    )]
    Scheme(String),
    #[error("the URL names no host")]
    NoHost,
    #[error("the URL must not hold a user name or password")]
    UserInfo,
    #[error("port {0} may not be connected to (the setting `outbound.ports` lists those that may)")]
    Port(u16),
    /// Its host leads nowhere, or where nobody is let.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Why nothing came back.
#[derive(Debug, Clone, Error)]
pub enum SendError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("its host is posted to at most {RECEIVER_PER_MINUTE} times in a minute")]
    Held { until: OffsetDateTime },
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// `Retry-After` (RFC 9110, section 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// After so long.
    In(time::Duration),
    /// Not before this time.
    At(OffsetDateTime),
}

impl RetryAfter {
    /// Reads the header.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse::<u32>() {
            return Some(Self::In(time::Duration::seconds(seconds.into())));
        }
        let date: SystemTime = httpdate::parse_http_date(value).ok()?;
        Some(Self::At(date.into()))
    }

    /// The moment that is meant, for an answer of `now`.
    pub fn from(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::In(wait) => now.checked_add(wait).unwrap_or(now),
            Self::At(moment) => moment,
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status; a redirect is one like others.
    pub status: u16,
    /// `Retry-After`, if it could be read.
    pub retry_after: Option<RetryAfter>,
    /// The beginning of the body, at most 1 KiB. A stranger's: no tenant is shown any of it.
    pub first_bytes: Vec<u8>,
}

/// Posts to where it may. A cheap handle.
#[derive(Clone)]
pub struct Sender {
    http: Client,
    guard: Guard,
    settings: SenderSettings,
    clock: Arc<dyn Clock>,
    receivers: Arc<Rates<String>>,
}

impl Sender {
    /// A sender that looks names up through `guard`.
    pub fn new(guard: Guard, settings: SenderSettings) -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            // No idle connections: the name is resolved and checked for each delivery.
            .pool_max_idle_per_host(0);
        let http = Client::guarded(builder, guard.clone())?;
        let (clock, receivers) = (Arc::new(SystemClock), Rates::new(RATE, MOST_RECEIVERS));
        Ok(Self { http, guard, settings, clock, receivers: Arc::new(receivers) })
    }

    /// Sets the clock by which posts are counted.
    #[must_use]
    pub fn timed_by(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The guard, for callers that apply the same rule to other names.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Refuses a URL that is wrong even without a look-up. A host that the operator allows may be
    /// reached by `http` and on any port.
    pub fn check(&self, url: &Url) -> Result<(), UrlError> {
        if url.as_str().len() > LONGEST_URL {
            return Err(UrlError::TooLong);
        }
        if !matches!(url.scheme(), "https" | "http") {
            return Err(UrlError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        let host = url.host_str().ok_or(UrlError::NoHost)?;
        self.guard.check(url)?;
        let allow = self.guard.allow();
        let listed = literal(url).is_some_and(|(_, address)| allow.holds(address));
        if listed || allow.names(host) {
            return Ok(());
        }
        if url.scheme() == "http" && !self.settings.allow_http {
            return Err(UrlError::Scheme(url.scheme().to_owned()));
        }
        match url.port_or_known_default() {
            Some(port) if self.settings.ports.contains(&port) => Ok(()),
            port => Err(UrlError::Port(port.unwrap_or_default())),
        }
    }

    /// Refuses also what leads to where the service may not go, now.
    pub async fn check_reachable(&self, url: &Url) -> Result<(), UrlError> {
        self.check(url)?;
        if let Some(name) = url.domain().filter(|_| literal(url).is_none()) {
            self.guard.addresses(name).await?;
        }
        Ok(())
    }

    /// Posts `body`, once. Whether an answer is a good one is for the caller to say.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Reply, SendError> {
        self.check(url)?;
        let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_owned();
        let spent = self.receivers.spend(&host, self.clock.now());
        spent.map_err(|until| SendError::Held { until })?;
        let request = self.http.request(Method::POST, url).map_err(UrlError::from)?;
        let request = request.headers(headers).body(body);
        let mut response = request.send().await.map_err(why)?;
        let mut first_bytes = Vec::new();
        while first_bytes.len() < FIRST_BYTES
            // The status is what counts: an answer that breaks off after it is an answer.
            && let Ok(Some(chunk)) = response.chunk().await
        {
            first_bytes.extend_from_slice(&chunk);
        }
        first_bytes.truncate(FIRST_BYTES);
        let retry_after = RetryAfter::read(response.headers());
        Ok(Reply { status: response.status().as_u16(), retry_after, first_bytes })
    }
}

fn why(error: reqwest::Error) -> SendError {
    let error = error.without_url();
    if let Some(refused) = AddressError::behind(&error) {
        return SendError::Url(refused.into());
    }
    if error.is_timeout() {
        SendError::Timeout
    } else if error.is_connect() {
        SendError::Connect(innermost(&error))
    } else {
        SendError::Broken(innermost(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Allow, resolver};
    use super::*;

    fn sender(allow: &[&str], allow_http: bool, ports: &[u16]) -> Sender {
        let guard = Guard::new(resolver(&[], true).unwrap(), Allow::parse(allow).unwrap());
        let ports = ports.iter().copied().collect();
        Sender::new(guard, SenderSettings { allow_http, ports }).unwrap()
    }

    fn check(sender: &Sender, url: &str) -> Result<(), UrlError> {
        sender.check(&url.parse().unwrap())
    }

    #[test]
    fn strangers_are_posted_to_by_https_on_known_ports_only() {
        let strict = sender(&[], false, &[443]);
        for fine in ["https://hooks.example/in?x=1", "https://1.1.1.1/", "https://hooks.example./"]
        {
            assert!(check(&strict, fine).is_ok(), "{fine}");
        }
        let long = format!("https://hooks.example/{}", "a".repeat(LONGEST_URL));
        assert!(matches!(check(&strict, &long), Err(UrlError::TooLong)));
        for (url, refused) in [
            ("http://hooks.example/", "`http` is not a scheme"),
            ("ftp://hooks.example/", "`ftp` is not a scheme"),
            ("mailto:user@example.com", "`mailto` is not a scheme"),
            ("https://user:word@hooks.example/", "user name"),
            ("https://hooks.example:8443/", "port 8443"),
            ("https://127.1/", "127.0.0.1 leads to"),
            ("https://localhost/", "localhost leads to"),
            ("https://a.LOCALHOST./", "a.localhost. leads to"),
        ] {
            let words = check(&strict, url).unwrap_err().to_string();
            assert!(words.contains(refused), "{url}: {words}");
        }
    }

    #[test]
    fn the_operator_may_open_http_ports_and_the_inside() {
        let open = sender(&[], true, &[80, 443, 8443]);
        for fine in ["http://hooks.example/", "https://hooks.example:8443/"] {
            assert!(check(&open, fine).is_ok(), "{fine}");
        }
        assert!(matches!(
            check(&open, "http://10.0.0.1/"),
            Err(UrlError::Address(AddressError::Forbidden { .. }))
        ));

        let inside = sender(&["127.0.0.0/8", "intranet.example"], false, &[443]);
        for fine in ["http://127.0.0.1:9/", "http://localhost:9/", "http://Intranet.example:8080/"]
        {
            assert!(check(&inside, fine).is_ok(), "{fine}");
        }
        assert!(check(&inside, "http://other.example/").is_err());
    }

    #[test]
    fn a_wish_to_be_asked_later_is_read_in_both_forms() {
        let now = time::macros::datetime!(2026-11-25 12:00 UTC);
        let read = |value: &str| {
            RetryAfter::read(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]))
                .map(|wish| wish.from(now))
        };
        assert_eq!(read("60"), Some(now + time::Duration::minutes(1)));
        assert_eq!(read("Wed, 25 Nov 2026 13:00:00 GMT"), Some(now + time::Duration::hours(1)));
        for nonsense in ["soon", "-1", "99999999999999", ""] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
