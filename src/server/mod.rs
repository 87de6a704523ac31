//! Connections: who is let in, how many at once, and for how long.
//!
//! A connection that waits for its client has a deadline, and makes room when its listener is full; one
//! whose client waits for us is left alone, however long that takes. Each listener has a share of the
//! descriptors of its own, so that none can take them from another, the database or the workers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod activity;
mod body;
mod connection;
mod descriptors;
mod peer;
mod stream;
mod tls;
mod waiting;

pub use descriptors::share;
pub use peer::PeerCertificate;
pub use tls::{ClientCas, Identity, RefusedCertificate, Tls, TlsError};

use connection::Protocol;
use peer::Peer;
use waiting::Waiting;

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(200);

/// Limits of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Time for a request's head, from its first byte or the connection's beginning.
    pub head: Duration,
    pub idle: Duration,
    /// Time for which a client may read nothing of its answer.
    pub untaken: Duration,
}

/// A listener with what answers on it.
pub struct Server {
    name: &'static str,
    listener: TcpListener,
    router: Router,
    protocol: Arc<Protocol>,
    tls: Option<Tls>,
    refused: Option<mpsc::Sender<RefusedCertificate>>,
    places: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    is_failing: Arc<AtomicBool>,
}

/// Whether a listener accepts connections.
#[derive(Debug, Clone)]
pub struct Accepting {
    /// The listener, as the log and the settings call it.
    pub name: &'static str,
    is_failing: Arc<AtomicBool>,
}

impl Accepting {
    /// Whether the last connection could not be accepted, as when the descriptors are used up.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }
}

impl Server {
    /// A server for `listener`, which is called `name` in the log.
    pub fn new(name: &'static str, listener: TcpListener, router: Router, limits: Limits) -> Self {
        Self {
            name,
            listener,
            // Once: a router that has its state is shared by all connections, not copied.
            router: router.with_state(()),
            protocol: Arc::new(Protocol::new(limits)),
            tls: None,
            refused: None,
            places: Arc::new(Semaphore::new(limits.connections)),
            waiting: Arc::default(),
            is_failing: Arc::default(),
        }
    }

    /// Tells from now on whether connections are accepted.
    pub fn accepting(&self) -> Accepting {
        Accepting { name: self.name, is_failing: Arc::clone(&self.is_failing) }
    }

    /// The same, over TLS.
    #[must_use]
    pub fn over(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Tells of each client certificate that a handshake refuses.
    #[must_use]
    pub fn telling(mut self, refused: mpsc::Sender<RefusedCertificate>) -> Self {
        self.refused = Some(refused);
        self
    }

    /// The address that it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, and then until what is under way has been answered.
    pub async fn run(self, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let trouble = Trouble(&self.is_failing);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    trouble.has_come(self.name, &error);
                    pause(&stop).await;
                    continue;
                }
            };
            trouble.is_over(self.name);
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = self.place() => place,
            };
            self.attend((stream, peer), place, &connections, &stop);
        }
        // Nobody new is let in while the rest is answered.
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }

    /// A place for one more connection. Whoever has kept a full listener waiting for longest leaves; where
    /// all wait for us, the newcomer waits as well.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.waiting.dismiss_one();
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        self.waiting.has_room();
        place
    }

    fn attend(
        &self,
        (stream, peer): (TcpStream, SocketAddr),
        place: Option<OwnedSemaphorePermit>,
        connections: &TaskTracker,
        stop: &CancellationToken,
    ) {
        // Answers and events are written whole: nothing is gained by holding their ends back.
        stream.set_nodelay(true).ok();
        let protocol = Arc::clone(&self.protocol);
        let (waiting, router) = (Arc::clone(&self.waiting), self.router.clone());
        let (tls, refused, stop) = (self.tls.clone(), self.refused.clone(), stop.clone());
        connections.spawn(async move {
            let peer = Peer { address: peer, certificate: None };
            let from = (stream, peer);
            let served =
                connection::attend(&protocol, from, tls.as_ref(), router, waiting, &stop).await;
            if let (Err(certificate), Some(refused)) = (served, refused) {
                // While nobody takes the news, the connection keeps its place: there are never more than those.
                refused.send(certificate).await.ok();
            }
            drop(place);
        });
    }
}

/// Logs a failing accept once, and once its end.
struct Trouble<'a>(&'a AtomicBool);

impl Trouble<'_> {
    fn has_come(&self, listener: &str, error: &io::Error) {
        if !self.0.swap(true, Relaxed) {
            let error = error as &dyn std::error::Error;
            tracing::error!(listener, error, "no connection can be accepted; trying again");
        }
    }

    fn is_over(&self, listener: &str) {
        if self.0.swap(false, Relaxed) {
            tracing::info!(listener, "connections are accepted again");
        }
    }
}

/// Whether the error concerns one connection only, not the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[expect(clippy::disallowed_methods, reason = "descriptors come free without telling anybody")]
async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(PAUSE) => {}
    }
}
