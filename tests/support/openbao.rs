//! A real OpenBao in memory, unsealed, for one test: with the transit engine and the key `certwright`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::free_port;
use super::patience::PATIENCE;
use super::process::Server;

const ROOT: &str = "root-token-of-the-test";

pub struct OpenBao {
    pub address: String,
    folder: tempfile::TempDir,
    http: reqwest::Client,
    _server: Server,
}

impl OpenBao {
    pub async fn start() -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        for _ in 0..5 {
            if let Some(bao) = Self::try_start(&http).await {
                return bao;
            }
        }
        panic!("OpenBao does not start (run scripts/setup), or lost every race for a port");
    }

    async fn try_start(http: &reqwest::Client) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = free_port();
        let mut command = Command::new(root.join("target/tools/openbao/bao"));
        command.args(["server", "-dev", "-dev-no-store-token"]);
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        command.arg(format!("-dev-root-token-id={ROOT}"));
        let mut server = Server::start(tempfile::tempdir().unwrap(), "KILL", &command);
        let log = server.log_file();
        let is_up = server.until_ready(async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains("Development mode should NOT be used")
        });
        is_up.await.ok()?;
        let (address, http) = (format!("http://127.0.0.1:{port}"), http.clone());
        let folder = tempfile::tempdir().unwrap();
        let bao = Self { address, folder, http, _server: server };
        bao.ask("sys/mounts/transit", &json!({"type": "transit"})).await;
        bao.ask("transit/keys/certwright", &json!({})).await;
        Some(bao)
    }

    /// Asks as root.
    pub async fn ask(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}/v1/{path}", self.address)).json(body);
        let answer = request.header("x-vault-token", ROOT).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A token that may do no more than wrap and unwrap.
    pub async fn token(&self) -> String {
        let policy = ["encrypt", "decrypt", "rewrap"].map(|verb| {
            format!("path \"transit/{verb}/certwright\" {{ capabilities = [\"update\"] }}")
        });
        self.ask("sys/policies/acl/certwright", &json!({"policy": policy.join("\n")})).await;
        let made = self.ask("auth/token/create", &json!({"policies": ["certwright"]})).await;
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// An `AppRole` of the same: its identifier, and its secret one.
    pub async fn app_role(&self) -> (String, String) {
        self.token().await;
        self.ask("sys/auth/approle", &json!({"type": "approle"})).await;
        let role = "auth/approle/role/certwright";
        self.ask(role, &json!({"token_policies": ["certwright"], "token_ttl": "1m"})).await;
        let request = self.http.get(format!("{}/v1/{role}/role-id", self.address));
        let found: Value =
            request.header("x-vault-token", ROOT).send().await.unwrap().json().await.unwrap();
        let secret = self.ask(&format!("{role}/secret-id"), &json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&found["data"]["role_id"]), text(&secret["data"]["secret_id"]))
    }

    pub async fn seal(&self) {
        self.ask("sys/seal", &json!({})).await;
    }
}
