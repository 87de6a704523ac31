//! The transit secrets engine of Vault or OpenBao, over HTTP: it wraps the master key under a key that never leaves it.
//!
//! It is asked at the start alone, and by `certwright secrets rotate`. What may pass (no answer, 429, 5xx, which a sealed
//! server also gives) is tried again a few times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, Response, StatusCode, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

use crate::config::{Transit as Settings, TransitLogin as Login};
use crate::secret::Secret;

/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Before each further try.
pub const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Bytes of an answer; a wrapped key has some hundred.
const MOST_BYTES: usize = 64 * 1024;

/// Why the transit engine did not do what it was asked.
#[derive(Debug, Error)]
pub enum TransitError {
    #[error(
        "the transit engine at {address} does not answer ({tries} tries): the service needs it once at each start, to \
         unwrap its master key. Start it, unseal it, or see whether `transit.address` is right"
    )]
    Away {
        address: Url,
        tries: usize,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "the transit engine at {address} is not ready (status {status}, {tries} tries): {words}. It may be sealed or \
         starting: unseal it, and start the service again"
    )]
    NotReady { address: Url, status: StatusCode, tries: usize, words: String },
    #[error(
        "the transit engine at {address} refuses {what} (status {status}): {words}. See whether `transit.mount` and \
         `transit.key` exist, and whether the policy of the token or role lets it `update` {what}"
    )]
    Refused { address: Url, what: String, status: StatusCode, words: String },
    #[error(
        "the answer of the transit engine to {0} cannot be understood; is `transit.address` a Vault or OpenBao?"
    )]
    Strange(String),
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    #[error("no client for the transit engine can be made")]
    Client(#[source] reqwest::Error),
}

/// A transit engine and the key in it.
pub struct Transit {
    settings: Settings,
    http: reqwest::Client,
    pauses: Vec<Duration>,
}

/// What the engine says of a request that it refuses.
#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Transit {
    pub fn new(settings: Settings, pauses: &[Duration]) -> Result<Self, TransitError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none());
        if let Some(path) = &settings.ca_file {
            let pem = read(path)?;
            let bundle = Certificate::from_pem_bundle(pem.as_bytes());
            builder = builder.tls_certs_merge(bundle.map_err(TransitError::Client)?);
        }
        let http = builder.build().map_err(TransitError::Client)?;
        Ok(Self { settings, http, pauses: pauses.to_vec() })
    }

    /// Wraps a text under the engine's key.
    pub async fn wrap(&self, plain: &Secret<String>) -> Result<String, TransitError> {
        let plain = Zeroizing::new(STANDARD.encode(plain.expose()));
        self.ask_key("encrypt", &json!({"plaintext": *plain}), "ciphertext").await
    }

    /// Unwraps what it has wrapped.
    pub async fn unwrap(&self, wrapped: &str) -> Result<Secret<String>, TransitError> {
        let asked = json!({"ciphertext": wrapped});
        let plain = Zeroizing::new(self.ask_key("decrypt", &asked, "plaintext").await?);
        let strange = || TransitError::Strange("decrypt".to_owned());
        let bytes = STANDARD.decode(&*plain).map_err(|_| strange())?;
        String::from_utf8(bytes).map(Secret::new).map_err(|_| strange())
    }

    /// Wraps anew, under the latest version of the engine's key, what it has wrapped.
    pub async fn rewrap(&self, wrapped: &str) -> Result<String, TransitError> {
        self.ask_key("rewrap", &json!({"ciphertext": wrapped}), "ciphertext").await
    }

    async fn ask_key(&self, verb: &str, body: &Value, field: &str) -> Result<String, TransitError> {
        let token = self.token().await?;
        let path = format!("{}/{verb}/{}", self.settings.mount, self.settings.key);
        let answer = self.ask(&path, Some(&token), body).await?;
        let found = answer["data"][field].as_str();
        found.map(str::to_owned).ok_or(TransitError::Strange(path))
    }

    async fn token(&self) -> Result<Secret<String>, TransitError> {
        match &self.settings.login {
            Login::TokenFile(path) => Ok(Secret::new(read(path)?.trim().to_owned())),
            Login::AppRole { role_id, secret_id_file } => {
                let secret_id = read(secret_id_file)?;
                let body = json!({"role_id": role_id, "secret_id": secret_id.trim()});
                let path = "auth/approle/login";
                let answer = self.ask(path, None, &body).await?;
                let token = answer["auth"]["client_token"].as_str();
                let token = token.ok_or_else(|| TransitError::Strange(path.to_owned()))?;
                Ok(Secret::new(token.to_owned()))
            }
        }
    }

    /// One request, put again as long as what hinders it may pass.
    async fn ask(
        &self,
        path: &str,
        token: Option<&Secret<String>>,
        body: &Value,
    ) -> Result<Value, TransitError> {
        let mut pauses = self.pauses.iter();
        loop {
            let tries = self.pauses.len() + 1 - pauses.len();
            let error = match self.try_to_ask(path, token, body, tries).await {
                Err(error @ (TransitError::Away { .. } | TransitError::NotReady { .. })) => error,
                done => return done,
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            tracing::warn!(%error, "the transit engine is asked again");
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing else is at work before the start"
            )]
            tokio::time::sleep(*pause).await;
        }
    }

    async fn try_to_ask(
        &self,
        path: &str,
        token: Option<&Secret<String>>,
        body: &Value,
        tries: usize,
    ) -> Result<Value, TransitError> {
        let address = self.settings.address.clone();
        let url = format!("{}/v1/{path}", address.as_str().trim_end_matches('/'));
        let mut request = self.http.post(url).json(body);
        if let Some(token) = token {
            request = request.header("x-vault-token", token.expose());
        }
        let away = |source| TransitError::Away { address: address.clone(), tries, source };
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let text = Zeroizing::new(limited(answer).await.map_err(away)?);
        if status.is_success() {
            let found = serde_json::from_slice(&text);
            return found.map_err(|_| TransitError::Strange(path.to_owned()));
        }
        let words = serde_json::from_slice::<Errors>(&text).unwrap_or_default().errors.join("; ");
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(TransitError::NotReady { address, status, tries, words });
        }
        Err(TransitError::Refused { address, what: path.to_owned(), status, words })
    }
}

/// The body of an answer; what is longer than it may be is cut off, and cannot be read then.
async fn limited(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MOST_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn read(path: &Path) -> Result<Zeroizing<String>, TransitError> {
    let text = std::fs::read_to_string(path);
    text.map(Zeroizing::new).map_err(|error| TransitError::File(path.to_owned(), error))
}
