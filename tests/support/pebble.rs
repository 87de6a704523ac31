//! Pebble, Let's Encrypt's own test server, as a CA of one's own for one test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use certwright::worker::NewOrders;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
#[cfg(feature = "failpoints")]
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::free_port;
use super::patience::PATIENCE;
use super::process::Server;

/// New orders of an account that it bears at once: where more overlap, it locks up now and then (2.10).
pub const BEARS: NewOrders = NewOrders { start: 1, ceiling: 2 };

/// [`BEARS`] as settings of a service.
pub fn bearable() -> [(&'static str, String); 2] {
    [
        ("worker.new_orders_start", BEARS.start.to_string()),
        ("worker.new_orders_ceiling", BEARS.ceiling.to_string()),
    ]
}

/// How this CA behaves. The default is one that does nothing by chance: no nonce is rejected, no authorization is
/// reused (but for the one in a hundred that Pebble always does), and validations do not dawdle.
#[derive(Clone, Debug, Default)]
pub struct PebbleOptions {
    /// Percentage of good nonces that are rejected as bad.
    pub nonce_reject: u8,
    /// Percentage of new orders that get an authorization that is already valid.
    pub authz_reuse: Option<u8>,
    /// Every challenge succeeds, without a look.
    pub always_valid: bool,
    /// Each validation takes up to five seconds.
    pub sleep: bool,
    /// Where the CA looks names up (TCP as well as UDP); the system's resolver otherwise.
    pub dns: Option<SocketAddr>,
    /// Where the CA connects to for HTTP-01.
    pub http_port: Option<u16>,
    /// Validity in seconds under the default profile, instead of 90 days.
    pub validity: Option<u64>,
    /// Key id and base64url MAC key of each external account; if there is one, accounts have to be bound.
    pub external_accounts: Vec<(String, String)>,
    /// Names that are refused as `rejectedIdentifier`.
    pub blocked_domains: Vec<String>,
    /// What it calls itself in CAA records instead of `pebble.letsencrypt.org`; it looks at none.
    pub caa_identities: Vec<String>,
    /// Alternate chains offered beside the default one.
    pub alternate_roots: u8,
    /// Seconds after which it wants to be asked again about what it is busy with, its `Retry-After`; no such header
    /// at 0.
    pub retry_after: u8,
}

impl PebbleOptions {
    fn config(&self, dir: &Path, port: u16, management_port: u16) -> Value {
        let day = 86_400;
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": dir.join("cert.pem"),
            "privateKey": dir.join("key.pem"),
            "httpPort": self.http_port.unwrap_or_else(free_port),
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !self.external_accounts.is_empty(),
            "domainBlocklist": self.blocked_domains,
            "retryAfter": {"authz": self.retry_after, "order": self.retry_after},
            "keyAlgorithm": "ecdsa",
            "profiles": {
                "default": {"description": "What you get without asking", "validityPeriod": self.validity.unwrap_or(90 * day)},
                "tlsserver": {"description": "Nothing but what a TLS server needs", "validityPeriod": 45 * day},
                "shortlived": {"description": "Six days", "validityPeriod": 160 * 3600},
            },
        });
        if !self.caa_identities.is_empty() {
            config["caaIdentities"] = json!(self.caa_identities);
        }
        if !self.external_accounts.is_empty() {
            config["externalAccountMACKeys"] = self.external_accounts.iter().cloned().collect();
        }
        json!({ "pebble": config })
    }

    fn command(&self, dir: &Path) -> Command {
        let binary =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/pebble/usr/bin/pebble");
        assert!(binary.exists(), "Pebble is missing at {}: run scripts/setup", binary.display());

        let mut command = Command::new(binary);
        command.arg("-strict").arg("-config").arg(dir.join("config.json"));
        if let Some(dns) = self.dns {
            command.arg("-dnsserver").arg(dns.to_string());
        }
        command.env("PEBBLE_WFE_NONCEREJECT", self.nonce_reject.to_string());
        command.env("PEBBLE_AUTHZREUSE", self.authz_reuse.unwrap_or(0).to_string());
        command.env("PEBBLE_ALTERNATE_ROOTS", self.alternate_roots.to_string());
        // Pebble 2.10 locks itself up for good when new orders come in on several processors at the same
        // time. On one, only a goroutine that is interrupted could meet another within the same lock.
        command.env("GOMAXPROCS", "1").env("GODEBUG", "asyncpreemptoff=1");
        command.env("PEBBLE_VA_ALWAYS_VALID", u8::from(self.always_valid).to_string());
        command.env("PEBBLE_VA_NOSLEEP", u8::from(!self.sleep).to_string());
        command
    }
}

