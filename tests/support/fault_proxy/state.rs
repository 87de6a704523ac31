//! What the proxy knows, and what it makes of each request and answer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use certwright::clock::{Clock as _, SystemClock};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::wishes::Wishes;
use super::{Answer, Cut, Fault, Kind, REPLAY_NONCE, Refusal, RetryAfter};

pub(super) const ERROR: &str = "urn:ietf:params:acme:error:";

#[derive(Default)]
pub(super) struct State {
    pub(super) wishes: Wishes,
    pub(super) lag: HashMap<Kind, Duration>,
    pub(super) behind: u64,
    pub(super) pages: u64,
    pub(super) cuts: u64,
    pub(super) lost: HashMap<Kind, usize>,
    pub(super) limit: Option<Limit>,
    pub(super) only_pages: bool,
    pub(super) busy: (u64, Duration),
    /// When the CA first named a path.
    pub(super) named: HashMap<String, Instant>,
    /// Every request: what it was about, and when it came.
    pub(super) asked: Vec<(Kind, Instant)>,
    /// When the CA took an order.
    pub(super) taken: Vec<Instant>,
    pub(super) faults: HashMap<Fault, usize>,
    /// Until when a request was told to wait: its path and JWS payload.
    pub(super) told: HashMap<(String, String), Instant>,
    pub(super) hasty: Vec<String>,
    /// Refusals that are still to be given, by what is asked.
    pub(super) refusals: HashMap<Kind, VecDeque<Refusal>>,
    /// Requests that are still to be left hanging, and those that hang now.
    pub(super) hangs: HashMap<Kind, usize>,
    pub(super) hanging: usize,
    /// For how long replicas may show an earlier state, and what was shown of each path, with when.
    pub(super) backwards: Duration,
    pub(super) shown: HashMap<String, Vec<(String, Bytes, Instant)>>,
    /// Every CSR that came, by path.
    pub(super) csrs: HashMap<String, Vec<String>>,
    /// The payload of every new order that came.
    pub(super) orders: Vec<String>,
    pub(super) dice: u64,
}

pub(super) struct Limit {
    pub(super) end: Instant,
    /// The same moment, as a clock shows it.
    pub(super) date: SystemTime,
    pub(super) form: RetryAfter,
    /// Only new orders for names below this one.
    pub(super) domain: Option<String>,
}

/// What the proxy answers itself.
pub(super) enum Own {
    Cut,
    Hang,
    Page,
    /// This, instead of what the CA would say.
    Instead(Answer),
    Refuse(Refusal, String),
    Wait {
        status: StatusCode,
        detail: String,
        retry_after: String,
    },
}

impl State {
    pub(super) fn before(
        &mut self,
        kind: Kind,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Option<Own> {
        let now = Instant::now();
        self.asked.push((kind, now));
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        let same = (path.to_owned(), jws["payload"].as_str().unwrap_or_default().to_owned());
        if self.told.get(&same).is_some_and(|at| now < *at) {
            self.hasty.push(path.to_owned());
        }
        if kind == Kind::Finalize {
            self.csrs.entry(path.to_owned()).or_default().push(same.1.clone());
        }
        if kind == Kind::NewOrder {
            self.orders.push(payload(&jws));
        }
        if let Some((fault, own)) = self.wishes.before(kind, &jws) {
            return Some(self.count(fault, own));
        }
        if let Some(left) = self.hangs.get_mut(&kind).filter(|left| **left > 0) {
            *left -= 1;
            return Some(self.count(Fault::Hang, Own::Hang));
        }
        if let Some(refusal) = self.refusals.get_mut(&kind).and_then(VecDeque::pop_front) {
            let (until, retry_after) = after(refusal.form, refusal.pause, now);
            self.told.insert(same, until);
            return Some(self.count(Fault::Refused, Own::Refuse(refusal, retry_after)));
        }
        if self.only_pages {
            return Some(self.count(Fault::Page, Own::Page));
        }
        if self.happens(self.cuts) {
            return Some(self.count(Fault::Cut, Own::Cut));
        }
        if self.happens(self.pages) {
            return Some(self.count(Fault::Page, Own::Page));
        }
        if let Some(Limit { end, date, form, domain }) =
            self.limit.as_ref().filter(|limit| now < limit.end)
            && kind == Kind::NewOrder
            && domain.as_ref().is_none_or(|domain| payload(&jws).contains(domain))
        {
            let seconds = (*end - now).as_secs() + 1;
            let (until, retry_after) = match form {
                RetryAfter::Seconds => (now + Duration::from_secs(seconds), seconds.to_string()),
                RetryAfter::Date => (*end, httpdate::fmt_http_date(*date)),
            };
            self.told.insert(same, until);
            let detail = domain.as_ref().map_or_else(
                || "too many new orders recently".to_owned(),
                |domain| format!("too many certificates (50) already issued for \"{domain}\" in the last 168h0m0s"),
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Some(self.count(Fault::Limited, Own::Wait { status, detail, retry_after }));
        }
        let (percent, pause) = self.busy;
        if method == Method::POST && self.happens(percent) {
            self.told.insert(same, now + pause);
            let retry_after = pause.as_secs().to_string();
            let (status, detail) =
                (StatusCode::SERVICE_UNAVAILABLE, "Service busy; retry later.".to_owned());
            return Some(self.count(Fault::Busy, Own::Wait { status, detail, retry_after }));
        }
        None
    }

    pub(super) fn after(&mut self, kind: Kind, path: &str, answer: Answer) -> Result<Answer, Cut> {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let now = Instant::now();
        let lag = self.lag.get(&kind).copied().unwrap_or_default();
        let lags = matches!(kind, Kind::Order | Kind::Authorization | Kind::Certificate);
        let behind = lags && self.happens(self.behind);
        if behind || self.named.get(path).is_some_and(|named| now < *named + lag) {
            let mut absent = problem(StatusCode::NOT_FOUND, "malformed", kind.not_there());
            if let Some(nonce) = answer.headers().get(REPLAY_NONCE) {
                absent.headers_mut().insert(REPLAY_NONCE, nonce.clone());
            }
            return Ok(self.count(Fault::NotThere, absent));
        }
        if kind == Kind::NewOrder {
            self.taken.push(now);
        }
        for path in paths_in(&answer) {
            self.named.entry(path).or_insert(now);
        }
        let answer = self.wishes.after(kind, answer);
        let answer = self.as_a_replica_shows_it(kind, path, answer, now);
        match self.lost.get_mut(&kind) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(self.count(Fault::Lost, Cut))
            }
            _ => Ok(answer),
        }
    }

