//! The way to one CA: our own HTTP client under instant-acme.
//!
//! It adds what instant-acme leaves out: timeouts, limits, https only, nonces without extra
//! requests, error bodies that can be read, and a record of what happened ([`super::recorder`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::sync::Semaphore;
use url::Url;

use super::classify::{Call, Transport, is_bad_nonce};
use super::meter::{self, Came};
use super::nonce::Nonces;
use super::origins::Origins;
use super::problem::{Problem, clean};
use super::recorder;
use super::recorder::{End, Exchange, Outcome};
use crate::clock::Clock;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::Acme;
use crate::outbound::{AddressError, Client, Guard};

/// Requests to one CA at the same time.
const CONCURRENCY: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte out to the last byte in, unless the settings say otherwise.
pub(super) const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Boulder answers `finalize` after asking CAA records and certificate transparency logs.
const FINALIZE_TAKES: u32 = 3;
/// Connections are given up before the CA's front end gives them up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// No honest answer is larger.
const LARGEST_BODY: usize = 1 << 20;
/// Of an error answer that is no problem document, so much goes into the debug log.
const LONGEST_QUOTE: usize = 300;
const USER_AGENT: &str = concat!("certwright/", env!("CARGO_PKG_VERSION"), " instant-acme/0.8");
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// What instant-acme gets to see where the caller wants the body for itself.
const EMPTY_ORDER: &[u8] = br#"{"status":"valid","authorizations":[],"finalize":""}"#;

/// A cheap handle; copies share connections, nonces and limits.
#[derive(Clone)]
pub(super) struct CaClient(Arc<Inner>);

struct Inner {
    http: Client,
    origins: Origins,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    nonces: Nonces,
    /// Whether the CA gave a nonce to GET and not to HEAD.
    nonces_by_get: AtomicBool,
    sent: Arc<Sent>,
    timeout: Duration,
}

/// How many requests went out since the start.
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
        sent: Arc<Sent>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
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
            nonces_by_get: AtomicBool::new(false),
            sent,
            timeout,
        })))
    }

    /// Takes the hosts of these URLs, which the CA's directory names, for the CA's.
    pub(super) fn learn<'a>(&self, endpoints: impl Iterator<Item = &'a str>) {
        self.0.origins.learn(endpoints);
    }

    /// Fetches a document that needs no signature.
    pub(super) async fn get(&self, url: &str) -> Result<Bytes, Error> {
        let request = Request::builder().uri(url).body(BodyWrapper::default())?;
        let mut response = self.clone().call(request).await?;
        response.body.into_bytes().await.map_err(Error::Other)
    }

    async fn call(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let inner = &*self.0;
        // instant-acme sends HEAD to newNonce and nowhere else.
        let wants_nonce = request.method() == Method::HEAD;
        let url = match inner.origins.admit(&request.uri().to_string()) {
            Ok(url) => url,
            Err(foreign) => {
                inner.keep_nonce(request).await;
                let end = End::Failed(Transport::Foreign(foreign));
                recorder::note(Outcome { end, for_nonce: false });
                return Err(Error::Str("not a URL of the CA; the tape knows why"));
            }
        };
        if wants_nonce && let Some(nonce) = inner.nonces.take(inner.clock.now()) {
            return from_pool(&nonce);
        }
        let method = request.method().clone();
        let answer = if wants_nonce {
            inner.ask_for_nonce(url).await
        } else {
            inner.exchange(url, request).await
        };
        let (exchange, headers) = match answer {
            Ok(answer) => answer,
            Err(trouble) => {
                recorder::note(Outcome { end: End::Failed(trouble), for_nonce: wants_nonce });
                return Err(Error::Str("no answer; the tape knows why"));
            }
        };
        let response = inner.translate(&method, &exchange, headers);
        recorder::note(Outcome { end: End::Answered(exchange), for_nonce: wants_nonce });
        response
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().call(request))
    }
}

impl Inner {
    /// By HEAD, or by GET from a CA that does not know HEAD (RFC 8555, section 7.2, has both).
    async fn ask_for_nonce(&self, url: Url) -> Result<(Exchange, HeaderMap), Transport> {
        let ask = |method| {
            self.sent.for_nonces.fetch_add(1, Relaxed);
            let mut request = Request::new(BodyWrapper::default());
            *request.method_mut() = method;
            self.exchange(url.clone(), request)
        };
        if !self.nonces_by_get.load(Relaxed) {
            let answer = ask(Method::HEAD).await?;
            if !matches!(answer.0.status, 404 | 405 | 501) {
                return Ok(answer);
            }
        }
        let answer = ask(Method::GET).await?;
        self.nonces_by_get.store(answer.0.is_success(), Relaxed);
        Ok(answer)
    }

    /// Takes the nonce out of a request that is not sent.
    async fn keep_nonce(&self, request: Request<BodyWrapper<Bytes>>) {
        let Ok(unsent) = request.into_body().collect().await;
        if let Some(nonce) = nonce_in(&unsent.to_bytes()) {
            self.nonces.put(&nonce, self.clock.now());
        }
    }

