//! How long the CA's validations take, and how what is not done yet is shown.
//!
//! Pebble itself has long looked; nobody is told before the time that was drawn for the name.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::support::fault_proxy::Kind;

/// Every measurement draws the same times for the same names.
const SEED: u64 = 16;

/// How long a validation takes at least, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub least: Duration,
    pub most: Duration,
}

impl Span {
    pub const fn millis(least: u64, most: u64) -> Self {
        Self { least: Duration::from_millis(least), most: Duration::from_millis(most) }
    }

    /// Evenly between both, by the name alone.
    fn draw(self, name: &str) -> Duration {
        let mut hasher = DefaultHasher::new();
        (SEED, name).hash(&mut hasher);
        let share = hasher.finish() as f64 / u64::MAX as f64;
        self.least + self.most.saturating_sub(self.least).mul_f64(share)
    }
}

/// `500ms-2s`, or `1s` for one that is always the same.
impl FromStr for Span {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let span = Self {
            least: humantime::parse_duration(least)?,
            most: humantime::parse_duration(most)?,
        };
        anyhow::ensure!(span.least <= span.most, "the shorter time comes first");
        Ok(span)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, most] = [self.least, self.most].map(humantime::format_duration);
        if self.least == self.most { write!(f, "{least}") } else { write!(f, "{least}-{most}") }
    }
}

/// All that clients have seen of one CA, each by the last segment of its URL.
pub struct Validations {
    span: Span,
    authorizations: HashMap<String, Authorization>,
    /// The authorization of each challenge.
    challenges: HashMap<String, String>,
    /// The authorizations of each order.
    orders: HashMap<String, Vec<String>>,
}

struct Authorization {
    name: String,
    /// When it is done; `None` before a challenge was accepted.
    due: Option<Instant>,
}

impl Validations {
    pub fn new(span: Span) -> Self {
        Self {
            span,
            authorizations: HashMap::new(),
            challenges: HashMap::new(),
            orders: HashMap::new(),
        }
    }

    /// From now on the CA is busy with the challenge's authorization; once for each.
    pub fn accept(&mut self, path: &str, now: Instant) {
        let authorization = self.challenges.get(last_segment(path));
        if let Some(found) = authorization.and_then(|id| self.authorizations.get_mut(id)) {
            found.due.get_or_insert(now + self.span.draw(&found.name));
        }
    }

    /// Whether an order may not be finalized yet.
    pub fn is_early(&self, path: &str, now: Instant) -> bool {
        self.orders.get(last_segment(path)).is_some_and(|ids| self.is_any_busy(ids, now))
    }

    /// Makes an answer of the CA say no more than may be known `now`; whether the client has to ask again.
    pub fn show(&mut self, kind: Kind, path: &str, answer: &mut Value, now: Instant) -> bool {
        match kind {
            Kind::Authorization => self.show_authorization(last_segment(path), answer, now),
            Kind::Challenge => {
                let id = self.challenges.get(last_segment(path));
                let is_busy = id.is_some_and(|id| self.is_busy(id, now));
                if is_busy {
                    show_processing(answer);
                }
                is_busy
            }
            Kind::NewOrder | Kind::Order | Kind::Finalize => self.show_order(answer, now),
            _ => false,
        }
    }

    fn show_authorization(&mut self, id: &str, answer: &mut Value, now: Instant) -> bool {
        let name = answer["identifier"]["value"].as_str().unwrap_or_default().to_owned();
        self.authorizations.entry(id.to_owned()).or_insert(Authorization { name, due: None });
        let is_busy = self.is_busy(id, now);
        if is_busy {
            answer["status"] = "pending".into();
        }
        for challenge in answer["challenges"].as_array_mut().into_iter().flatten() {
            let url = challenge["url"].as_str().unwrap_or_default();
            self.challenges.insert(last_segment(url).to_owned(), id.to_owned());
            if is_busy && challenge["status"] != "pending" {
                show_processing(challenge);
            }
        }
        is_busy
    }

    fn show_order(&mut self, answer: &mut Value, now: Instant) -> bool {
        // The order and where it is finalized have the same last segment.
        let id = last_segment(answer["finalize"].as_str().unwrap_or_default()).to_owned();
        let urls = answer["authorizations"].as_array().into_iter().flatten();
        let ids: Vec<_> =
            urls.filter_map(Value::as_str).map(|url| last_segment(url).to_owned()).collect();
        let is_busy = self.is_any_busy(&ids, now);
        self.orders.insert(id, ids);
        if is_busy && let Some(order) = answer.as_object_mut() {
            order.insert("status".to_owned(), "pending".into());
            order.remove("error");
        }
        is_busy || answer["status"] == "processing"
    }

    fn is_any_busy(&self, ids: &[String], now: Instant) -> bool {
        ids.iter().any(|id| self.is_busy(id, now))
    }

    fn is_busy(&self, id: &str, now: Instant) -> bool {
        self.authorizations.get(id).and_then(|found| found.due).is_some_and(|due| now < due)
    }
}

fn show_processing(challenge: &mut Value) {
    if let Some(challenge) = challenge.as_object_mut() {
        challenge.insert("status".to_owned(), "processing".into());
        challenge.remove("validated");
        challenge.remove("error");
    }
}

fn last_segment(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}
