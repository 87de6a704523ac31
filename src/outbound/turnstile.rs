//! The way of every question to a name server.
//!
//! Resolvers look up, try again, follow CNAMEs and fall back to TCP by themselves; whatever they do, each
//! datagram and each write to a connection passes here. Whoever is told "too often" tries again later,
//! as with any other silence of the DNS.

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::rate::{Rate, Rates};

/// Questions that one name server is asked in any second, at most: below what public resolvers stand.
pub const NAME_SERVER_PER_SECOND: u32 = 1_000;

/// A fifth of them may come at once; the rest is earned over the second.
const RATE: Rate = Rate {
    burst: NAME_SERVER_PER_SECOND / 5,
    interval: time::Duration::nanoseconds(1_000_000_000 * 5 / (NAME_SERVER_PER_SECOND as i64 * 4)),
};

/// Questions that wait for one name server's answer at the same time, at most.
pub const NAME_SERVER_AT_ONCE: usize = 256;

/// Longest wait for a turn.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Name servers that are asked at the same time; beyond, no new one is.
const MOST: usize = 10_000;

/// That of the process: name servers see one host, however many resolvers there are.
static TURNSTILE: LazyLock<Arc<Turnstile>> = LazyLock::new(|| Arc::new(Turnstile::new()));

struct Turnstile {
    started: Instant,
    rates: Rates<SocketAddr>,
    queues: Mutex<HashMap<SocketAddr, Arc<Queue>>>,
}

/// One name server's.
struct Queue {
    places: Arc<Semaphore>,
    /// The place of the next caller; the others queue behind it in order.
    head: Semaphore,
}

impl Turnstile {
    fn new() -> Self {
        Self { started: Instant::now(), rates: Rates::new(RATE, MOST), queues: Mutex::default() }
    }

    fn queue(&self, server: SocketAddr) -> io::Result<Arc<Queue>> {
        let mut queues = self.queues.lock();
        if queues.len() >= MOST && !queues.contains_key(&server) {
            // Every waiting or running caller holds a reference to its queue.
            queues.retain(|_, queue| {
                Arc::strong_count(queue) > 1
                    || queue.places.available_permits() < NAME_SERVER_AT_ONCE
            });
            if queues.len() >= MOST {
                return Err(held_back());
            }
        }
        let queue = queues.entry(server).or_insert_with(|| {
            let places = Arc::new(Semaphore::new(NAME_SERVER_AT_ONCE));
            Arc::new(Queue { places, head: Semaphore::new(1) })
        });
        Ok(Arc::clone(queue))
    }

    /// Waits for a turn; what is returned holds the place of a question that is not answered yet.
    async fn pass(&self, server: SocketAddr) -> io::Result<OwnedSemaphorePermit> {
        let queue = self.queue(server)?;
        let turn = async {
            let closed = |_| held_back();
            let place = Arc::clone(&queue.places).acquire_owned().await.map_err(closed)?;
            let _head = queue.head.acquire().await.map_err(closed)?;
            while let Err(at) = self.spend(server) {
                sleep_until(at).await;
            }
            Ok(place)
        };
        timeout(LONGEST_WAIT, turn).await.unwrap_or_else(|_| Err(held_back()))
    }

    fn spend(&self, server: SocketAddr) -> Result<(), Instant> {
        let now = OffsetDateTime::UNIX_EPOCH + self.started.elapsed();
        self.rates
            .spend(&server, now)
            .map_err(|at| Instant::now() + Duration::try_from(at - now).unwrap_or_default())
    }
}

fn held_back() -> io::Error {
    io::Error::other("this service asks that name server as often as it may already")
}

/// Tokio's runtime, with the turnstile before every name server.
#[derive(Clone, Default)]
pub struct Paced(TokioRuntimeProvider);

impl RuntimeProvider for Paced {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Question;
    type Tcp = AsyncIoTokioAsStd<Connection>;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let connecting = self.0.connect_tcp(server, bind, wait_for);
        Box::pin(async move {
            let place = TURNSTILE.pass(server).await?;
            let connected = connecting.await?.0;
            drop(place);
            let turnstile = Arc::clone(&TURNSTILE);
            Ok(AsyncIoTokioAsStd(Connection { connected, server, turnstile, turn: Turn::Wanted }))
        })
    }

    /// Asked for with each datagram, also with one that repeats another.
    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        Box::pin(async move {
            let place = TURNSTILE.pass(server).await?;
            let socket = UdpSocket::bind(local).await?;
            Ok(Question { socket, _place: place })
        })
    }
}

/// A socket for one question, which holds its place until it is dropped.
pub struct Question {
    socket: UdpSocket,
    _place: OwnedSemaphorePermit,
}

