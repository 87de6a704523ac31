//! The HTTP client of one CA: timeouts, limits, https only, and nonces without extra requests.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, header};
use rustls::CertificateError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use url::Url;

use super::call::{Answer, Call, Request, Signed, Transport};
use super::exchange::Exchange;
use super::meter::{self, Came};
use super::origins::Origins;
use super::skew::Skews;
use crate::acme::nonce::Nonces;
use crate::acme::problem::clean;
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::Acme;
use crate::outbound::{AddressError, Client, Guard, causes};
use crate::telemetry::metrics::calls as metrics;
use crate::telemetry::trace::{Kind, Span};

/// Requests to one CA at the same time: on one HTTP/2 connection, where the CA speaks it.
const CONCURRENCY: usize = 128;
/// Those for nothing but a nonce: CAs bear few of them (Let's Encrypt 20 a second), and whoever waits gets a
/// nonce from the next answer as well.
const NEW_NONCES: usize = 4;
/// For an answer that brings a nonce, before the CA is asked for one.
const NONCE_PATIENCE: Duration = Duration::from_millis(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte out to the last byte in, unless the settings say otherwise.
pub(super) const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Boulder answers `finalize` after asking CAA records and certificate transparency logs.
const FINALIZE_TAKES: u32 = 3;
/// Connections are given up before the CA's front end gives them up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that is silent for so long is asked for a sign of life (HTTP/2), and given up without one:
/// all requests share it, and none of them would ever be answered.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body that is read.
const LARGEST_BODY: usize = 1 << 20;
/// Characters of an error answer without a problem document that go into the debug log.
const LONGEST_QUOTE: usize = 300;
const USER_AGENT: &str = concat!("certwright/", env!("CARGO_PKG_VERSION"), " instant-acme/0.8");
/// Redirects that may lead to a directory.
const MOST_REDIRECTS: usize = 3;

/// A cheap handle; copies share connections, nonces and limits.
#[derive(Clone)]
pub(super) struct CaClient(Arc<Inner>);

struct Inner {
    http: Client,
    origins: Origins,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    nonces: Nonces,
    new_nonces: Semaphore,
    /// Whether the CA gave a nonce to GET and not to HEAD.
    nonces_by_get: AtomicBool,
    sent: Arc<Sent>,
    skews: Arc<Skews>,
    timeout: Duration,
}

/// The number of requests since the start.
#[derive(Default)]
pub(super) struct Sent {
    pub all: AtomicU64,
    /// Those that asked for nothing but a nonce.
    pub for_nonces: AtomicU64,
}

impl CaClient {
    /// A client that trusts what the issuer says, and goes where the guard lets it.
    pub(super) fn new(
        acme: &Acme,
        guard: Option<&Guard>,
        clock: Arc<dyn Clock>,
        (sent, skews): (Arc<Sent>, Arc<Skews>),
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true);
        if let Some(bundle) = &acme.ca_bundle {
            builder = builder.tls_certs_only(certificates(bundle)?);
        }
        if acme.skip_tls_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let http = match guard {
            Some(guard) => Client::guarded(builder, guard.clone()),
            None => Client::open(builder),
        };
        let http = http.map_err(|error| match acme.ca_bundle {
            Some(_) => bad_bundle(&with_causes(&error)),
            None => no_roots(with_causes(&error)),
        })?;
        Ok(Self(Arc::new(Inner {
            http,
            origins: Origins::new(&acme.server, &acme.allowed_origins),
            clock,
            permits: Semaphore::new(CONCURRENCY),
            nonces: Nonces::default(),
            new_nonces: Semaphore::new(NEW_NONCES),
            nonces_by_get: AtomicBool::new(false),
            sent,
            skews,
            timeout,
        })))
    }

    /// Takes the hosts of these URLs, which the CA's directory names, for the CA's.
    pub(super) fn learn<'a>(&self, endpoints: impl Iterator<Item = &'a str>) {
        self.0.origins.learn(endpoints);
    }

    /// Sends one request and reads the whole answer.
    pub(super) async fn send(&self, call: Call, request: Request<'_>) -> Answer {
        match request {
            Request::Get(url) => Answer { end: self.0.get(call, url).await, for_nonce: false },
            Request::Post(signed) => self.0.post(call, signed).await,
        }
    }
}

impl Inner {
    /// A directory may be behind redirects within its origin: nothing is signed for it, and what it
    /// names is checked for itself. No other redirect is followed, as a signature is for one URL.
    async fn get(&self, call: Call, url: &str) -> Result<Exchange, Transport> {
        let mut exchange = self.exchange(call, Method::GET, self.admit(url)?, None).await?;
        for _ in 0..MOST_REDIRECTS {
            let leads_to = exchange.location.as_deref().filter(|target| {
                call == Call::Directory
                    && exchange.is_redirect()
                    && same_origin(&exchange.url, target)
            });
            let Some(target) = leads_to else { break };
            exchange = self.exchange(call, Method::GET, self.admit(target)?, None).await?;
        }
        Ok(exchange)
    }

