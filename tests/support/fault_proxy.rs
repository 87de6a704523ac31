//! A TLS reverse proxy before Pebble that does what replicas, front ends and networks do on bad
//! days. It keeps the `Host` header, from which Pebble makes its URLs: every call comes through it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use certwright::clock::{Clock as _, SystemClock};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::pebble::{Pebble, Tls, tls_for_loopback};

const ERROR: &str = "urn:ietf:params:acme:error:";
const REPLAY_NONCE: &str = "replay-nonce";

/// Pages or cuts that one request meets at most, however often it comes: the pauses between tries
/// double, and a test has to end.
const MOST_PAGES_AND_CUTS: usize = 1;

/// What a request is about, by Pebble's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    /// Directory, nonces, accounts.
    Other,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path.trim_start_matches('/').split('/').next() {
            Some("order-plz") => Self::NewOrder,
            Some("my-order") => Self::Order,
            Some("authZ") => Self::Authorization,
            Some("chalZ") => Self::Challenge,
            Some("finalize-order") => Self::Finalize,
            Some("certZ") => Self::Certificate,
            _ => Self::Other,
        }
    }

    /// What Boulder says when a replica has not heard of such a thing.
    fn not_there(self) -> &'static str {
        match self {
            Self::Authorization => "No such authorization",
            Self::Certificate => "Certificate not found",
            _ => "No order for ID 1",
        }
    }
}

/// What can go wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 404 for something that was just handed out.
    NotThere,
    /// 502 with a page in HTML instead of a problem document.
    Page,
    /// The connection ends without an answer, and the CA has heard nothing.
    Cut,
    /// The CA has acted; its answer is lost with the connection.
    Lost,
    /// 429 `rateLimited`.
    Limited,
    /// 503 `rateLimited`.
    Busy,
}

/// How a moment is written in `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub enum RetryAfter {
    Seconds,
    Date,
}

/// A running proxy; it ends when dropped. Its faults can be changed at any time.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca: String,
    task: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    pebble: String,
    client: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lag: Duration,
    pages: u64,
    cuts: u64,
    lost: HashMap<Kind, usize>,
    limit: Option<Limit>,
    down: bool,
    busy: (u64, Duration),
    /// When the CA first named a path.
    named: HashMap<String, Instant>,
    /// Every request: what it was about, and when it came.
    asked: Vec<(Kind, Instant)>,
    /// When the CA took an order.
    taken: Vec<Instant>,
    faults: HashMap<Fault, usize>,
    /// Until when a request was told to wait: its path and JWS payload.
    told: HashMap<(String, String), Instant>,
    hasty: Vec<String>,
    /// How many pages and cuts a request has met: its path and JWS payload.
    met: HashMap<(String, String), usize>,
    dice: u64,
}

struct Limit {
    end: Instant,
    /// The same moment, as a clock shows it.
    date: SystemTime,
    form: RetryAfter,
    /// Only new orders for names below this one.
    domain: Option<String>,
}

/// What the proxy answers itself.
enum Own {
    Cut,
    Page,
    Wait { status: StatusCode, detail: String, retry_after: String },
}

/// Ends the connection.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

type Answer = Response<Full<Bytes>>;