impl DnsUdpSocket for Question {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, context, buffer)
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        buffer: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.socket, context, buffer, target)
    }
}

/// A connection to a name server; each write is a question, or a part of one.
pub struct Connection {
    connected: TcpStream,
    server: SocketAddr,
    turnstile: Arc<Turnstile>,
    turn: Turn,
}

enum Turn {
    Wanted,
    Waiting(Pin<Box<Sleep>>),
    Given,
}

impl Connection {
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.turn {
                Turn::Given => return Poll::Ready(()),
                Turn::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(context));
                    self.turn = Turn::Wanted;
                }
                Turn::Wanted => {
                    self.turn = match self.turnstile.spend(self.server) {
                        Ok(()) => Turn::Given,
                        Err(at) => Turn::Waiting(Box::pin(sleep_until(at))),
                    };
                }
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connected).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(context));
        let written = ready!(Pin::new(&mut self.connected).poll_write(context, buffer));
        self.turn = Turn::Wanted;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connected).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connected).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 53))
    }

    /// Times of the admissions, in order; each holds its place for the window.
    async fn passed(turnstile: &Turnstile, count: usize, holding: Duration) -> Vec<Instant> {
        let wishes = (0..count).map(async |n| {
            // They come over some seconds, several at a time.
            sleep_until(Instant::now() + Duration::from_millis(n as u64 / 7)).await;
            let place = turnstile.pass(server(1)).await.ok()?;
            let at = Instant::now();
            sleep_until(at + holding).await;
            drop(place);
            Some(at)
        });
        let mut passed: Vec<Instant> = join_all(wishes).await.into_iter().flatten().collect();
        passed.sort_unstable();
        passed
    }

    fn busiest_second(passed: &[Instant]) -> usize {
        let within = |from: &Instant| {
            passed.iter().filter(|at| *at >= from && **at < *from + SECOND).count()
        };
        passed.iter().map(within).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_is_asked_at_most_a_thousand_times_in_any_second() {
        let turnstile = Turnstile::new();

        let passed = passed(&turnstile, 20_000, Duration::from_millis(5)).await;

        let busiest = busiest_second(&passed);
        assert!(busiest <= NAME_SERVER_PER_SECOND as usize, "{busiest}");
        assert!(passed.len() > 3_000, "nor is it asked much less: {}", passed.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_server_holds_no_more_than_its_places() {
        let turnstile = Turnstile::new();

        let passed = passed(&turnstile, 5_000, Duration::from_mins(1)).await;

        assert_eq!(passed.len(), NAME_SERVER_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_one_name_server_does_not_keep_others_from_another() {
        let turnstile = Turnstile::new();
        let held = join_all((0..NAME_SERVER_AT_ONCE).map(|_| turnstile.pass(server(1)))).await;

        assert!(turnstile.pass(server(1)).await.is_err());
        let before = Instant::now();
        assert!(turnstile.pass(server(2)).await.is_ok());
        assert_eq!(before, Instant::now());
        drop(held);
        assert!(turnstile.pass(server(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_went_away_leaves_the_turn_to_others() {
        let turnstile = Turnstile::new();
        for _ in 0..RATE.burst {
            turnstile.spend(server(1)).unwrap();
        }

        let gone =
            (0..1_000).map(|_| timeout(Duration::from_micros(10), turnstile.pass(server(1))));
        assert!(join_all(gone).await.iter().all(Result::is_err));

        assert!(turnstile.pass(server(1)).await.is_ok());
        assert!(turnstile.started.elapsed() < Duration::from_millis(10));
    }

    #[tokio::test]
    async fn every_datagram_and_connection_of_a_resolver_takes_a_turn() {
        // Nobody answers there, so that the resolver tries again, and then by TCP.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = silent.local_addr().unwrap();
        for _ in 0..RATE.burst {
            TURNSTILE.spend(server).unwrap();
        }
        let begun = Instant::now();
        let resolver = super::super::resolver(&[server], false).unwrap();
        let looks = (0..400).map(|n| resolver.lookup_ip(format!("host{n}.example.")));
        let some_come = async {
            for _ in 0..20 {
                silent.recv(&mut [0; 512]).await.unwrap();
            }
        };
        tokio::select! {
            _ = join_all(looks) => panic!("each sends something, and waits for an answer"),
            come = timeout(Duration::from_mins(2), some_come) => come.unwrap(),
        }
        let came = 20 + std::iter::from_fn(|| silent.try_recv(&mut [0; 512]).ok()).count();

        let elapsed = time::Duration::try_from(begun.elapsed()).unwrap();
        let most = RATE.most_within(elapsed) - RATE.burst as usize;
        assert!(came <= most + 1, "{came} of {most}");
    }
}
