//! The API over TLS: what is shown to clients, and from when on.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use certwright::config::{CertificateSource, Https};
use certwright::pki;
use certwright::server::{Identity, Limits, Server, Tls, TlsError};
use certwright::server_certificate::ServerCertificate;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::support::patience::within;
use crate::support::world::{World, sqlite};

const NEVER: Duration = Duration::from_hours(24);
const PATIENT: Limits = Limits { connections: 100, head: NEVER, idle: NEVER, untaken: NEVER };

/// Enough of a `ClientHello` to be taken for one.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// A self-signed certificate and its key, PEM.
struct Pair {
    chain: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let (chain, key) = pki::self_signed(&["localhost".to_owned()]).unwrap();
        Self { chain, key: key.expose().clone() }
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    fn write_to(&self, folder: &Path) {
        fs::write(folder.join("chain.pem"), &self.chain).unwrap();
        fs::write(folder.join("key.pem"), &self.key).unwrap();
    }
}

async fn serve(tls: Tls, limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let router = Router::new().route("/", get(async || "over TLS"));
    let server = Server::new("test", listener, router, limits).over(tls);
    let address = server.address().unwrap();
    tokio::spawn(server.run(CancellationToken::new()));
    address
}

/// A connection of a client that trusts this certificate and speaks these versions.
async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// The end of the answer to a request.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let (mut answer, mut buffer) = (String::new(), [0; 1024]);
    while !answer.contains("over TLS") {
        let read = within("the answer", stream.read(&mut buffer)).await.unwrap();
        assert_ne!(read, 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    answer
}

/// The certificate that a client is shown.
async fn shown(address: SocketAddr) -> Vec<u8> {
    let address = address.to_string();
    let chain = within("the chain", certwright::client::peer_chain(&address, "localhost")).await;
    chain.unwrap().remove(0)
}

#[tokio::test]
async fn clients_may_speak_tls_1_2_or_1_3_and_http_1_or_2() {
    let pair = Pair::new();
    let address = serve(Tls::new(pair.identity()).unwrap(), PATIENT).await;
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        for protocol in ["h2", "http/1.1"] {
            let mut stream = connect(address, &pair.der(), &[version], protocol).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(expected));
            assert_eq!(session.alpn_protocol(), Some(protocol.as_bytes()));
            if protocol == "http/1.1" {
                assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
            }
        }
    }
    let other = Pair::new();
    assert!(connect(address, &other.der(), &[&TLS13], "h2").await.is_err(), "it is verified");
}

#[tokio::test]
async fn half_a_handshake_is_closed_in_time() {
    let limits = Limits { head: Duration::from_millis(100), ..PATIENT };
    let address = serve(Tls::new(Pair::new().identity()).unwrap(), limits).await;
    for words in [b"".as_slice(), b"G", HALF_A_HELLO] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words).await.unwrap();
        let mut rest = Vec::new();
        within("the close", stream.read_to_end(&mut rest)).await.ok();
    }
}

#[tokio::test]
async fn a_full_listener_closes_the_handshake_that_has_kept_it_waiting() {
    let pair = Pair::new();
    let limits = Limits { connections: 1, ..PATIENT };
    let address = serve(Tls::new(pair.identity()).unwrap(), limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(HALF_A_HELLO).await.unwrap();

    let mut stream = connect(address, &pair.der(), &[&TLS13], "http/1.1").await.unwrap();

    ask(&mut stream).await;
    let mut rest = Vec::new();
    within("the close", silent.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_connections_stay() {
    let (former, next) = (Pair::new(), Pair::new());
    let tls = Tls::new(former.identity()).unwrap();
    let address = serve(tls.clone(), PATIENT).await;
    let mut stream = connect(address, &former.der(), &[&TLS13], "http/1.1").await.unwrap();

    tls.show(next.identity());

    ask(&mut stream).await;
    assert_eq!(shown(address).await, next.der().to_vec());
}

#[test]
fn what_cannot_be_shown_is_named() {
    let (pair, other) = (Pair::new(), Pair::new());
    let why =
        |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    assert!(matches!(why("", &pair.key), TlsError::NoCertificate));
    assert!(matches!(why(&pair.chain, ""), TlsError::Key));
    assert!(matches!(why(&pair.chain, &pair.chain), TlsError::Key));
    assert!(matches!(why(&pair.chain, &other.key), TlsError::Mismatch));
    let broken = pair.chain.replace("-----END", "----END");
    assert!(matches!(why(&broken, &pair.key), TlsError::Chain | TlsError::NoCertificate));
}

#[tokio::test]
async fn files_are_shown_as_soon_as_both_have_changed() {
    let folder = TempDir::new().unwrap();
    let (former, next) = (Pair::new(), Pair::new());
    former.write_to(folder.path());
    let [chain, key] = ["chain.pem", "key.pem"].map(|file| folder.path().join(file));
    let listen = "127.0.0.1:0".parse().unwrap();
    let certificate = CertificateSource::Files { chain, key };
    let https = Https { listen, certificate, client_auth: None };
    let (_folder, url) = sqlite();
    let world = World::on(&url).await;
    let open = ServerCertificate::open(&https, &world.db, &world.sealer);
    let mut certificate = open.await.unwrap();
    let address = serve(certificate.tls(), PATIENT).await;

    fs::write(folder.path().join("chain.pem"), &next.chain).unwrap();
    certificate.refresh().await;
    assert_eq!(shown(address).await, former.der().to_vec(), "its key is still the former one's");
    fs::remove_file(folder.path().join("key.pem")).unwrap();
    certificate.refresh().await;
    assert_eq!(shown(address).await, former.der().to_vec(), "there is no key");
    next.write_to(folder.path());
    certificate.refresh().await;
    assert_eq!(shown(address).await, next.der().to_vec());
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_and_are_named() {
    let folder = TempDir::new().unwrap();
    let (pair, other) = (Pair::new(), Pair::new());
    pair.write_to(folder.path());
    let [chain, key] = ["chain.pem", "key.pem"].map(|file| folder.path().join(file));
    let (_folder, url) = sqlite();
    let world = World::on(&url).await;
    let refused = async |expected: &str| {
        let listen = "127.0.0.1:0".parse().unwrap();
        let certificate = CertificateSource::Files { chain: chain.clone(), key: key.clone() };
        let https = Https { listen, certificate, client_auth: None };
        let opened = ServerCertificate::open(&https, &world.db, &world.sealer).await;
        let refused = format!("{:#}", opened.err().expect(expected));
        assert!(refused.contains(expected), "{refused}");
    };
    fs::write(&key, &other.key).unwrap();
    refused("chain.pem: certificate and private key do not belong together").await;
    fs::remove_file(&key).unwrap();
    refused("key.pem cannot be read").await;
}
