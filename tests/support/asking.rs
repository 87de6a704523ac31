//! Requests of the API in a [`World`], and its answers.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Builder;
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use certwright::server::PeerCertificate;
use http_body_util::BodyExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::world::World;

/// A request on its way to being sent.
pub struct Ask<'a> {
    world: &'a World,
    path: String,
    request: Builder,
    body: Body,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Vec<u8>,
}

impl World {
    /// A request by the admin key; [`Ask::with_key`] changes that.
    pub fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        let request = Request::builder().method(method).uri(path).header("host", "certwright.test");
        let ask = Ask { world: self, path: path.to_owned(), request, body: Body::empty() };
        ask.with_key(&self.admin)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path).send().await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.ask(Method::DELETE, path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::POST, path).json(&body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::PUT, path).json(&body).send().await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.ask(Method::PATCH, path).json(&body).send().await
    }
}

impl Ask<'_> {
    pub fn with_key(mut self, key: &str) -> Self {
        if let Some(headers) = self.request.headers_mut() {
            headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        self
    }

    /// Over a connection with this client certificate, PEM, and with no key.
    pub fn with_certificate(self, pem: &str) -> Self {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let certificate = PeerCertificate::new(&der, CancellationToken::new());
        let ask = self.without_key();
        Self { request: ask.request.extension(certificate), ..ask }
    }

    /// From this address.
    pub fn from(mut self, address: &str) -> Self {
        let peer = SocketAddr::new(address.parse().unwrap(), 40_000);
        self.request = self.request.extension(ConnectInfo(peer));
        self
    }

    pub fn without_key(mut self) -> Self {
        if let Some(headers) = self.request.headers_mut() {
            headers.remove("authorization");
        }
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// A header in bytes that no client should send.
    pub fn odd_header(mut self, name: &str, value: &[u8]) -> Self {
        self.request = self.request.header(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.text(&body.to_string()).header("content-type", "application/json")
    }

    pub fn text(mut self, body: &str) -> Self {
        self.body = Body::from(body.to_owned());
        self
    }

    pub fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Body::from(body);
        self
    }

    pub async fn send(self) -> Reply {
        let request = self.request.body(self.body).unwrap();
        let response = self.world.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_no_words_of_rust(&text);
        let seen = format!("{:?} {text}", parts.headers);
        self.world.answers.lock().unwrap().push((self.path, seen));
        Reply { status: parts.status.as_u16(), headers: parts.headers, text, body: bytes.to_vec() }
    }
}

/// Words of the program's own language, which clients need not know.
const WORDS_OF_RUST: [&str; 18] = [
    "expected struct",
    "expected enum",
    "expected a sequence",
    "expected a map\"",
    "expected a boolean",
    "expected u",
    "expected i8",
    "expected i16",
    "expected i32",
    "expected i64",
    "expected f64",
    "expected unit",
    "invalid type:",
    "missing field `",
    "Failed to",
    "UUID parsing",
    "Option<",
    "panicked at",
];

/// Holds for every answer that any test is given; they are looked for in problems, which hold no client's texts
/// but names.
#[track_caller]
pub fn assert_no_words_of_rust(answer: &str) {
    if answer.contains("\"type\":\"/problems/") {
        let found = WORDS_OF_RUST.iter().find(|words| answer.contains(**words));
        assert_eq!(found, None, "say it in words of JSON or HTTP: {answer}");
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body of what was accepted, or is there at once.
    #[track_caller]
    pub fn accepted(&self) -> Value {
        assert!(matches!(self.status, 201 | 202), "{}: {}", self.status, self.text);
        self.json()
    }

    /// Checks that it is a problem document with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("/problems/{}", code.replace('_', "-")));
        assert_eq!(problem["instance"], self.header("x-request-id"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}
