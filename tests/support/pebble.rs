//! Pebble, Let's Encrypt's own test server, as a child process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::free_port;

/// How a Pebble differs from one that answers at once and rejects nothing.
#[derive(Debug, Clone, Default)]
pub struct PebbleOptions {
    /// Percentage of good nonces that it rejects.
    pub nonce_reject: u8,
    /// Percentage of valid authorizations that it reuses.
    pub authz_reuse: Option<u8>,
    /// Validate without looking.
    pub always_valid: bool,
    /// Where it asks for names.
    pub dns: Option<SocketAddr>,
    /// Where it looks for HTTP-01 proofs.
    pub http_port: Option<u16>,
}

/// A running Pebble; it ends when dropped, or when the test process does.
pub struct Pebble {
    child: Child,
    acme: u16,
    management: u16,
    tls_pem: String,
    folder: tempfile::TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Pebble {
    /// Starts one and waits until it answers.
    pub async fn start(options: PebbleOptions) -> Self {
        for _ in 0..5 {
            // Somebody else may have taken a port between the look and the start.
            if let Some(pebble) = Self::try_start(&options).await {
                return pebble;
            }
        }
        panic!("Pebble does not start");
    }

    async fn try_start(options: &PebbleOptions) -> Option<Self> {
        let binary =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/pebble/usr/bin/pebble");
        assert!(binary.exists(), "Pebble is not there; run scripts/setup");
        let folder = tempfile::tempdir().unwrap();
        let (acme, management) = (free_port(), free_port());
        let key = KeyPair::generate().unwrap();
        let tls =
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let tls_pem = tls.pem();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("cert.pem"), &tls_pem).unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        let profile = |description: &str, days: u32| json!({"description": description, "validityPeriod": days * 86_400});
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("cert.pem"), "privateKey": path("key.pem"),
            "httpPort": options.http_port.unwrap_or(80), "tlsPort": 443,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example.com"],
            "retryAfter": {"authz": 1, "order": 1},
            "profiles": {
                "default": profile("The profile you know and love", 90),
                "tlsserver": profile("For TLS servers", 45),
                "shortlived": profile("A short-lived certificate", 6),
            },
        }});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&binary).arg("-config").arg(path("config.json"));
        if let Some(dns) = options.dns {
            command.arg("-dnsserver").arg(dns.to_string());
        }
        command
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", options.nonce_reject.to_string())
            .env("PEBBLE_AUTHZREUSE", options.authz_reuse.unwrap_or(0).to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if options.always_valid {
            command.env("PEBBLE_VA_ALWAYS_VALID", "1");
        }
        let child = command.spawn().expect("setpriv, of util-linux, is there");
        let mut pebble = Self { child, acme, management, tls_pem, folder };
        pebble.answers().await.then_some(pebble)
    }

    async fn answers(&mut self) -> bool {
        let client =
            reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        for _ in 0..200 {
            let answer = client.get(self.directory_url()).header("user-agent", "test").send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                eprintln!("Pebble ended: {}", self.log());
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Pebble does not answer: {}", self.log());
    }

    pub fn directory_url(&self) -> String {
        format!("https://localhost:{}/dir", self.acme)
    }

    /// What to trust for its API, as an issuer's `caBundle`.
    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.tls_pem)
    }

    pub fn management_url(&self) -> String {
        format!("https://localhost:{}", self.management)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Orders that it ever made, as it says itself.
    pub fn orders_created(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Added order")).count()
    }

    /// Certificates that it ever issued, as it says itself.
    pub fn certificates_issued(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Issued certificate serial")).count()
    }
}