    async fn post(&self, call: Call, request: Signed<'_>) -> Answer {
        // Before a nonce is taken for it.
        let url = match self.admit(request.url) {
            Ok(url) => url,
            Err(foreign) => return Answer { end: Err(foreign), for_nonce: false },
        };
        let nonce = match self.nonce(call, request.new_nonce).await {
            Ok(nonce) => nonce,
            Err(end) => return Answer { end, for_nonce: true },
        };
        let Signed { signer, account, payload, .. } = request;
        let end = match signer.request(account, request.url, &nonce, payload) {
            Ok(body) => self.exchange(call, Method::POST, url, Some(body)).await,
            Err(why) => Err(Transport::Unsigned(why)),
        };
        Answer { end, for_nonce: false }
    }

    fn admit(&self, url: &str) -> Result<Url, Transport> {
        self.origins.admit(url).map_err(Transport::Foreign)
    }

    /// From the pool, or from the CA; an error is what came instead.
    async fn nonce(
        &self,
        call: Call,
        new_nonce: &str,
    ) -> Result<String, Result<Exchange, Transport>> {
        let url = self.admit(new_nonce).map_err(Err)?;
        let _leave = match tokio::time::timeout(self.timeout, self.nonce_or_leave()).await {
            Ok(Ok(nonce)) => return Ok(nonce),
            Ok(Err(leave)) => leave,
            Err(_) => return Err(Err(Transport::Busy)),
        };
        let mut exchange = self.ask_for_nonce(call, url).await.map_err(Err)?;
        exchange.nonce.take().ok_or(Ok(exchange))
    }

    /// A nonce of the pool, or leave to ask the CA for one: whichever is there first. While answers are on their way,
    /// one of them may bring it sooner than the CA could be asked.
    async fn nonce_or_leave(&self) -> Result<String, Option<SemaphorePermit<'_>>> {
        let (mut leave, mut has_waited) = (None, false);
        loop {
            if let Some(nonce) = self.nonces.take(self.clock.now()) {
                return Ok(nonce);
            }
            if leave.is_some() {
                return Err(leave);
            }
            let are_under_way = self.permits.available_permits() < CONCURRENCY;
            if are_under_way && !std::mem::replace(&mut has_waited, true) {
                tokio::time::timeout(NONCE_PATIENCE, self.nonces.arrival()).await.ok();
                continue;
            }
            tokio::select! {
                () = self.nonces.arrival() => {}
                permit = self.new_nonces.acquire() => leave = permit.ok(),
            }
        }
    }

    /// Sends HEAD, or GET to a CA that does not know HEAD (RFC 8555, section 7.2, has both).
    async fn ask_for_nonce(&self, call: Call, url: Url) -> Result<Exchange, Transport> {
        let ask = |method| {
            self.sent.for_nonces.fetch_add(1, Relaxed);
            self.exchange_once(call, method, url.clone(), None)
        };
        if !self.nonces_by_get.load(Relaxed) {
            let answer = ask(Method::HEAD).await?;
            if !matches!(answer.status, 404 | 405 | 501) {
                return Ok(answer);
            }
        }
        let answer = ask(Method::GET).await?;
        self.nonces_by_get.store(answer.is_success(), Relaxed);
        Ok(answer)
    }

    /// One exchange whose nonce goes into the pool.
    async fn exchange(
        &self,
        call: Call,
        method: Method,
        url: Url,
        signed: Option<String>,
    ) -> Result<Exchange, Transport> {
        let mut exchange = self.exchange_once(call, method, url, signed).await?;
        if let Some(nonce) = exchange.nonce.take() {
            self.nonces.put(&nonce, self.clock.now());
        }
        Ok(exchange)
    }

    async fn exchange_once(
        &self,
        call: Call,
        method: Method,
        url: Url,
        signed: Option<String>,
    ) -> Result<Exchange, Transport> {
        let action = if method == Method::HEAD { "newNonce" } else { call.as_str() };
        let begun = Instant::now();
        let mut span = Span::here(Kind::Client, action);
        if let Some(span) = &mut span {
            span.rename(|| format!("ACME {action}"));
            span.asks(method.as_str(), &url);
        }
        let end = self.exchange_uncounted(call, method, url, signed).await;
        if let Some(status) = sent(&end) {
            metrics::acme(action, &status, begun.elapsed());
        }
        if let Some(span) = &mut span {
            span.answered(end.as_ref().ok().map(|exchange| exchange.status));
        }
        end
    }

    async fn exchange_uncounted(
        &self,
        call: Call,
        method: Method,
        url: Url,
        signed: Option<String>,
    ) -> Result<Exchange, Transport> {
        let permit = tokio::time::timeout(self.timeout, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Transport::Busy) };
        let request = self.http.request(method.clone(), &url).map_err(Transport::Guarded)?;
        let admitted = meter::admit(self.clock.now()).await;
        let token = admitted.map_err(Transport::Withheld)?;
        self.sent.all.fetch_add(1, Relaxed);

        let request = match signed {
            Some(body) => request.header(header::CONTENT_TYPE, "application/jose+json").body(body),
            None => request,
        };
        let request = request.timeout(self.allowed(call));
        let mut response = request.send().await.map_err(|error| trouble(&error))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        self.skews.observe(url.host_str().unwrap_or_default(), &headers, self.clock.now());
        let body = read(&mut response).await?;
        tracing::debug!(%method, %url, status, bytes = body.len(), "ACME exchange");
        let exchange = Exchange::new(url.into(), status, &headers, body, self.clock.now());
        let came = match status {
            ..400 => Came::Good,
            _ if exchange.is_bad_nonce() => Came::BadNonce,
            _ => Came::Refused,
        };
        meter::answered(token, came);
        if status >= 400 && exchange.problem().is_none() {
            let said = clean(&String::from_utf8_lossy(&exchange.body), LONGEST_QUOTE);
            tracing::debug!(
                url = exchange.url,
                status,
                said,
                "an error without a problem document"
            );
        }
        Ok(exchange)
    }

    fn allowed(&self, call: Call) -> Duration {
        match call {
            Call::Finalize => self.timeout * FINALIZE_TAKES,
            _ => self.timeout,
        }
    }
}