impl FaultProxy {
    /// Starts without any fault.
    pub async fn before(pebble: &Pebble) -> Self {
        let Tls { certificate, key, ca } = tls_for_loopback();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        // Without ALPN both sides speak HTTP/1.1: one request at a time can be cut on a connection.
        let tls = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();

        let root = reqwest::Certificate::from_pem(pebble.ca_pem().as_bytes()).unwrap();
        // HTTP/2 would send the URL's authority instead of the `Host` header.
        let client = reqwest::Client::builder().tls_certs_only([root]).http1_only().no_proxy();
        let shared = Arc::new(Shared {
            pebble: pebble.directory_url().trim_end_matches("/dir").to_owned(),
            client: client.build().unwrap(),
            state: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&shared)));
        Self { shared, address, ca, task }
    }

    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// What signed the proxy's certificate, in the form of an issuer's `caBundle`.
    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(&self.ca)
    }

    /// Orders, authorizations and certificates cannot be found until so long after the CA first
    /// named them.
    pub fn lag(&self, lag: Duration) {
        self.shared.state().lag = lag;
    }

    /// So many requests in a hundred get a page in HTML.
    pub fn html_502(&self, percent: u64) {
        self.shared.state().pages = percent;
    }

    /// So many requests in a hundred get no answer, before the CA hears of them.
    pub fn cut(&self, percent: u64) {
        self.shared.state().cuts = percent;
    }

    /// The next so many answers of success to such requests are lost, after the CA has acted.
    pub fn lose_answers(&self, kind: Kind, count: usize) {
        self.shared.state().lost.insert(kind, count);
    }

    /// New orders are refused with 429 for so long, to the second if told as a date.
    pub fn limit_new_orders(&self, form: RetryAfter, time: Duration) {
        self.limit(form, time, None);
    }

    /// New orders for names below a registered domain are refused, in Let's Encrypt's words.
    pub fn limit_domain(&self, domain: &str, time: Duration) {
        self.limit(RetryAfter::Seconds, time, Some(domain.to_owned()));
    }

    fn limit(&self, form: RetryAfter, time: Duration, domain: Option<String>) {
        let (now, clock) = (Instant::now(), SystemTime::from(SystemClock.now()));
        let end = clock + time;
        let date = match form {
            RetryAfter::Seconds => end,
            // Dates have whole seconds: the next one.
            RetryAfter::Date => {
                let since = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() + 1)
            }
        };
        let end = now + date.duration_since(clock).unwrap();
        self.shared.state().limit = Some(Limit { end, date, form, domain });
    }

    /// From now on, or no more, every request gets a page in HTML, however often it comes.
    pub fn down(&self, down: bool) {
        self.shared.state().down = down;
    }

    /// So many signed requests in a hundred are answered with 503 and whole seconds to wait.
    pub fn busy(&self, percent: u64, retry_after: Duration) {
        self.shared.state().busy = (percent, retry_after);
    }

    /// How many requests of a kind have come.
    pub fn requests(&self, kind: Kind) -> usize {
        self.shared.state().asked.iter().filter(|(asked, _)| *asked == kind).count()
    }

    /// When requests of a kind came.
    pub fn times(&self, kind: Kind) -> Vec<Instant> {
        let state = self.shared.state();
        state.asked.iter().filter(|(asked, _)| *asked == kind).map(|(_, at)| *at).collect()
    }

    /// When the CA took an order.
    pub fn orders_taken(&self) -> Vec<Instant> {
        self.shared.state().taken.clone()
    }

    /// How often something went wrong.
    pub fn faults(&self, fault: Fault) -> usize {
        self.shared.state().faults.get(&fault).copied().unwrap_or(0)
    }

    /// Requests that came again before the time that they were told.
    pub fn hasty(&self) -> Vec<String> {
        self.shared.state().hasty.clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(|request| shared.answer(request));
            // A cut ends the connection with an error; so do clients that leave.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Cut> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let (path, kind) = (parts.uri.path().to_owned(), Kind::of(parts.uri.path()));
        let own = self.state().before(kind, &parts.method, &path, &body);
        match own {
            Some(Own::Cut) => Err(Cut),
            Some(Own::Page) => Ok(page()),
            Some(Own::Wait { status, detail, retry_after }) => {
                let mut answer = problem(status, "rateLimited", &detail);
                answer.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
                if let Some(nonce) = self.nonce().await {
                    answer.headers_mut().insert(REPLAY_NONCE, nonce);
                }
                Ok(answer)
            }
            None => {
                let answer = self.forward(parts, body).await.map_err(|_| Cut)?;
                self.state().after(kind, &path, answer)
            }
        }
    }

    async fn forward(&self, parts: request::Parts, body: Bytes) -> reqwest::Result<Answer> {
        let url = format!("{}{}", self.pebble, parts.uri);
        let request = self.client.request(parts.method, url).headers(parts.headers).body(body);
        let mut answer = request.send().await?;
        let (status, mut headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            headers.remove(hop);
        }
        Ok(with_headers(status, headers, answer.bytes().await?))
    }

    /// A nonce for an answer that the CA knows nothing of.
    async fn nonce(&self) -> Option<HeaderValue> {
        let answer = self.client.head(format!("{}/nonce-plz", self.pebble)).send().await.ok()?;
        answer.headers().get(REPLAY_NONCE).cloned()
    }
}

