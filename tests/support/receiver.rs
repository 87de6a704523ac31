//! Somebody who is told: a real HTTP server on loopback that answers as it is told to, and keeps
//! what it got.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::patience::PATIENCE;

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With this status, header and body.
    With(u16, (&'static str, String), &'static str),
    /// Never.
    Hang,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: String,
}

pub struct Receiver {
    /// Stays open for as long as there is a receiver: nobody else gets its port.
    listener: std::net::TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    script: Mutex<VecDeque<Reply>>,
    usually: Mutex<Reply>,
    got: Mutex<Vec<Got>>,
    came: Notify,
}

impl Receiver {
    /// A receiver that takes everything with 204.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener.into_std().unwrap())
    }

    /// Dies with everything that it has under way, and comes back at the same address, as if new.
    pub async fn restart(self) -> Self {
        self.server.abort();
        while !self.server.is_finished() {
            tokio::task::yield_now().await;
        }
        Self::on(self.listener.try_clone().unwrap())
    }

    fn on(listener: std::net::TcpListener) -> Self {
        let accepting = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            usually: Mutex::new(Reply::Status(204)),
            got: Mutex::default(),
            came: Notify::new(),
        });
        let router = Router::new().fallback(take).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(accepting, router).await.unwrap() });
        Self { listener, address, shared, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers the next requests so, in this order.
    pub fn will_answer(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().unwrap().extend(replies);
    }

    /// Answers so whatever is not in the script.
    pub fn usually_answers(&self, reply: Reply) {
        *self.shared.usually.lock().unwrap() = reply;
    }

    pub fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// The types of what came, in order.
    pub fn types(&self) -> Vec<String> {
        self.got().iter().map(Got::kind).collect()
    }

    /// Until so many requests came.
    pub async fn until(&self, count: usize) -> Vec<Got> {
        let enough = async {
            loop {
                let came = self.shared.came.notified();
                let got = self.got();
                if got.len() >= count {
                    return got;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, enough)
            .await
            .unwrap_or_else(|_| panic!("{count} messages were expected: {:#?}", self.got()))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let scripted = shared.script.lock().unwrap().pop_front();
    let reply = scripted.unwrap_or_else(|| shared.usually.lock().unwrap().clone());
    shared.got.lock().unwrap().push(Got { headers, body });
    shared.came.notify_waiters();
    match reply {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::With(status, (name, value), body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
            response
        }
        Reply::Hang => std::future::pending().await,
    }
}
