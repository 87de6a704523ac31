//! Who may keep a connection, and for how long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use certwright::server::{Limits, Server};
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::world::{World, on_every_database};

const GUARD: Duration = Duration::from_mins(2);

/// Nobody lives to see it.
const NEVER: Duration = Duration::from_hours(24);

const SOON: Duration = Duration::from_millis(100);

const PATIENT: Limits = Limits { connections: 100, head: NEVER, idle: NEVER, untaken: NEVER };

const REQUEST: &[u8] = b"GET /quick HTTP/1.1\r\nHost: here\r\n\r\n";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server with an answer that is quick, one that waits, and one that never ends.
struct Site {
    address: SocketAddr,
    /// What `/slow` waits for.
    go: Arc<Notify>,
    /// Whoever has come to `/slow`.
    begun: Arc<Semaphore>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Site {
    async fn with(limits: Limits) -> Self {
        let (go, begun) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let slow = {
            let (go, begun) = (Arc::clone(&go), Arc::clone(&begun));
            async move || {
                begun.add_permits(1);
                go.notified().await;
                "slow"
            }
        };
        let much = Bytes::from(vec![b'x'; 64 * 1024]);
        let router =
            Router::new().route("/quick", get(async || "quick")).route("/slow", get(slow)).route(
                "/endless",
                get(async move || {
                    Body::from_stream(stream::repeat(Ok::<_, Infallible>(much.clone())))
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new("test", listener, router, limits);
        let (address, stop) = (server.address().unwrap(), CancellationToken::new());
        let server = tokio::spawn(server.run(stop.clone()));
        Self { address, go, begun, stop, server }
    }

    async fn say(&self, words: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(words).await.unwrap();
        stream
    }

    /// A request to `/slow` that has arrived.
    async fn ask_slowly(&self) -> TcpStream {
        let stream = self.say(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await;
        let come = tokio::time::timeout(GUARD, self.begun.acquire()).await;
        come.expect("it arrives").unwrap().forget();
        stream
    }
}

/// Everything until the other side has closed, or broken off.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let closed = tokio::time::timeout(GUARD, stream.read_to_end(&mut read)).await;
    closed.expect("the server closes it").ok();
    read
}

async fn until_answered(stream: &mut TcpStream, end: &str) {
    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
    while !read.ends_with(end.as_bytes()) {
        let more = tokio::time::timeout(GUARD, stream.read(&mut buffer)).await;
        let more = more.expect("an answer").unwrap();
        assert_ne!(more, 0, "closed after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..more]);
    }
}

#[tokio::test]
async fn half_a_head_in_any_form_is_closed_in_time() {
    let site = Site::with(Limits { head: SOON, ..PATIENT }).await;
    let half_headers = [PREFACE, SETTINGS, &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]].concat();
    let after_a_request = [REQUEST, b"GET /qui"].concat();
    for words in [
        b"".as_slice(),
        b"G",
        b"\r\n",
        b"GET /quick HTTP/1.1\r\nHost: here\r\nx-half: ",
        b"PRI * HTTP/2.0\r\n",
        PREFACE,
        &[PREFACE, SETTINGS].concat(),
        &half_headers,
    ] {
        let mut stream = site.say(words).await;
        until_closed(&mut stream).await;
    }

    let mut kept = site.say(REQUEST).await;
    until_answered(&mut kept, "quick").await;
    kept.write_all(&after_a_request[REQUEST.len()..]).await.unwrap();
    assert_eq!(until_closed(&mut kept).await, b"", "half a head after a request, too");
}

#[tokio::test]
async fn a_head_that_comes_in_drops_has_no_more_time() {
    let site = Site::with(Limits { head: SOON, ..PATIENT }).await;
    let (mut reader, mut writer) = site.say(b"GET / HTTP/1.1\r\nHost: here\r\n").await.into_split();
    let drops = tokio::spawn(async move {
        let mut tick = tokio::time::interval(SOON / 10);
        while writer.write_all(b"x: y\r\n").await.is_ok() {
            tick.tick().await;
        }
    });

    tokio::time::timeout(GUARD, reader.read_to_end(&mut Vec::new())).await.unwrap().ok();
    tokio::time::timeout(GUARD, drops).await.expect("nobody takes them any more").unwrap();
}

#[tokio::test]
async fn whoever_waits_for_us_outlives_all_deadlines() {
    let site = Site::with(Limits { head: SOON, idle: SOON, untaken: SOON, ..PATIENT }).await;
    let mut waits = site.ask_slowly().await;

    for _ in 0..5 {
        let mut idle = site.say(REQUEST).await;
        until_closed(&mut idle).await;
    }
    site.go.notify_one();

    let answer = until_closed(&mut waits).await;
    assert!(answer.ends_with(b"slow"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_while() {
    let site = Site::with(Limits { idle: SOON, ..PATIENT }).await;
    let mut kept = site.say(REQUEST).await;
    until_answered(&mut kept, "quick").await;

    assert_eq!(until_closed(&mut kept).await, b"");
    let mut other = site.say(b"GET /quick HTTP/1.1\r\nHost: here\r\nx-half: ").await;
    other.write_all(b"whole\r\n\r\n").await.unwrap();
    until_answered(&mut other, "quick").await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let site = Site::with(Limits { untaken: SOON, ..PATIENT }).await;
    let asked = site.say(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n").await;

    // Nothing is read. What the kernel holds for us ends with the connection.
    let gone = async {
        let mut tick = tokio::time::interval(SOON);
        while !is_closed(&asked) {
            tick.tick().await;
        }
    };
    tokio::time::timeout(GUARD, gone).await.expect("the server gives it up");
}

#[tokio::test]
async fn a_client_of_http_2_that_lets_no_answer_through_is_given_up() {
    let site = Site::with(Limits { untaken: SOON, ..PATIENT }).await;
    let no_window = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let fields = [&[0x82, 0x86, 4, 8], b"/endless".as_slice(), &[1, 4], b"here"].concat();
    let length = u8::try_from(fields.len()).unwrap();
    let head = [&[0, 0, length, 1, 5, 0, 0, 0, 1], fields.as_slice()].concat();

    let mut stream = site.say(&[PREFACE, &no_window, &head].concat()).await;

    let answer = until_closed(&mut stream).await;
    // Its head has come: a frame of headers on the first stream.
    assert!(answer.windows(6).any(|part| part == [1, 4, 0, 0, 0, 1]), "{answer:?}");
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let site = Site::with(PATIENT).await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("http://{}{path}", site.address)).send().await.unwrap();
        (answer.version(), answer.text().await.unwrap())
    };

    let slow = async {
        let answer = ask("/slow").await;
        assert_eq!(answer, (http::Version::HTTP_2, "slow".to_owned()));
    };
    let quick = async {
        site.begun.acquire().await.unwrap().forget();
        assert_eq!(ask("/quick").await, (http::Version::HTTP_2, "quick".to_owned()));
        site.go.notify_one();
    };

    tokio::time::timeout(GUARD, async { tokio::join!(slow, quick) }).await.expect("answers");
    site.stop.cancel();
    tokio::time::timeout(GUARD, site.server).await.expect("it ends").unwrap();
}

/// Whether the other side has gone, without reading what it had sent before.
fn is_closed(stream: &TcpStream) -> bool {
    stream.try_write(b"\r\n").is_err()
}

#[tokio::test]
async fn a_full_listener_lets_the_one_go_that_kept_it_waiting_longest() {
    let site = Site::with(Limits { connections: 3, ..PATIENT }).await;
    let mut busy = site.ask_slowly().await;
    let mut first = site.say(b"GET /quick HTTP/1.1\r\n").await;
    let mut second = site.say(REQUEST).await;
    until_answered(&mut second, "quick").await;

    let mut newcomers = Vec::new();
    for _ in 0..10 {
        let mut newcomer = site.say(REQUEST).await;
        until_answered(&mut newcomer, "quick").await;
        newcomers.push(newcomer);
    }

    assert_eq!(until_closed(&mut first).await, b"");
    assert_eq!(until_closed(&mut second).await, b"");
    site.go.notify_one();
    until_answered(&mut busy, "slow").await;
}

#[tokio::test]
async fn a_newcomer_waits_where_everybody_waits_for_us() {
    let site = Site::with(Limits { connections: 1, ..PATIENT }).await;
    let mut busy = site.ask_slowly().await;
    let mut newcomer = site.say(REQUEST).await;

    site.go.notify_one();

    until_answered(&mut busy, "slow").await;
    until_answered(&mut newcomer, "quick").await;
    assert_eq!(until_closed(&mut busy).await, b"");
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_waits_for_nobody_else() {
    let site = Site::with(PATIENT).await;
    let mut half = site.say(b"GET /quick HTTP/1.1\r\n").await;
    let mut silent = site.say(b"").await;
    let mut idle = site.say(REQUEST).await;
    until_answered(&mut idle, "quick").await;
    let mut busy = site.ask_slowly().await;

    site.stop.cancel();
    for stream in [&mut half, &mut silent, &mut idle] {
        until_closed(stream).await;
    }
    site.go.notify_one();

    assert!(until_closed(&mut busy).await.ends_with(b"slow"));
    tokio::time::timeout(GUARD, site.server).await.expect("it ends").unwrap();
}

on_every_database! {
    async fn a_request_names_exactly_one_host(world: World) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let responder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Server::new("api", listener, world.router.clone(), PATIENT);
        let router = certwright::api::responder(world.db.clone());
        let responder = Server::new("responder", responder, router, PATIENT);
        let stop = CancellationToken::new();
        let addresses = [&api, &responder].map(|server| server.address().unwrap());
        let servers = [api, responder].map(|server| tokio::spawn(server.run(stop.clone())));
        for address in addresses {
            for (head, taken) in [
                ("GET /healthz HTTP/1.1\r\nConnection: close\r\n", false),
                ("GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: a\r\nHost: b\r\n", false),
                ("GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: a\r\nhost: a\r\n", false),
                ("GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n", false),
                ("GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: a\r\n", true),
                ("GET /healthz HTTP/1.0\r\n", true),
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
                let answer = String::from_utf8(until_closed(&mut stream).await).unwrap();
                assert_eq!(!answer.contains(" 400 "), taken, "{head}: {answer}");
                let is_problem = answer.contains("application/problem+json");
                assert!(taken || address != addresses[0] || is_problem, "{answer}");
            }
        }
        stop.cancel();
        for server in servers {
            server.await.unwrap();
        }
    }
}
