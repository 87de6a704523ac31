//! Those who want us to connect where we may not: every way to write an address, names that lead
//! inside, listeners that count who comes, and a CA that names whatever it likes.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::cloudflare::Cloudflare;
use super::pebble::tls_for_loopback;

/// The zone that the hostile names are in.
pub const ZONE: &str = "example.org";

/// Listens on every address of this machine, IPv4 and IPv6, and counts who comes.
pub struct Trap {
    pub port: u16,
    connections: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trap {
    pub async fn set() -> Self {
        Self::answering("HTTP/1.1 204 No Content\r\n\r\n").await
    }

    pub async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                seen.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    if socket.read(&mut request).await.is_ok() {
                        socket.write_all(answer.as_bytes()).await.ok();
                    }
                });
            }
        });
        Self { port, connections, task }
    }

    pub fn count(&self) -> u32 {
        self.connections.load(SeqCst)
    }
}

/// Loopback, however it is written. With permission each of these does connect.
pub const LOOPBACK: [&str; 28] = [
    "http://127.0.0.1:P/",
    "http://127.0.0.2:P/",
    "http://127.255.255.254:P/",
    "http://127.1:P/",
    "http://127.0.1:P/",
    "http://127.0.0.1.:P/",
    "http://2130706433:P/",
    "http://0x7f000001:P/",
    "http://0x7f.0.0.1:P/",
    "http://0x7f.1:P/",
    "http://0X7F.0x0.0x0.0x1:P/",
    "http://0177.0.0.1:P/",
    "http://0177.0x0.1:P/",
    "http://017700000001:P/",
    "http://00000000177.1:P/",
    "http://%31%32%37.0.0.1:P/",
    "http://127%2e0%2e0%2e1:P/",
    "http://127。0。0。1:P/",
    "http://１２７.０.０.１:P/",
    "http://①②⑦.⓪.⓪.①:P/",
    "http://[::1]:P/",
    "http://[0:0:0:0:0:0:0:1]:P/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:P/",
    "http://[::ffff:127.0.0.1]:P/",
    "http://[::ffff:7f00:1]:P/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:P/",
    "http://\t127.0.\n0.1:P/",
    "http:\\\\127.0.0.1:P\\",
];

/// The rest of what is not public.
pub const INSIDE: [&str; 43] = [
    "http://0.0.0.0:P/",
    "http://0:P/",
    "http://0x0:P/",
    "http://0.0.0.1:P/",
    "http://[::]:P/",
    "http://[::127.0.0.1]:P/",
    "http://[::7f00:1]:P/",
    "http://[64:ff9b::127.0.0.1]:P/",
    "http://[64:ff9b:1::7f00:1]:P/",
    "http://[2002:7f00:1::]:P/",
    "http://[2002:7f00:1::1]:P/",
    "http://[2001:0:7f00:1::]:P/",
    "http://[2001::1]:P/",
    "http://[2001:db8::1]:P/",
    "http://[3fff::1]:P/",
    "http://[100::1]:P/",
    "http://[fc00::1]:P/",
    "http://[fd00:ec2::254]:P/",
    "http://[fe80::1]:P/",
    "http://[fec0::1]:P/",
    "http://[ff02::1]:P/",
    "http://[::ffff:10.0.0.1]:P/",
    "http://[::ffff:169.254.169.254]:P/",
    "http://10.0.0.1:P/",
    "http://10.255.255.255:P/",
    "http://167772161:P/",
    "http://172.16.0.1:P/",
    "http://172.31.255.254:P/",
    "http://192.168.0.1:P/",
    "http://192.168.257:P/",
    "http://100.64.0.1:P/",
    "http://100.100.100.200:P/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/latest/meta-data/",
    "http://192.0.0.192:P/",
    "http://192.0.2.1:P/",
    "http://198.18.0.1:P/",
    "http://203.0.113.1:P/",
    "http://224.0.0.1:P/",
    "http://240.0.0.1:P/",
    "http://255.255.255.255:P/",
];

/// Names of the machine itself.
pub const LOCAL: [&str; 5] = [
    "http://localhost:P/",
    "http://LOCALHOST:P/",
    "http://localhost.:P/",
    "http://trap.localhost:P/",
    "http://ｌｏｃａｌｈｏｓｔ:P/",
];

/// Names that lead inside, one way or another.
pub const NAMES: [&str; 15] = [
    "loopback",
    "LoopBack",
    "v6",
    "mapped",
    "compatible",
    "nat64",
    "private",
    "metadata",
    "unspecified",
    "broadcast",
    "mixed",
    "families",
    "last",
    "alias",
    "aliases",
];

