//! What deploy/ recommends before the API of two replicas: nginx and Caddy, with the very files.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use reqwest::Certificate;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::client_ca::ClientCa;
use super::free_port;
use super::process::Server;

const NAME: &str = "certwright.example.com";

/// A proxy that ends TLS; it ends with this value.
pub struct ApiProxy {
    server: Server,
    address: SocketAddr,
    /// Where challenges are asked for, if it passes them on.
    pub http01: Option<SocketAddr>,
    ca: Certificate,
}

/// Where the two replicas listen, as `ADDRESS:PORT`.
pub struct Replicas {
    pub api: [String; 2],
    pub http01: [String; 2],
}

impl ApiProxy {
    pub async fn nginx(replicas: &Replicas) -> Self {
        let config = |dir: &Path, [address, _]: [SocketAddr; 2]| {
            let api = replaced(
                "nginx-api.conf",
                &[
                    ("127.0.0.1:8080", &replicas.api[0]),
                    ("127.0.0.1:8081", &replicas.api[1]),
                    ("listen 443 ssl", &format!("listen {address} ssl")),
                    ("/etc/certwright/tls", &dir.display().to_string()),
                ],
            );
            super::nginx::around(dir, &api)
        };
        let command = |dir: &Path, config: &Path| {
            let mut command = Command::new(super::nginx::binary());
            command.arg("-p").arg(dir).arg("-e").arg("stderr").arg("-c").arg(config);
            command
        };
        Self { http01: None, ..Self::start(config, command).await }
    }

    pub async fn caddy(replicas: &Replicas) -> Self {
        let config = |dir: &Path, [address, http01]: [SocketAddr; 2]| {
            let bound = |scheme: &str, address: SocketAddr| {
                format!("{scheme}:{} {{\n\tbind {}", address.port(), address.ip())
            };
            replaced(
                "Caddyfile",
                &[
                    ("127.0.0.1:8080", &replicas.api[0]),
                    ("127.0.0.1:8081", &replicas.api[1]),
                    ("127.0.0.1:8402", &replicas.http01[0]),
                    ("127.0.0.1:8403", &replicas.http01[1]),
                    (
                        "https://certwright.example.com {",
                        &bound("https://certwright.example.com", address),
                    ),
                    ("http:// {", &bound("http://", http01)),
                    ("/etc/certwright/tls", &dir.display().to_string()),
                ],
            )
        };
        let command = |dir: &Path, config: &Path| {
            let caddy =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/caddy/usr/bin/caddy");
            let mut command = Command::new(caddy);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
            command.env("HOME", dir);
            command
        };
        Self::start(config, command).await
    }

    async fn start(
        config: impl Fn(&Path, [SocketAddr; 2]) -> String,
        command: impl Fn(&Path, &Path) -> Command,
    ) -> Self {
        for _ in 0..5 {
            let dir = TempDir::with_prefix("certwright-proxy-").unwrap();
            let ca = ClientCa::named("a CA for proxies");
            let identity = ca.sign_with("urn:proxy", |params| {
                params.subject_alt_names = vec![SanType::DnsName(NAME.try_into().unwrap())];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            });
            fs::write(dir.path().join("fullchain.pem"), &identity.certificate).unwrap();
            fs::write(dir.path().join("privkey.pem"), &identity.key).unwrap();
            let here = || SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
            let addresses @ [address, http01] = [here(), here()];
            let file = dir.path().join("config");
            fs::write(&file, config(dir.path(), addresses)).unwrap();
            let command = command(dir.path(), &file);
            let server = Server::start(dir, "TERM", &command);
            let ca = Certificate::from_pem(ca.pem().as_bytes()).unwrap();
            let mut proxy = Self { server, address, http01: Some(http01), ca };
            let is_ready = async || TcpStream::connect(address).await.is_ok();
            match proxy.server.until_ready(is_ready).await {
                Ok(()) => return proxy,
                Err(error) if error.contains("already in use") => {}
                Err(error) => panic!("the proxy {error}"),
            }
        }
        panic!("the proxy lost every race for a port");
    }

    /// A client that knows the name, and whom to trust.
    pub fn client(&self) -> reqwest::Client {
        let builder = reqwest::Client::builder().no_proxy().resolve(NAME, self.address);
        builder.add_root_certificate(self.ca.clone()).build().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.address.port())
    }
}

/// A file of deploy/, with what is different here. Everything that is replaced has to be there.
fn replaced(name: &str, changes: &[(&str, &str)]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let text = fs::read_to_string(file).unwrap();
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "deploy/{name} has {from}");
        text.replace(from, to)
    })
}
