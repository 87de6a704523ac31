//! A real OpenID Provider, npm's `oidc-provider`, for one test.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::patience::PATIENCE;
use super::process::Server;

/// What a service is called by those who want tokens for it.
pub const AUDIENCE: &str = "urn:certwright";

pub struct OpenIdProvider {
    issuer: String,
    http: reqwest::Client,
    _server: Server,
}

impl OpenIdProvider {
    pub async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command.arg(root.join("tests/oidc/provider.mjs"));
        command.arg(root.join("target/tools/openid-provider"));
        let mut server = Server::start(tempfile::tempdir().unwrap(), "KILL", &command);
        let (log, address) = (server.log_file(), std::sync::Mutex::new(None));
        let listens = server.until_ready(async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
            *address.lock().unwrap() = line.map(str::to_owned);
            line.is_some()
        });
        listens.await.expect("the provider starts (run scripts/setup)");
        let issuer = address.into_inner().unwrap().unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { issuer, http, _server: server }
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// An access token of the subject `ci` for us, with these claims.
    pub async fn token(&self, claims: &Value) -> String {
        self.token_for(AUDIENCE, "RS256", claims).await
    }

    pub async fn token_for(&self, audience: &str, algorithm: &str, claims: &Value) -> String {
        let claims = claims.to_string();
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("grant_type", "client_credentials"),
                ("resource", audience),
                ("test_alg", algorithm),
                ("test_claims", &claims),
            ])
            .finish();
        let request = self.http.post(format!("{}/token", self.issuer));
        let request = request.basic_auth("ci", Some("secret")).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Has it sign with new keys from now on; the former ones are withdrawn.
    pub async fn rotate(&self) {
        self.tell("rotate").await;
    }

    /// Has it answer 503 when it is asked for its keys.
    pub async fn go_away(&self) {
        self.tell("away").await;
    }

    pub async fn come_back(&self) {
        self.tell("back").await;
    }

    /// Has `alice` confirm the codes that are waiting for her; how many there were.
    pub async fn approve(&self) -> Value {
        self.tell("approve").await
    }

    /// How often it was asked for its keys.
    pub async fn asked(&self) -> Value {
        self.tell("asked").await
    }

    async fn tell(&self, what: &str) -> Value {
        let answer = self.http.get(format!("{}/test/{what}", self.issuer)).send().await.unwrap();
        let text = answer.error_for_status().unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(json!(null))
    }
}