impl State {
    fn before(&mut self, kind: Kind, method: &Method, path: &str, body: &[u8]) -> Option<Own> {
        let now = Instant::now();
        self.asked.push((kind, now));
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        let same = (path.to_owned(), jws["payload"].as_str().unwrap_or_default().to_owned());
        if self.told.get(&same).is_some_and(|at| now < *at) {
            self.hasty.push(path.to_owned());
        }
        if self.down {
            return Some(self.count(Fault::Page, Own::Page));
        }
        if self.met.get(&same).is_none_or(|met| *met < MOST_PAGES_AND_CUTS) {
            let met = if self.happens(self.cuts) {
                Some((Fault::Cut, Own::Cut))
            } else if self.happens(self.pages) {
                Some((Fault::Page, Own::Page))
            } else {
                None
            };
            if let Some((fault, own)) = met {
                *self.met.entry(same).or_default() += 1;
                return Some(self.count(fault, own));
            }
        }
        if let Some(Limit { end, date, form, domain }) =
            self.limit.as_ref().filter(|limit| now < limit.end)
            && kind == Kind::NewOrder
            && domain.as_ref().is_none_or(|domain| payload(&jws).contains(domain))
        {
            let seconds = (*end - now).as_secs() + 1;
            let (until, retry_after) = match form {
                RetryAfter::Seconds => (now + Duration::from_secs(seconds), seconds.to_string()),
                RetryAfter::Date => (*end, httpdate::fmt_http_date(*date)),
            };
            self.told.insert(same, until);
            let detail = domain.as_ref().map_or_else(
                || "too many new orders recently".to_owned(),
                |domain| format!("too many certificates (50) already issued for \"{domain}\" in the last 168h0m0s"),
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Some(self.count(Fault::Limited, Own::Wait { status, detail, retry_after }));
        }
        let (percent, pause) = self.busy;
        if method == Method::POST && self.happens(percent) {
            self.told.insert(same, now + pause);
            let retry_after = pause.as_secs().to_string();
            let (status, detail) =
                (StatusCode::SERVICE_UNAVAILABLE, "Service busy; retry later.".to_owned());
            return Some(self.count(Fault::Busy, Own::Wait { status, detail, retry_after }));
        }
        None
    }

    fn after(&mut self, kind: Kind, path: &str, answer: Answer) -> Result<Answer, Cut> {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let now = Instant::now();
        let lags = matches!(kind, Kind::Order | Kind::Authorization | Kind::Certificate);
        if lags && self.named.get(path).is_some_and(|named| now < *named + self.lag) {
            let mut absent = problem(StatusCode::NOT_FOUND, "malformed", kind.not_there());
            if let Some(nonce) = answer.headers().get(REPLAY_NONCE) {
                absent.headers_mut().insert(REPLAY_NONCE, nonce.clone());
            }
            return Ok(self.count(Fault::NotThere, absent));
        }
        if kind == Kind::NewOrder {
            self.taken.push(now);
        }
        for path in paths_in(&answer) {
            self.named.entry(path).or_insert(now);
        }
        match self.lost.get_mut(&kind) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(self.count(Fault::Lost, Cut))
            }
            _ => Ok(answer),
        }
    }

    fn count<T>(&mut self, fault: Fault, value: T) -> T {
        *self.faults.entry(fault).or_default() += 1;
        value
    }

    /// Chance that is the same in every run (splitmix64).
    fn happens(&mut self, percent: u64) -> bool {
        if percent == 0 {
            return false;
        }
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100 < percent
    }
}

/// What a request says beneath its signature.
fn payload(jws: &Value) -> String {
    let encoded = jws["payload"].as_str().unwrap_or_default();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default()).unwrap_or_default()
}

/// What an answer names: the order, its authorizations, its certificate.
fn paths_in(answer: &Answer) -> Vec<String> {
    let body = answer.body().clone();
    let body = futures_util::FutureExt::now_or_never(body.collect()).and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let listed = body["authorizations"].as_array().into_iter().flatten();
    let named = listed.chain([&body["certificate"]]).filter_map(Value::as_str);
    let location = answer.headers().get(header::LOCATION).and_then(|url| url.to_str().ok());
    let urls = named.chain(location).filter_map(|url| url::Url::parse(url).ok());
    urls.map(|url| url.path().to_owned()).collect()
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
    let body =
        json!({"type": format!("{ERROR}{kind}"), "detail": detail, "status": status.as_u16()});
    let kind = HeaderValue::from_static("application/problem+json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    with_headers(status, headers, body.to_string().into())
}

fn page() -> Answer {
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))]);
    let body = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n";
    with_headers(StatusCode::BAD_GATEWAY, headers, body.into())
}

fn with_headers(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
