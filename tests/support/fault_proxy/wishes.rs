//! What a CA, or who stands before it, is to say of renewals and of who may order.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::state::{ERROR, Own, body_of, payload, problem, with_headers};
use super::{Answer, Fault, FaultProxy, Kind};

/// Makes something else of a chain that the CA sends.
type Rewrite = Box<dyn Fn(&str) -> String + Send>;

#[derive(Default)]
pub(super) struct Wishes {
    chains: Option<Rewrite>,
    down: bool,
    /// Status and problem type for orders with `replaces`.
    refusal: Option<(u16, &'static str)>,
    /// Orders with `notAfter` are refused.
    endless: bool,
    /// The page where a person has to act before anything is ordered.
    action: Option<String>,
    /// What is answered to questions for renewal information: body and `Retry-After`.
    suggestion: Option<(String, Option<String>)>,
    /// Orders call themselves ready that are not.
    premature: bool,
}

impl FaultProxy {
    /// Nothing gets through, or everything again.
    pub fn down(&self, down: bool) {
        self.shared.state().wishes.down = down;
    }

    /// Orders that say what they replace are refused so.
    pub fn refuse_replacements(&self, status: u16, kind: &'static str) {
        self.shared.state().wishes.refusal = Some((status, kind));
    }

    /// Orders that say when their certificate is to end are refused, in Let's Encrypt's words.
    pub fn refuse_ends(&self) {
        self.shared.state().wishes.endless = true;
    }

    /// Nothing may be ordered before a person has been at this page.
    pub fn want_action(&self, page: Option<&str>) {
        self.shared.state().wishes.action = page.map(str::to_owned);
    }

    /// What is sent instead of a certificate with its chain.
    pub fn rewrite_chains(&self, rewrite: impl Fn(&str) -> String + Send + 'static) {
        self.shared.state().wishes.chains = Some(Box::new(rewrite));
    }

    /// Orders call themselves ready that are not: the CA refuses to finalize them.
    pub fn call_all_ready(&self) {
        self.shared.state().wishes.premature = true;
    }

    /// Questions for renewal information are answered so.
    pub fn suggest(&self, body: &str, retry_after: Option<&str>) {
        let retry_after = retry_after.map(str::to_owned);
        self.shared.state().wishes.suggestion = Some((body.to_owned(), retry_after));
    }
}

impl Wishes {
    /// The order, which calls itself ready where it was wished for.
    pub(super) fn called_ready(&self, kind: Kind, answer: Answer) -> Answer {
        if !self.premature || !matches!(kind, Kind::NewOrder | Kind::Order) {
            return answer;
        }
        let mut order: Value = serde_json::from_slice(&body_of(&answer)).unwrap_or_default();
        if order["status"] == "pending" {
            order["status"] = json!("ready");
        }
        let (parts, _) = answer.into_parts();
        with_headers(parts.status, parts.headers, order.to_string().into())
    }

    pub(super) fn before(&self, kind: Kind, jws: &Value) -> Option<(Fault, Own)> {
        if self.down {
            return Some((Fault::Down, Own::Cut));
        }
        match (kind, &self.suggestion, &self.action, self.refusal) {
            (Kind::RenewalInfo, Some((body, retry_after)), ..) => {
                let mut headers = HeaderMap::new();
                if let Some(retry_after) = retry_after {
                    headers.insert(header::RETRY_AFTER, retry_after.parse().unwrap());
                }
                let answer = with_headers(StatusCode::OK, headers, body.clone().into());
                Some((Fault::Suggested, Own::Instead(answer)))
            }
            (Kind::NewOrder, _, Some(page), _) => {
                let answer = refusal(403, "userActionRequired", Some(page));
                Some((Fault::Action, Own::Instead(answer)))
            }
            (Kind::NewOrder, ..) if self.endless && says(jws, "notAfter") => {
                let words = "NotBefore and NotAfter are not supported";
                let answer = problem(StatusCode::BAD_REQUEST, "malformed", words);
                Some((Fault::End, Own::Instead(answer)))
            }
            (Kind::NewOrder, _, _, Some((status, kind))) if says(jws, "replaces") => {
                Some((Fault::Replacement, Own::Instead(refusal(status, kind, None))))
            }
            _ => None,
        }
    }

    pub(super) fn after(&self, kind: Kind, body: &[u8]) -> Option<Bytes> {
        let rewrite = self.chains.as_ref().filter(|_| kind == Kind::Certificate)?;
        Some(rewrite(&String::from_utf8_lossy(body)).into())
    }
}

fn says(jws: &Value, field: &str) -> bool {
    let payload: Value = serde_json::from_str(&payload(jws)).unwrap_or_default();
    payload.get(field).is_some()
}

fn refusal(status: u16, kind: &str, page: Option<&str>) -> Answer {
    let mut body = json!({
        "type": format!("{ERROR}{kind}"), "detail": "refused on purpose", "status": status,
    });
    if let Some(page) = page {
        body["instance"] = json!(page);
    }
    let kind = HeaderValue::from_static("application/problem+json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    with_headers(StatusCode::from_u16(status).unwrap(), headers, body.to_string().into())
}