/// Has these names lead there.
pub fn hostile_names(cloudflare: &Cloudflare) {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (name, addresses) in [
        ("loopback", vec![ip("127.0.0.1")]),
        ("v6", vec![ip("::1")]),
        ("mapped", vec![ip("::ffff:127.0.0.1")]),
        ("compatible", vec![ip("::127.0.0.1")]),
        ("nat64", vec![ip("64:ff9b::7f00:1")]),
        ("private", vec![ip("10.0.0.1")]),
        ("metadata", vec![ip("169.254.169.254")]),
        ("unspecified", vec![ip("0.0.0.0")]),
        ("broadcast", vec![ip("255.255.255.255")]),
        // The public ones are nobody's: nothing is sent there, whatever the test finds.
        ("mixed", vec![ip("1.2.3.4"), ip("127.0.0.1")]),
        ("families", vec![ip("1.2.3.4"), ip("::1")]),
        ("last", vec![ip("1.2.3.4"), ip("1.2.3.5"), ip("192.168.1.1")]),
    ] {
        cloudflare.set_addresses(&format!("{name}.{ZONE}"), &addresses);
    }
    cloudflare.set_cname("alias.example.org", "loopback.example.org");
    cloudflare.set_cname("aliases.example.org", "alias.example.org");
    cloudflare.set_addresses("nowhere.example.org", &[]);
}

/// All of them with `https` and this port: addresses, names of this machine, and names that lead inside.
pub fn inner_urls(port: u16) -> Vec<String> {
    let names = NAMES.map(|name| format!("http://{name}.{ZONE}:P/"));
    let spelled = LOOPBACK.iter().chain(&INSIDE).chain(&LOCAL).map(|url| (*url).to_owned());
    let all = spelled.chain(names);
    all.map(|url| url.replacen("http:", "https:", 1).replace(":P", &format!(":{port}"))).collect()
}

/// What a [`HostileCa`] names instead of its own URLs.
#[derive(Debug, Clone, Default)]
pub struct Lures {
    pub order: Option<String>,
    pub authorization: Option<String>,
    pub challenge: Option<String>,
    pub finalize: Option<String>,
    pub certificate: Option<String>,
    pub alternate: Option<String>,
    pub endpoints: Option<String>,
}

/// A CA that takes everything, and names whatever URLs it is told to.
pub struct HostileCa {
    pub address: SocketAddr,
    shared: Arc<Mutex<Lures>>,
    requests: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for HostileCa {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HostileCa {
    /// Listens at this address of this machine.
    pub async fn at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, requests) = (Arc::<Mutex<Lures>>::default(), Arc::<AtomicU32>::default());
        let (lures, count) = (shared.clone(), requests.clone());
        let acceptor = tls_for_loopback().acceptor(&[]);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, lures, count) = (acceptor.clone(), lures.clone(), count.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let seen = count.fetch_add(1, SeqCst);
                        let lures = lures.lock().unwrap().clone();
                        let reply = answer(&format!("https://{address}"), &lures, &request, seen);
                        async move { Ok::<_, Infallible>(reply) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { address, shared, requests, task }
    }

    pub fn directory_url(&self) -> String {
        format!("https://{}/directory", self.address)
    }

    /// From now on it names these.
    pub fn lure(&self, lures: Lures) {
        *self.shared.lock().unwrap() = lures;
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(SeqCst)
    }
}

/// Each answer names an authorization of its own: what was read once is not asked for again.
fn answer(
    base: &str,
    lures: &Lures,
    request: &Request<Incoming>,
    seen: u32,
) -> Response<Full<Bytes>> {
    let own = |path: &str| format!("{base}{path}");
    let or = |lure: &Option<String>, path: &str| lure.clone().unwrap_or_else(|| own(path));
    let order = |status: &str| {
        json!({
            "status": status, "identifiers": [{"type": "dns", "value": "app.example.org"}],
            "authorizations": [or(&lures.authorization, &format!("/authorization/{seen}"))],
            "finalize": or(&lures.finalize, "/finalize"),
            "certificate": or(&lures.certificate, "/certificate"),
        })
    };
    let (status, location, body) = match request.uri().path() {
        "/directory" => {
            let endpoint = |path: &str| match &lures.endpoints {
                Some(lure) => lure.clone(),
                None => own(path),
            };
            let named = json!({
                "newNonce": endpoint("/nonce"), "newAccount": endpoint("/account"),
                "newOrder": endpoint("/new-order"), "revokeCert": endpoint("/revoke"),
            });
            (200, None, named)
        }
        "/account" => (201, Some(own("/account/1")), json!({"status": "valid"})),
        "/new-order" => (201, Some(or(&lures.order, "/order")), order("pending")),
        "/order" | "/finalize" => (200, None, order("valid")),
        path if path.starts_with("/authorization/") => {
            let challenge = json!({"type": "http-01", "token": "token", "status": "pending",
                "url": or(&lures.challenge, "/challenge")});
            let named = json!({"type": "dns", "value": "app.example.org"});
            (
                200,
                None,
                json!({"status": "pending", "identifier": named, "challenges": [challenge]}),
            )
        }
        "/challenge" => (
            200,
            None,
            json!({"type": "http-01", "token": "token", "status": "processing", "url": own("/challenge")}),
        ),
        "/certificate" => {
            let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            (200, None, Value::from(pem))
        }
        _ => (200, None, json!({})),
    };
    let mut response = Response::builder()
        .status(status)
        .header("replay-nonce", "bm9uY2U")
        .header("content-type", "application/json");
    if let Some(location) = location.filter(|text| HeaderValue::from_str(text).is_ok()) {
        response = response.header("location", location);
    }
    if let Some(alternate) = &lures.alternate
        && let Ok(value) = HeaderValue::from_str(&format!("<{alternate}>;rel=\"alternate\""))
    {
        response = response.header("link", value);
    }
    let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    response.body(Full::new(body.into())).unwrap()
}