    /// Sends one request and reads the whole answer.
    async fn exchange(
        &self,
        url: Url,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<(Exchange, HeaderMap), Transport> {
        let permit = tokio::time::timeout(self.timeout, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Transport::Busy) };
        let (mut parts, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        // Ours names instant-acme, too.
        parts.headers.remove(header::USER_AGENT);
        let method = parts.method.clone();
        let request = self.http.request(method, &url).map_err(Transport::Guarded)?;
        let admitted = meter::admit(self.clock.now()).await;
        let token = admitted.map_err(Transport::Withheld)?;
        self.sent.all.fetch_add(1, Relaxed);

        let request = request.headers(parts.headers);
        let request = request.body(body.to_bytes()).timeout(self.allowed());
        let mut response = request.send().await.map_err(|error| trouble(&error))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = read(&mut response).await?;
        tracing::debug!(method = %parts.method, %url, status, bytes = body.len(), "ACME exchange");
        let exchange = Exchange::new(url.into(), status, &headers, body, self.clock.now());
        let came = match status {
            ..400 => Came::Good,
            _ if is_bad_nonce(&exchange) => Came::BadNonce,
            _ => Came::Refused,
        };
        meter::answered(token, came);
        if status >= 400 && Problem::of(&exchange).is_none() {
            let said = clean(&String::from_utf8_lossy(&exchange.body), LONGEST_QUOTE);
            tracing::debug!(
                url = exchange.url,
                status,
                said,
                "an error without a problem document"
            );
        }
        Ok((exchange, headers))
    }

    /// How long the running operation's request may take.
    fn allowed(&self) -> Duration {
        match recorder::call() {
            Some(Call::Finalize) => self.timeout * FINALIZE_TAKES,
            _ => self.timeout,
        }
    }

    /// Turns an answer into what instant-acme can live with.
    fn translate(
        &self,
        method: &Method,
        exchange: &Exchange,
        mut headers: HeaderMap,
    ) -> Result<BytesResponse, Error> {
        if method != Method::HEAD
            && let Some(nonce) = headers.remove(REPLAY_NONCE)
            && let Ok(nonce) = nonce.to_str()
        {
            self.nonces.put(nonce, self.clock.now());
        }
        let body = if exchange.status >= 400 {
            let problem = plain_problem(exchange);
            if method == Method::GET {
                // instant-acme does not look at the status of what it gets without a signature.
                return Err(Error::Api(serde_json::from_slice(&problem)?));
            }
            problem
        } else if recorder::is_raw() && method == Method::POST {
            Bytes::from_static(EMPTY_ORDER)
        } else {
            exchange.body.clone()
        };
        let mut response = Response::new(Full::new(body));
        // For nonces 204 is as good (RFC 8555, section 7.2), but instant-acme insists on 200.
        *response.status_mut() = match *method {
            Method::HEAD if exchange.is_success() => StatusCode::OK,
            _ => StatusCode::from_u16(exchange.status).map_err(http::Error::from)?,
        };
        *response.headers_mut() = headers;
        Ok(response.into())
    }
}

/// The answer to `HEAD newNonce`, without asking.
fn from_pool(nonce: &str) -> Result<BytesResponse, Error> {
    let mut response = Response::new(Full::new(Bytes::new()));
    let value = HeaderValue::from_str(nonce).map_err(http::Error::from)?;
    response.headers_mut().insert(REPLAY_NONCE, value);
    Ok(response.into())
}

/// A problem document that instant-acme can read, whatever the CA or a proxy sent. It needs the
/// type only to notice `badNonce`; everything else is taken from the tape.
fn plain_problem(exchange: &Exchange) -> Bytes {
    let problem = Problem::of(exchange).unwrap_or_default();
    let plain = serde_json::json!({
        "type": problem.kind, "detail": problem.detail, "status": exchange.status,
    });
    plain.to_string().into()
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

/// Which kind of trouble an error of the HTTP client stands for.
fn trouble(error: &reqwest::Error) -> Transport {
    let words = with_causes(error);
    if let Some(refused) = AddressError::behind(error) {
        Transport::Guarded(refused)
    } else if error.is_builder() {
        Transport::Refused(words)
    } else if is_untrusted(error) {
        Transport::Untrusted(words)
    } else if error.is_timeout() {
        Transport::Timeout(words)
    } else if error.is_connect() {
        Transport::Unreachable(words)
    } else {
        Transport::Broken(words)
    }
}

/// Whether the CA's TLS certificate was the problem, however deep that is buried.
fn is_untrusted(error: &reqwest::Error) -> bool {
    causes(error).any(|mut cause| {
        // An I/O error shows what it wraps as itself, not as its source.
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
    })
}

/// An error and everything below it, outermost first.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let words: Vec<_> = causes(error).map(ToString::to_string).collect();
    words.join(": ")
}

/// The nonce that a signed request was made with.
fn nonce_in(jws: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Jws {
        protected: String,
    }
    #[derive(serde::Deserialize)]
    struct Header {
        nonce: String,
    }
    let jws: Jws = serde_json::from_slice(jws).ok()?;
    let header = URL_SAFE_NO_PAD.decode(jws.protected).ok()?;
    serde_json::from_slice::<Header>(&header).ok().map(|header| header.nonce)
}
