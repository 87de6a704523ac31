//! A CA with words of its own: what it says, and in which form, as a test wants it.

use http::{Method, Response};
use http_body_util::Full;
use serde_json::Value;

use super::state::{body_of, payload, with_headers};
use super::{Answer, FaultProxy, Kind};

/// What is answered instead of what the CA would say: by kind, method, path and the JWS's payload.
type Instead = Box<dyn Fn(Kind, &Method, &str, &Value) -> Option<Answer> + Send>;
/// What is made of an answer of the CA; the path is the one that was asked.
type Otherwise = Box<dyn Fn(Kind, &str, Answer) -> Answer + Send>;

#[derive(Default)]
pub(super) struct Words {
    instead: Option<Instead>,
    otherwise: Option<Otherwise>,
}

impl FaultProxy {
    /// Some requests are answered by the proxy.
    pub fn answer_instead(
        &self,
        instead: impl Fn(Kind, &Method, &str, &Value) -> Option<Answer> + Send + 'static,
    ) {
        self.shared.state().words.instead = Some(Box::new(instead));
    }

    /// The CA's answers are changed on their way.
    pub fn say_otherwise(&self, otherwise: impl Fn(Kind, &str, Answer) -> Answer + Send + 'static) {
        self.shared.state().words.otherwise = Some(Box::new(otherwise));
    }
}

impl Words {
    pub(super) fn before(
        &self,
        kind: Kind,
        method: &Method,
        path: &str,
        jws: &Value,
    ) -> Option<Answer> {
        let payload = serde_json::from_str(&payload(jws)).unwrap_or_default();
        self.instead.as_ref().and_then(|instead| instead(kind, method, path, &payload))
    }

    pub(super) fn after(&self, kind: Kind, path: &str, answer: Answer) -> Answer {
        match &self.otherwise {
            Some(otherwise) => otherwise(kind, path, answer),
            None => answer,
        }
    }
}

/// The answer with another body.
pub fn with_text(answer: Answer, text: String) -> Answer {
    let (parts, _) = answer.into_parts();
    with_headers(parts.status, parts.headers, text.into())
}

/// The answer with its JSON changed; any other stays as it is.
pub fn with_json(answer: Answer, change: impl FnOnce(&mut Value)) -> Answer {
    match serde_json::from_slice::<Value>(&body_of(&answer)) {
        Ok(mut body) => {
            change(&mut body);
            with_text(answer, body.to_string())
        }
        Err(_) => answer,
    }
}

/// An answer without a body.
pub fn bare(status: u16, headers: &[(&'static str, &str)]) -> Answer {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Full::default()).unwrap()
}
