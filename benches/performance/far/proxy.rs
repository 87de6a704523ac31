//! The distance to a CA: a TLS proxy before Pebble that delays every request, and shows validations as done
//! only when their time has come.
//!
//! It keeps the authority that was asked, from which Pebble makes its URLs: nothing that is signed changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::super::support::fault_proxy::{Answer, Kind, problem};
use super::super::support::pebble::{Pebble, tls_for_loopback};
use super::validation::{Span, Validations};

/// As many as Go's servers, and so Let's Encrypt's and Pebble's, allow on one connection.
const STREAMS: u32 = 250;

/// How far away a CA is, and how long it takes.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// Added to every request: half of it before the CA, half of it after it.
    pub latency: Duration,
    pub validation: Span,
    /// What the CA says with everything that is not done yet.
    pub retry_after: Option<Duration>,
}

impl Distance {
    pub const fn of(latency: Duration, validation: Span) -> Self {
        Self { latency, validation, retry_after: None }
    }

    /// No certificate can be had sooner: order, authorization, challenge and the look at it, finalizing and the
    /// download follow each other, with a validation that begins at the CA.
    pub fn least(&self) -> Duration {
        self.latency * 5 + self.validation.least
    }
}

/// As in the titles of what is measured.
impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", humantime::format_duration(self.latency), self.validation)?;
        match self.retry_after {
            Some(pause) => write!(f, " Retry-After {}", humantime::format_duration(pause)),
            None => Ok(()),
        }
    }
}

/// A running proxy; it ends with this value.
pub struct DelayingProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca: String,
    task: JoinHandle<()>,
}

impl Drop for DelayingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    distance: Distance,
    pebble: String,
    client: reqwest::Client,
    /// New orders that overlap lock Pebble up.
    new_orders: Semaphore,
    validations: Mutex<Validations>,
    requests: Mutex<HashMap<Kind, usize>>,
}

impl DelayingProxy {
    pub async fn before(pebble: &Pebble, distance: Distance) -> Self {
        let tls = tls_for_loopback();
        let root = reqwest::Certificate::from_pem(pebble.ca_pem().as_bytes()).unwrap();
        // HTTP/2 would send the URL's authority instead of the `Host` header.
        let client = reqwest::Client::builder().tls_certs_only([root]).http1_only().no_proxy();
        let shared = Arc::new(Shared {
            distance,
            pebble: pebble.directory_url().trim_end_matches("/dir").to_owned(),
            client: client.build().unwrap(),
            new_orders: Semaphore::new(1),
            validations: Mutex::new(Validations::new(distance.validation)),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tls.acceptor(&["h2", "http/1.1"]);
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&shared)));
        Self { shared, address, ca: tls.ca, task }
    }

    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// What signed the proxy's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// How many requests of each kind have come.
    pub fn requests(&self) -> HashMap<Kind, usize> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        // What is late has to be so by the latency alone.
        socket.set_nodelay(true).unwrap();
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { shared.answer_late(request).await }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().max_concurrent_streams(STREAMS);
            // Clients that leave end it with an error.
            server.serve_connection(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    async fn answer_late(&self, request: Request<Incoming>) -> anyhow::Result<Answer> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        sleep(self.distance.latency / 2).await;
        let answer = self.answer(parts, body).await?;
        sleep(self.distance.latency / 2).await;
        Ok(answer)
    }

    /// What the CA says, as far as it may be known at its place now.
    async fn answer(&self, parts: request::Parts, body: Bytes) -> anyhow::Result<Answer> {
        let (path, kind) = (parts.uri.path().to_owned(), Kind::of(parts.uri.path()));
        *self.requests.lock().unwrap().entry(kind).or_default() += 1;
        let arrived = Instant::now();
        if kind == Kind::Finalize && self.validations.lock().unwrap().is_early(&path, arrived) {
            return Ok(problem(
                StatusCode::FORBIDDEN,
                "orderNotReady",
                "validation takes its time",
            ));
        }
        let is_accepting = kind == Kind::Challenge && has_payload(&body);
        let answer = match kind {
            Kind::NewOrder => {
                let _alone = self.new_orders.acquire().await?;
                self.forward(parts, body).await?
            }
            _ => self.forward(parts, body).await?,
        };
        let (mut parts, mut body) = answer.into_parts();
        if parts.status.is_success()
            && let Ok(mut shown) = serde_json::from_slice::<Value>(&body)
        {
            let mut validations = self.validations.lock().unwrap();
            if is_accepting {
                validations.accept(&path, arrived);
            }
            let is_waited_for = validations.show(kind, &path, &mut shown, Instant::now());
            body = shown.to_string().into();
            if let Some(pause) = self.distance.retry_after.filter(|_| is_waited_for) {
                parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
            }
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    async fn forward(
        &self,
        mut parts: request::Parts,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        if let Some(authority) = parts.uri.authority() {
            let host = HeaderValue::from_str(authority.as_str())?;
            parts.headers.insert(header::HOST, host);
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.pebble);
        let request = self.client.request(parts.method, url).headers(parts.headers).body(body);
        let mut answer = request.send().await?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            response.headers_mut().remove(hop);
        }
        *response.body_mut() = answer.bytes().await?;
        Ok(response)
    }
}

/// Whether a signed request is more than a `POST`-as-`GET`.
fn has_payload(body: &Bytes) -> bool {
    let signed: Value = serde_json::from_slice(body).unwrap_or_default();
    signed["payload"].as_str().is_some_and(|payload| !payload.is_empty())
}
