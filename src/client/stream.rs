//! Events as they happen: server-sent events (HTML Living Standard, section 9.2), as this server
//! sends them.

use std::collections::VecDeque;

use reqwest::Response;
use serde_json::Value;

/// An open stream of events.
pub struct Stream {
    response: Response,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    events: VecDeque<Value>,
    last_id: Option<String>,
}

impl Stream {
    pub(super) fn new(response: Response) -> Self {
        Self { response, rest: Vec::new(), events: VecDeque::new(), last_id: None }
    }

    /// The next event; none once the server has gone away.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            // However it ended: the caller comes back, and goes on after `last_id`.
            let bytes = self.response.chunk().await.ok().flatten()?;
            self.read(&bytes);
        }
    }

    /// The position to continue from once this stream has ended.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            if let Some(id) = line.strip_prefix("id:") {
                self.last_id = Some(id.trim().to_owned());
            }
            // An event is one line of JSON.
            let data = line.strip_prefix("data:");
            self.events.extend(data.and_then(|data| serde_json::from_str::<Value>(data).ok()));
        }
    }
}
