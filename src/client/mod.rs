//! A client of this service's HTTP API.
//!
//! Resources stay JSON, so that fields of a newer server are shown, not lost. Errors are typed, so
//! that the command line can explain them and exit with the right status.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::secret::Secret;

mod alert;
mod device_login;
mod peer;
mod problem;
mod stream;

use alert::alert_in;

pub use device_login::{DeviceLogin, Login, LoginError, LoginIssuer};
pub use peer::peer_chain;
pub use problem::{FieldFault, Problem};
pub use stream::Stream;

/// Longer than the server holds any answer.
const LONGEST: Duration = Duration::from_secs(330);

/// The most that one page may hold.
const PAGE: &str = "500";

/// A way to one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    bearer: Option<Secret<String>>,
    has_certificate: bool,
}

/// Who asks.
#[derive(Clone, Default)]
pub struct Credentials {
    /// An API key or a token.
    pub bearer: Option<Secret<String>>,
    /// A client certificate with its chain and its private key, PEM.
    pub certificate: Option<Secret<Vec<u8>>>,
}

/// Why the server did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// What was given as the server's address is none.
    #[error("`{0}` is no address of a server; write it as http://127.0.0.1:8080")]
    Address(String),
    /// A client certificate is of no use at this address.
    #[error(
        "a client certificate is shown over TLS only, and `{0}` is without: use the server's `https.listen`"
    )]
    CertificateWithoutTls(String),
    /// What was given as client certificate and key is none.
    #[error(
        "client certificate or key cannot be used: expected PEM, the certificate first, and an unencrypted private key"
    )]
    Certificate,
    /// The handshake ended with an alert about the client certificate.
    #[error(
        "{server} refuses the client certificate ({alert}): has it expired, is it meant for clients, and did a CA of \
         the server's `https.client_ca_file` sign it?"
    )]
    CertificateRefused {
        /// Where it was shown.
        server: String,
        /// The name of the alert (RFC 8446, section 6).
        alert: String,
    },
    /// Nobody answered.
    #[error(
        "there is no answer from {server}: {cause}. Is the service running, and is that its address \
         (--server, CERTWRIGHT_SERVER)?"
    )]
    Unreachable {
        /// Where it was asked.
        server: String,
        /// The kind of a problem.
        cause: String,
    },
    /// It answered with a problem document.
    #[error("{0}")]
    Refused(Problem),
    /// It answered with something that this program does not understand.
    #[error(
        "{server} answered with status {status} and nothing that can be read; is it certwright?"
    )]
    Strange {
        /// Where it was asked.
        server: String,
        /// The HTTP status.
        status: u16,
    },
}

impl ClientError {
    /// Whether the server does not answer, or cannot just now: it may come back.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
            || self.status().is_some_and(|status| (502..=504).contains(&status))
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Strange { status, .. } => Some(*status),
            Self::Address(_)
            | Self::CertificateWithoutTls(_)
            | Self::Certificate
            | Self::CertificateRefused { .. }
            | Self::Unreachable { .. } => None,
        }
    }
}

/// What is sent with a request.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Nothing.
    None,
    /// JSON.
    Json(&'a Value),
    /// Manifests.
    Yaml(&'a str),
}

/// A request of the API.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// GET, POST, ….
    pub method: &'a Method,
    /// Such as `/certificates`.
    pub path: &'a str,
    /// Names and values of the query.
    pub query: &'a [(&'a str, &'a str)],
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// What is sent.
    pub body: Body<'a>,
}

impl<'a> Ask<'a> {
    /// A GET of this path.
    pub fn get(path: &'a str) -> Self {
        Self { method: &Method::GET, path, query: &[], headers: &[], body: Body::None }
    }

    /// A POST to this path.
    pub fn post(path: &'a str, body: Body<'a>) -> Self {
        Self { method: &Method::POST, path, query: &[], headers: &[], body }
    }
}

impl Client {
    /// A client of this server, with these credentials.
    pub fn new(server: &str, credentials: Credentials) -> Result<Self, ClientError> {
        Self::by(builder(), server, credentials)
    }

    /// A client of a server on this machine, which is reached by no proxy.
    pub fn of_this_machine(server: &str) -> Result<Self, ClientError> {
        Self::by(builder().no_proxy(), server, Credentials::default())
    }