/// A running Pebble; it ends with this value.
pub struct Pebble {
    server: Server,
    port: u16,
    management_port: u16,
    ca_pem: String,
    client: reqwest::Client,
}

impl Pebble {
    /// Starts one and waits until its directory answers.
    pub async fn start(options: PebbleOptions) -> Self {
        for _ in 0..5 {
            match Self::try_start(&options).await {
                Ok(pebble) => return pebble,
                Err(error) if error.contains("address already in use") => {}
                Err(error) => panic!("Pebble {error}"),
            }
        }
        panic!("Pebble lost every race for a port");
    }

    async fn try_start(options: &PebbleOptions) -> Result<Self, String> {
        let (port, management_port) = (free_port(), free_port());
        let dir = TempDir::with_prefix("certwright-pebble-").unwrap();
        let Tls { certificate, key, ca: ca_pem } = tls_for_loopback();
        fs::write(dir.path().join("cert.pem"), certificate).unwrap();
        fs::write(dir.path().join("key.pem"), key).unwrap();
        fs::write(
            dir.path().join("config.json"),
            options.config(dir.path(), port, management_port).to_string(),
        )
        .unwrap();

        let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).user_agent("certwright-tests");
        let client = client.timeout(PATIENCE).no_proxy().build().unwrap();
        let command = options.command(dir.path());
        let mut pebble = Self {
            server: Server::start(dir, "KILL", &command),
            port,
            management_port,
            ca_pem,
            client,
        };

        let (client, urls) = (
            pebble.client.clone(),
            [pebble.directory_url(), format!("{}/roots/0", pebble.management_url())],
        );
        let answers = async || {
            for url in &urls {
                if !client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return false;
                }
            }
            true
        };
        pebble.server.until_ready(answers).await?;
        Ok(pebble)
    }

    pub fn directory_url(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    pub fn management_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.management_port)
    }

    /// What signed the certificate of Pebble's own HTTPS, as PEM; not the root of what it issues.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The same in the form of an issuer's `caBundle`.
    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(&self.ca_pem)
    }

    /// A client that trusts Pebble's own HTTPS.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The root that issued certificates chain up to; another one after each start.
    pub async fn root_pem(&self) -> String {
        let answer =
            self.client.get(format!("{}/roots/0", self.management_url())).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// Another root that alternate chains lead to, by its place from 1.
    pub async fn alternate_root_pem(&self, place: u8) -> String {
        let url = format!("{}/roots/{place}", self.management_url());
        let answer = self.client.get(url).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// What the CA says of a certificate: `Valid` or `Revoked`, and why.
    pub async fn status_of(&self, serial: &str) -> Value {
        let url = format!("{}/cert-status-by-serial/{serial}", self.management_url());
        let answer = self.client.get(url).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    /// Has the CA answer questions for a certificate's renewal with this text.
    pub async fn set_renewal_info(&self, certificate: &str, answer: &str) {
        let url = format!("{}/set-renewal-info/", self.management_url());
        let body = json!({"Certificate": certificate, "ARIResponse": answer});
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        answer.error_for_status().unwrap();
    }

    /// It answers nothing any more, until [`Self::go_on`].
    #[cfg(feature = "failpoints")]
    pub fn pause(&self) {
        self.server.send(Signal::STOP);
    }

    #[cfg(feature = "failpoints")]
    pub fn go_on(&self) {
        self.server.send(Signal::CONT);
    }

    pub fn log(&self) -> String {
        self.server.log()
    }

    /// How many orders this CA has seen, by its own count.
    pub fn orders_created(&self) -> usize {
        self.lines_with(" orders in the db")
    }

    /// How many certificates this CA has issued, by its own count.
    pub fn certificates_issued(&self) -> usize {
        self.lines_with("Issued certificate serial ")
    }

    /// How many accounts this CA has made, by its own count.
    #[cfg(feature = "failpoints")]
    pub fn accounts_created(&self) -> usize {
        self.lines_with(" accounts in memory")
    }

    fn lines_with(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }
}

/// A certificate for the loopback address, its key, and the CA that signed it, each as PEM.
pub struct Tls {
    pub certificate: String,
    pub key: String,
    pub ca: String,
}

impl Tls {
    /// Accepts TLS connections with the certificate, and these protocols of ALPN.
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

pub fn tls_for_loopback() -> Tls {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of another name than what it signs, which OpenSSL would take for self-signed otherwise.
    ca.distinguished_name.push(DnType::CommonName, "A CA for tests");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();

    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    Tls { certificate: certificate.pem(), key: key.serialize_pem(), ca: ca.pem() }
}
