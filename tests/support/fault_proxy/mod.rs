//! A TLS reverse proxy before Pebble that does what replicas, front ends and networks do on bad
//! days. It keeps the `Host` header, from which Pebble makes its URLs: every call comes through it.

mod overlap;
mod state;
mod wishes;
pub mod words;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use certwright::clock::ManualClock;
use futures_util::future::OptionFuture;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use self::overlap::{Hanging, UnderWay};
pub use self::state::problem;
use self::state::{Limit, Own, State, page, with_headers};
use super::pebble::{Pebble, tls_for_loopback};

const REPLAY_NONCE: &str = "replay-nonce";

/// What a request is about, by Pebble's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    KeyChange,
    RenewalInfo,
    Directory,
    Account,
    /// Nonces.
    Other,
}

impl Kind {
    pub fn of(path: &str) -> Self {
        match path.trim_start_matches('/').split('/').next() {
            Some("order-plz") => Self::NewOrder,
            Some("my-order") => Self::Order,
            Some("authZ") => Self::Authorization,
            Some("chalZ") => Self::Challenge,
            Some("finalize-order") => Self::Finalize,
            Some("certZ") => Self::Certificate,
            Some("rollover-account-key") => Self::KeyChange,
            Some(draft) if draft.starts_with("draft-ietf-acme-ari") => Self::RenewalInfo,
            Some("dir") => Self::Directory,
            Some("sign-me-up" | "my-account") => Self::Account,
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
    /// An order that says what it replaces is refused.
    Replacement,
    /// An order that says when its certificate is to end is refused.
    End,
    /// An order is refused until a person acts.
    Action,
    /// No request gets through at all.
    Down,
    /// Renewal information that the CA did not give.
    Suggested,
    /// What [`FaultProxy::refuse`] was told.
    Refused,
    /// What [`FaultProxy::answer_instead`] was told.
    Instead,
    /// No answer, and no end of the connection.
    Hang,
    /// A state that was left behind already.
    Backwards,
    /// Another chain than the CA's.
    Rewritten,
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
    let_go: Notify,
    all_there: Notify,
    /// Pebble locks up now and then when new orders overlap.
    new_order: Semaphore,
}

/// An answer with `Retry-After` that a front end gives instead of the CA.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub status: u16,
    /// A page in HTML instead of a problem document.
    pub html: bool,
    pub form: RetryAfter,
    pub pause: Duration,
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

pub type Answer = Response<Full<Bytes>>;

impl FaultProxy {
    /// Starts without any fault.
    pub async fn before(pebble: &Pebble) -> Self {
        let tls = tls_for_loopback();
        let root = reqwest::Certificate::from_pem(pebble.ca_pem().as_bytes()).unwrap();
        // HTTP/2 would send the URL's authority instead of the `Host` header.
        let client = reqwest::Client::builder().tls_certs_only([root]).http1_only().no_proxy();
        let shared = Arc::new(Shared {
            pebble: pebble.directory_url().trim_end_matches("/dir").to_owned(),
            client: client.build().unwrap(),
            state: Mutex::default(),
            let_go: Notify::new(),
            all_there: Notify::new(),
            new_order: Semaphore::new(1),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Without ALPN both sides speak HTTP/1.1: one request at a time can be cut on a connection.
        let acceptor = tls.acceptor(&[]);
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&shared)));
        Self { shared, address, ca: tls.ca, task }
    }

    /// Goes by this clock from now on, and not by the system's.
    pub fn follow(&self, clock: Arc<ManualClock>) {
        self.shared.state().clock = Some(clock);
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
        for kind in [Kind::Order, Kind::Authorization, Kind::Certificate] {
            self.lag_of(kind, lag);
        }
    }

    /// The same for one of these kinds.
    pub fn lag_of(&self, kind: Kind, lag: Duration) {
        self.shared.state().lag.insert(kind, lag);
    }

    /// Each order, authorization and certificate cannot be found at the first so many looks.
    pub fn absent_at_first(&self, looks: usize) {
        self.shared.state().absent = looks;
    }

    /// So many reads in a hundred come to a replica that knows nothing of what is asked for.
    pub fn replicas_behind(&self, percent: u64) {
        self.shared.state().behind = percent;
    }

    /// What signed the proxy's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca
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

    /// New orders are refused with 429 for so long from the first one, to the second if told as a date.
    pub fn limit_new_orders(&self, form: RetryAfter, time: Duration) {
        self.limit(form, time, None);
    }

    /// New orders for names below a registered domain are refused, in Let's Encrypt's words.
    pub fn limit_domain(&self, domain: &str, time: Duration) {
        self.limit(RetryAfter::Seconds, time, Some(domain.to_owned()));
    }

    /// From now on, or no more, every request gets a page in HTML.
    pub fn only_pages(&self, only: bool) {
        self.shared.state().only_pages = only;
    }

    fn limit(&self, form: RetryAfter, time: Duration, domain: Option<String>) {
        self.shared.state().limit = Some(Limit { time, end: None, form, domain });
    }

    /// So many signed requests in a hundred are answered with 503 and whole seconds to wait.
    pub fn busy(&self, percent: u64, retry_after: Duration) {
        self.shared.state().busy = (percent, retry_after);
    }

    /// The next so many requests of this kind are refused so, one after the other.
    pub fn refuse(&self, kind: Kind, refusals: &[Refusal]) {
        self.shared.state().refusals.entry(kind).or_default().extend(refusals);
    }

    /// Whatever of this kind is asked for first is never answered, however often it is asked for, until
    /// [`Self::let_go`].
    pub fn hang_first(&self, kind: Kind) {
        self.shared.state().hung = Some((kind, None));
    }

    /// Ends the connections of those who wait for an answer that does not come.
    pub fn let_go(&self) {
        self.shared.state().hung = None;
        self.shared.let_go.notify_waiters();
    }

    /// How many clients are waiting for an answer that does not come.
    pub fn hanging(&self) -> usize {
        self.shared.state().hanging
    }

    /// Orders and authorizations show, half of the time, a state that they were in before, for the first
    /// so many reads of each state.
    pub fn backwards(&self, reads: usize) {
        self.shared.state().backwards = reads;
    }

    /// The CSRs that came for each order.
    pub fn csrs(&self) -> Vec<Vec<String>> {
        self.shared.state().csrs.values().cloned().collect()
    }

    /// What new orders asked for.
    pub fn orders_asked(&self) -> Vec<serde_json::Value> {
        let state = self.shared.state();
        state.orders.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// How many requests of a kind have come.
    pub fn requests(&self, kind: Kind) -> usize {
        self.kinds().iter().filter(|asked| **asked == kind).count()
    }

    /// What was asked for, in order.
    pub fn kinds(&self) -> Vec<Kind> {
        self.shared.state().asked.iter().map(|(kind, _)| *kind).collect()
    }

    /// How many requests have come.
    pub fn all_requests(&self) -> usize {
        self.shared.state().asked.len()
    }

    /// When requests of a kind came.
    pub fn times(&self, kind: Kind) -> Vec<OffsetDateTime> {
        let state = self.shared.state();
        state.asked.iter().filter(|(asked, _)| *asked == kind).map(|(_, at)| *at).collect()
    }

    /// When the CA took an order.
    pub fn orders_taken(&self) -> Vec<OffsetDateTime> {
        self.shared.state().taken.clone()
    }

    /// When something went wrong.
    pub fn fault_times(&self, fault: Fault) -> Vec<OffsetDateTime> {
        let state = self.shared.state();
        state.faults.iter().filter(|(met, _)| *met == fault).map(|(_, at)| *at).collect()
    }

    /// How often something went wrong.
    pub fn faults(&self, fault: Fault) -> usize {
        self.fault_times(fault).len()
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
        let (own, under_way) = {
            let mut state = self.state();
            let own = state.before(kind, &parts.method, &path, &body);
            let goes_on = own.is_none();
            (own, UnderWay::new(self, &mut state.overlap, kind, goes_on))
        };
        under_way.together().await;
        match own {
            Some(Own::Cut) => Err(Cut),
            Some(Own::Instead(mut answer)) => {
                if let Some(nonce) = self.nonce().await {
                    answer.headers_mut().insert(REPLAY_NONCE, nonce);
                }
                Ok(answer)
            }
            Some(Own::Hang) => {
                let let_go = self.let_go.notified();
                let _gone = Hanging::new(self);
                let_go.await;
                Err(Cut)
            }
            Some(Own::Page) => Ok(page(StatusCode::BAD_GATEWAY)),
            Some(Own::Refuse(refusal, retry_after)) => {
                let status = StatusCode::from_u16(refusal.status).unwrap();
                let refused = || problem(status, "rateLimited", "come back later");
                let mut answer = if refusal.html { page(status) } else { refused() };
                answer.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
                Ok(answer)
            }
            Some(Own::Wait { status, detail, retry_after }) => {
                let mut answer = problem(status, "rateLimited", &detail);
                answer.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
                if let Some(nonce) = self.nonce().await {
                    answer.headers_mut().insert(REPLAY_NONCE, nonce);
                }
                Ok(answer)
            }
            None => {
                let ordering = (kind == Kind::NewOrder).then(|| self.new_order.acquire());
                let _turn = OptionFuture::from(ordering).await;
                let answer = self.forward(parts, body).await.map_err(|_| Cut)?;
                let answer = self.state().after(kind, &path, answer)?;
                Ok(self.state().words.after(kind, &path, answer))
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
