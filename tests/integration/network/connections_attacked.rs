//! Half requests by the thousand, against the real program with few descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::installation::{Database, Installation, Program, tick};
use crate::support::patience::PATIENCE;

const HALF_REQUESTS: usize = 2_000;

/// Each is tried again as often, which takes as many header timeouts, or the listener's making room.
const ROUNDS: usize = 3;

const GUARD: Duration = Duration::from_mins(5);

/// In KiB.
const MEMORY: u64 = 64 * 1024;

#[tokio::test]
async fn half_requests_at_the_responder_hold_nobody_up() {
    Attack::at(Program::responder).await;
}

#[tokio::test]
async fn half_requests_at_the_api_hold_nobody_up() {
    Attack::at(|program| program.api.clone()).await;
}

struct Attack {
    /// Connections that the server has closed.
    closed: Arc<AtomicUsize>,
    half_requests: JoinSet<()>,
}

impl Attack {
    async fn at(target: impl FnOnce(&Program) -> String) {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        let mut site = Installation::on(Database::Sqlite).await;
        site.limit_descriptors(1024);
        site.set("HTTP_HEADER_TIMEOUT", "1s");
        let mut program = site.start().await;
        site.set_up(&program).await;
        let before = program.resident();

        let mut attack = Self::begin(&target(&program));
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let urls = [
            format!("http://{}/healthz", program.api),
            format!("http://{}/.well-known/acme-challenge/none", program.responder()),
        ];
        let (mut answered, mut most, mut asked) = ([0; 2], before, false);
        while !attack.is_over() {
            for (url, answered) in urls.iter().zip(&mut answered) {
                // The attacked one may close a request that comes as one of thousands.
                *answered += usize::from(client.get(url).timeout(PATIENCE).send().await.is_ok());
            }
            asked = asked || site.ask_for(&program, "amid").await.is_ok();
            most = most.max(program.resident());
            assert!(program.is_running(), "{}", program.log());
            tick().await;
        }

        assert_eq!(attack.closed.load(Ordering::SeqCst), ROUNDS * HALF_REQUESTS);
        assert!(asked && answered.iter().all(|count| *count > 0), "{answered:?}");
        assert!(most - before < MEMORY, "{before} KiB became {most} KiB");
        site.until_all_ready(&mut program, 1).await;
    }

    fn begin(target: &str) -> Self {
        let (closed, mut half_requests) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..HALF_REQUESTS {
            let (target, closed) = (target.to_owned(), Arc::clone(&closed));
            half_requests.spawn(async move {
                for _ in 0..ROUNDS {
                    tokio::time::timeout(GUARD, half_request(&target)).await.expect("it is closed");
                    closed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { closed, half_requests }
    }

    fn is_over(&mut self) -> bool {
        while let Some(done) = self.half_requests.try_join_next() {
            done.unwrap();
        }
        self.half_requests.is_empty()
    }
}

/// Half a request; ends when the server has closed it.
async fn half_request(target: &str) {
    let mut stream = TcpStream::connect(target).await.unwrap();
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nx-half: ").await.is_ok() {
        stream.read_to_end(&mut Vec::new()).await.ok();
    }
}