    fn by(
        mut builder: reqwest::ClientBuilder,
        server: &str,
        credentials: Credentials,
    ) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(server.to_owned());
        let url = Url::parse(server).map_err(|_| wrong())?;
        if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
            return Err(wrong());
        }
        if let Some(pem) = &credentials.certificate {
            if url.scheme() != "https" {
                return Err(ClientError::CertificateWithoutTls(server.to_owned()));
            }
            let identity = reqwest::Identity::from_pem(pem.expose());
            builder = builder.identity(identity.map_err(|_| ClientError::Certificate)?);
        }
        let http = builder
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(LONGEST)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Unreachable {
                server: server.to_owned(),
                cause: chain(&error),
            })?;
        let has_certificate = credentials.certificate.is_some();
        Ok(Self { http, server: url, bearer: credentials.bearer, has_certificate })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// Reads one resource.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.json(Ask { query, ..Ask::get(path) }).await
    }

    /// Reads all pages of a list.
    pub async fn list(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", PAGE));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Sends JSON, and reads the answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Ask::post(path, Body::Json(body))).await
    }

    /// Replaces a resource.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Ask { method: &Method::PUT, ..Ask::post(path, Body::Json(body)) }).await
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Ask { method: &Method::DELETE, ..Ask::get(path) }).await?;
        Ok(())
    }

    /// Sends a request, and reads JSON; `null` where nothing came back.
    pub async fn json(&self, ask: Ask<'_>) -> Result<Value, ClientError> {
        let response = self.send(ask).await?;
        let status = response.status().as_u16();
        let bytes = self.bytes_of(response).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let server = self.server().to_owned();
        serde_json::from_slice(&bytes).map_err(|_| ClientError::Strange { server, status })
    }

    /// Downloads a file that is not JSON.
    pub async fn bytes(&self, ask: Ask<'_>) -> Result<Vec<u8>, ClientError> {
        let response = self.send(ask).await?;
        self.bytes_of(response).await
    }

    /// Sends a request; an answer that is no success becomes an error.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Response, ClientError> {
        let mut url = self.server.clone();
        url.set_path(&format!("{}{}", self.server.path().trim_end_matches('/'), ask.path));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        for (name, value) in ask.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(*name), HeaderValue::try_from(*value))
            {
                headers.insert(name, value);
            }
        }
        let mut request =
            self.http.request(ask.method.clone(), url).query(ask.query).headers(headers);
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer.expose());
        }
        request = match ask.body {
            Body::None => request,
            Body::Json(value) => request.json(value),
            Body::Yaml(text) => {
                request.header(CONTENT_TYPE, "application/yaml").body(text.to_owned())
            }
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.bytes_of(response).await?;
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => {
                ClientError::Strange { server: self.server().to_owned(), status: status.as_u16() }
            }
        })
    }

    /// Opens a stream of events: those after `last_id`, else those that happen from now on.
    pub async fn events(
        &self,
        query: &[(&str, &str)],
        last_id: Option<&str>,
    ) -> Result<Stream, ClientError> {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_id.map(|id| ("last-event-id", id)));
        self.send(Ask { query, headers: &headers, ..Ask::get("/events") }).await.map(Stream::new)
    }

    async fn bytes_of(&self, response: Response) -> Result<Vec<u8>, ClientError> {
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(bytes.to_vec())
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let server = self.server().to_owned();
        let cause = if error.is_timeout() { "it took too long".to_owned() } else { chain(error) };
        match alert_in(&cause).filter(|_| self.has_certificate) {
            Some(alert) => ClientError::CertificateRefused { server, alert: alert.to_owned() },
            None => ClientError::Unreachable { server, cause },
        }
    }
}

/// The `Date` of whatever answers at a URL outside, for comparing clocks; and whether it answers.
pub async fn date_of(url: &str, trusted: Option<&[u8]>) -> Result<Option<String>, String> {
    let mut builder = builder().timeout(Duration::from_secs(10));
    if let Some(pem) = trusted {
        let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| chain(&error))?;
        builder = builder.tls_certs_only(roots);
    }
    let http = builder.build().map_err(|error| chain(&error))?;
    let response = http.get(url).send().await.map_err(|error| chain(&error))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    Ok(date.map(str::to_owned))
}

/// Why Cloudflare did not say what was asked.
#[derive(Debug, Error)]
pub enum CloudflareError {
    /// No answer came, so that nothing is known about the token.
    #[error("{0}")]
    Silent(String),
    #[error("Cloudflare says {code}: {message}")]
    Refused { code: String, message: String },
}

/// What Cloudflare says of an API token: its answer to one path of its API.
pub async fn cloudflare(
    base: &str,
    path: &str,
    token: &Secret<String>,
) -> Result<Value, CloudflareError> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let ask = async || {
        let http = builder().timeout(Duration::from_secs(15)).build()?;
        http.get(&url).bearer_auth(token.expose().trim()).send().await?.bytes().await
    };
    let bytes =
        ask().await.map_err(|error: reqwest::Error| CloudflareError::Silent(chain(&error)))?;
    let Ok(answer) = serde_json::from_slice::<Value>(&bytes) else {
        let problem = "what came is no answer of its API";
        return Err(CloudflareError::Silent(problem.to_owned()));
    };
    if answer.get("success") == Some(&Value::Bool(true)) {
        return Ok(answer.get("result").cloned().unwrap_or_default());
    }
    let error = answer.pointer("/errors/0").cloned().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or("?").to_owned();
    Err(CloudflareError::Refused { code: error["code"].to_string(), message })
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let more = error.to_string();
        // Some errors repeat their source.
        if !text.contains(&more) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}