/// The status that a request ended with, or the word for what came instead; `None` if nothing was sent.
fn sent(end: &Result<Exchange, Transport>) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(match end {
        Ok(exchange) => return Some(exchange.status.to_string().into()),
        Err(Transport::Timeout(_)) => "timeout",
        Err(Transport::Unreachable(_)) => "unreachable",
        Err(Transport::Untrusted(_) | Transport::Untimely(_)) => "untrusted",
        Err(Transport::Broken(_)) => "broken",
        Err(Transport::TooLarge) => "too_large",
        Err(
            Transport::Unsigned(_)
            | Transport::Busy
            | Transport::Withheld(_)
            | Transport::Refused(_)
            | Transport::Foreign(_)
            | Transport::Guarded(_),
        ) => return None,
    }))
}

fn same_origin(one: &str, other: &str) -> bool {
    let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
    origin(one).is_some_and(|one| one.is_tuple() && Some(one) == origin(other))
}

async fn read(response: &mut reqwest::Response) -> Result<Bytes, Transport> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| trouble(&error))? {
        if body.len() + chunk.len() > LARGEST_BODY {
            return Err(Transport::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn certificates(bundle: &str) -> Result<Vec<reqwest::Certificate>, Failure> {
    let compact: String = bundle.split_whitespace().collect();
    let pem = STANDARD.decode(compact).map_err(|error| bad_bundle(&error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| bad_bundle(&with_causes(&error)))?;
    if found.is_empty() {
        return Err(bad_bundle("it holds no certificate"));
    }
    Ok(found)
}

fn bad_bundle(why: &str) -> Failure {
    Failure::of(code::ACME_CA_BUNDLE_INVALID, why)
}

fn no_roots(why: String) -> Failure {
    Failure::of(code::ACME_NO_TRUSTED_ROOTS, why)
}

/// Translates an error of the HTTP client.
fn trouble(error: &reqwest::Error) -> Transport {
    let words = with_causes(error);
    if let Some(refused) = AddressError::behind(error) {
        Transport::Guarded(refused)
    } else if error.is_builder() {
        Transport::Refused(words)
    } else if let Some(why) = untrusted(error) {
        if is_about_time(&why) { Transport::Untimely(words) } else { Transport::Untrusted(words) }
    } else if error.is_timeout() {
        Transport::Timeout(words)
    } else if error.is_connect() {
        Transport::Unreachable(words)
    } else {
        Transport::Broken(words)
    }
}

/// Why a TLS certificate is not trusted, where that is among the causes, however deep.
fn untrusted(error: &reqwest::Error) -> Option<CertificateError> {
    causes(error).find_map(|mut cause| {
        // An I/O error shows what it wraps as itself, not as its source.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        match cause.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(why)) => Some(why.clone()),
            _ => None,
        }
    })
}

/// Whether it is the date that is wrong with a certificate: its own, or ours.
fn is_about_time(why: &CertificateError) -> bool {
    matches!(
        why,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let words: Vec<_> = causes(error).map(ToString::to_string).collect();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_looked_for_within_one_origin() {
        for (one, other, same) in [
            ("https://ca.example/d", "https://ca.example:443/e", true),
            ("https://ca.example/d", "https://CA.example/d/", true),
            ("https://ca.example/d", "http://ca.example/d", false),
            ("https://ca.example/d", "https://ca.example:8443/d", false),
            ("https://ca.example/d", "https://evil.example/d", false),
            ("https://ca.example/d", "data:text/plain,x", false),
        ] {
            assert_eq!(same_origin(one, other), same, "{one} {other}");
        }
    }
}