    /// The answer, or one that was given before it.
    fn as_a_replica_shows_it(
        &mut self,
        kind: Kind,
        path: &str,
        answer: Answer,
        now: Instant,
    ) -> Answer {
        let path = match kind {
            Kind::Order | Kind::Authorization => path.to_owned(),
            Kind::NewOrder | Kind::Finalize => match location(&answer) {
                Some(path) => path,
                None => return answer,
            },
            _ => return answer,
        };
        let body = body_of(&answer);
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        let status = parsed["status"].as_str().unwrap_or_default().to_owned();
        let shown = self.shown.entry(path.clone()).or_default();
        if shown.last().is_none_or(|(last, ..)| *last != status) {
            shown.push((status, body, now));
        }
        let since = shown.last().map_or(now, |(.., since)| *since);
        let earlier = shown.len() - 1;
        let reads = matches!(kind, Kind::Order | Kind::Authorization);
        if !reads || earlier == 0 || now >= since + self.backwards || !self.happens(50) {
            return answer;
        }
        let place = usize::try_from(self.dice >> 33).unwrap() % earlier;
        let body = self.shown[&path][place].1.clone();
        let (parts, _) = answer.into_parts();
        let old = with_headers(parts.status, parts.headers, body);
        self.count(Fault::Backwards, old)
    }

    fn count<T>(&mut self, fault: Fault, value: T) -> T {
        *self.faults.entry(fault).or_default() += 1;
        value
    }

    /// Chance that is the same in every run (splitmix64).
    fn happens(&mut self, percent: u64) -> bool {
        if percent == 0 {
            return false;
        }
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100 < percent
    }
}

/// What a request says beneath its signature.
pub(super) fn payload(jws: &Value) -> String {
    let encoded = jws["payload"].as_str().unwrap_or_default();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default()).unwrap_or_default()
}

/// What an answer names: the order, its authorizations, its certificate.
fn paths_in(answer: &Answer) -> Vec<String> {
    let body: Value = serde_json::from_slice(&body_of(answer)).unwrap_or_default();
    let listed = body["authorizations"].as_array().into_iter().flatten();
    let named = listed.chain([&body["certificate"]]).filter_map(Value::as_str);
    let urls = named.filter_map(|url| url::Url::parse(url).ok());
    urls.map(|url| url.path().to_owned()).chain(location(answer)).collect()
}

fn location(answer: &Answer) -> Option<String> {
    let url = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(url::Url::parse(url).ok()?.path().to_owned())
}

pub(super) fn body_of(answer: &Answer) -> Bytes {
    let body = answer.body().clone();
    let body = futures_util::FutureExt::now_or_never(body.collect()).and_then(Result::ok);
    body.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

/// A pause from `now` on: the moment that it names, and how it is written.
fn after(form: RetryAfter, pause: Duration, now: Instant) -> (Instant, String) {
    match form {
        RetryAfter::Seconds => (now + pause, pause.as_secs().to_string()),
        RetryAfter::Date => {
            let clock = SystemTime::from(SystemClock.now());
            let since = (clock + pause).duration_since(SystemTime::UNIX_EPOCH).unwrap();
            // Dates have whole seconds: the next one.
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() + 1);
            (now + date.duration_since(clock).unwrap(), httpdate::fmt_http_date(date))
        }
    }
}

pub(super) fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
    let body =
        json!({"type": format!("{ERROR}{kind}"), "detail": detail, "status": status.as_u16()});
    let kind = HeaderValue::from_static("application/problem+json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
    with_headers(status, headers, body.to_string().into())
}

pub(super) fn page(status: StatusCode) -> Answer {
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))]);
    let body = format!("<html>\r\n<head><title>{status}</title></head>\r\n</html>\r\n");
    with_headers(status, headers, body.into())
}

pub(super) fn with_headers(status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
