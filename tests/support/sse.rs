//! A server on a real socket, and a client that reads its stream of events.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::patience::within;
use super::world::World;

/// The world's API on a loopback port; it ends when dropped.
pub struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An open stream.
pub struct Stream {
    response: reqwest::Response,
    buffer: String,
}

/// What stands between two empty lines.
#[derive(Debug, Default, PartialEq)]
pub struct Frame {
    pub id: String,
    /// What the event is about, as a browser listens for it.
    pub name: String,
    /// Absent from a heartbeat.
    pub event: Option<Value>,
}

impl Served {
    pub async fn of(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, shutdown) = (world.router.clone(), world.shutdown.clone());
        let stopped = shutdown.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { address, shutdown, task }
    }

    /// Stops as the service does: every request is answered first.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        within("the stop", &mut self.task).await.unwrap();
    }

    /// Opens a stream, and takes its first frame: where it begins.
    pub async fn follow(&self, key: &str, query: &str, last_seen: Option<&str>) -> (Stream, Frame) {
        let mut request = reqwest::Client::new()
            .get(format!("http://{}/events{query}", self.address))
            .header("accept", "text/event-stream");
        // A browser sends none.
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        if let Some(id) = last_seen {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Stream { response, buffer: String::new() };
        let first = stream.next().await.unwrap();
        assert_eq!(first.event, None, "a stream says first where it begins");
        (stream, first)
    }
}

impl Stream {
    /// The next frame; none when the stream has come to its end.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame, or the end", self.read()).await
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let (frame, rest) = (parse(frame), rest.to_owned());
                self.buffer = rest;
                return Some(frame);
            }
            let chunk = self.response.chunk().await.expect("a clean end")?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event, past heartbeats.
    pub async fn event(&mut self) -> (String, Value) {
        let event = async {
            loop {
                let frame = self.read().await.expect("the stream goes on");
                if let Some(event) = frame.event {
                    let collection =
                        event["resource"].as_str().unwrap_or_default().split('/').nth(1);
                    assert_eq!(Some(&*frame.name), collection, "{event}");
                    return (frame.id, event);
                }
            }
        };
        within("an event", event).await
    }

    /// The next events' messages.
    pub async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        for _ in 0..count {
            let (_, event) = self.event().await;
            messages.push(event["message"].as_str().unwrap().to_owned());
        }
        messages
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame::default();
    for line in text.lines() {
        match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
            Some(("id", id)) => id.clone_into(&mut frame.id),
            Some(("event", name)) => name.clone_into(&mut frame.name),
            Some(("data", data)) => frame.event = Some(serde_json::from_str(data).unwrap()),
            Some(("" | "retry", _)) => {}
            _ => panic!("not a line of an event: {line:?}"),
        }
    }
    frame
}
