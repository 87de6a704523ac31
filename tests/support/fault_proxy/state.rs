//! What the proxy knows, and what it makes of each request and answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use certwright::clock::{Clock as _, ManualClock, SystemClock};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::overlap::Overlap;
use super::wishes::Wishes;
use super::words::Words;
use super::{Answer, Cut, Fault, Kind, REPLAY_NONCE, Refusal, RetryAfter};

pub(super) const ERROR: &str = "urn:ietf:params:acme:error:";

#[derive(Default)]
pub(super) struct State {
    /// What the proxy goes by; the system's clock otherwise.
    pub(super) clock: Option<Arc<ManualClock>>,
    pub(super) wishes: Wishes,
    pub(super) overlap: Overlap,
    pub(super) words: Words,
    pub(super) lag: HashMap<Kind, Duration>,
    /// Looks for which something that was named is not there, and how many each path has had.
    pub(super) absent: usize,
    pub(super) looks: HashMap<String, usize>,
    pub(super) behind: u64,
    pub(super) pages: u64,
    pub(super) cuts: u64,
    /// How often the order of each payload was cut off.
    pub(super) cut_orders: HashMap<String, u32>,
    pub(super) lost: HashMap<Kind, usize>,
    pub(super) limit: Option<Limit>,
    pub(super) only_pages: bool,
    pub(super) busy: (u64, Duration),
    /// When the CA first named a path.
    pub(super) named: HashMap<String, OffsetDateTime>,
    /// Every request: what it was about, and when it came.
    pub(super) asked: Vec<(Kind, OffsetDateTime)>,
    /// When the CA took an order.
    pub(super) taken: Vec<OffsetDateTime>,
    /// Everything that went wrong, and when.
    pub(super) faults: Vec<(Fault, OffsetDateTime)>,
    /// Until when a request was told to wait: its path and JWS payload.
    pub(super) told: HashMap<(String, String), OffsetDateTime>,
    pub(super) hasty: Vec<String>,
    /// Refusals that are still to be given, by what is asked.
    pub(super) refusals: HashMap<Kind, VecDeque<Refusal>>,
    /// The kind whose first path hangs whenever it is asked for, that path, and who waits for it now.
    pub(super) hung: Option<(Kind, Option<String>)>,
    pub(super) hanging: usize,
    /// For how many reads of a state replicas may show an earlier one, and what was shown of each path.
    pub(super) backwards: usize,
    pub(super) shown: HashMap<String, Shown>,
    /// Every CSR that came, by path.
    pub(super) csrs: HashMap<String, Vec<String>>,
    /// The payload of every new order that came.
    pub(super) orders: Vec<String>,
    pub(super) dice: u64,
}

/// The states that a path was in, with what was said then.
#[derive(Default)]
pub(super) struct Shown {
    states: Vec<(String, Bytes)>,
    /// Reads of the last one.
    reads: usize,
}

pub(super) struct Limit {
    /// For so long, from the first order that meets it.
    pub(super) time: Duration,
    pub(super) end: Option<OffsetDateTime>,
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
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.as_ref().map_or_else(|| SystemClock.now(), |clock| clock.now())
    }

    pub(super) fn before(
        &mut self,
        kind: Kind,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Option<Own> {
        let now = self.now();
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
        if let Some(answer) = self.words.before(kind, method, path, &jws) {
            return Some(self.count(Fault::Instead, Own::Instead(answer)));
        }
        if let Some((fault, own)) = self.wishes.before(kind, &jws) {
            return Some(self.count(fault, own));
        }
        if let Some((of, hung)) = &mut self.hung
            && *of == kind
            && hung.get_or_insert_with(|| path.to_owned()) == path
        {
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
        if self.happens(self.cuts) && self.may_cut(kind, &jws) {
            return Some(self.count(Fault::Cut, Own::Cut));
        }
        if self.happens(self.pages) {
            return Some(self.count(Fault::Page, Own::Page));
        }
        if let Some(Limit { time, end, form, domain }) = &mut self.limit
            && kind == Kind::NewOrder
            && domain.as_ref().is_none_or(|domain| payload(&jws).contains(domain.as_str()))
            && now < *end.get_or_insert_with(|| after(*form, *time, now).0)
        {
            let left = end.map_or(Duration::ZERO, |end| (end - now).unsigned_abs());
            let whole = Duration::from_secs(left.as_millis().div_ceil(1_000).try_into().unwrap());
            let (until, retry_after) = match form {
                RetryAfter::Seconds => after(*form, whole, now),
                RetryAfter::Date => (now + left, httpdate::fmt_http_date((now + left).into())),
            };
            self.told.insert(same, until);
            let detail = domain.as_ref().map_or_else(
                || "too many new orders recently".to_owned(),
                |domain| format!("too many certificates (50) already issued for \"{domain}\" in the last 168h0m0s"),
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Some(self.count(Fault::Limited, Own::Wait { status, detail, retry_after }));
        }
        if kind == Kind::NewOrder
            && let Some(pause) = self.overlap.one_too_many()
        {
            self.told.insert(same, now + pause);
            let (status, detail) =
                (StatusCode::TOO_MANY_REQUESTS, "too many new orders at once".to_owned());
            let retry_after = pause.as_secs().to_string();
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
        let now = self.now();
        let lag = self.lag.get(&kind).copied().unwrap_or_default();
        let lags = matches!(kind, Kind::Order | Kind::Authorization | Kind::Certificate);
        let behind = lags && self.happens(self.behind);
        let absent = lags && self.named.contains_key(path) && self.is_absent(path);
        if behind || absent || self.named.get(path).is_some_and(|named| now < *named + lag) {
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
        let answer = self.wishes.called_ready(kind, answer);
        let answer = self.as_a_replica_shows_it(kind, path, answer);
        let answer = match self.wishes.after(kind, &body_of(&answer)) {
            Some(body) => {
                let (parts, _) = answer.into_parts();
                self.count(Fault::Rewritten, with_headers(parts.status, parts.headers, body))
            }
            None => answer,
        };
        match self.lost.get_mut(&kind) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(self.count(Fault::Lost, Cut))
            }
            _ => Ok(answer),
        }
    }

    /// Whether this look at a path is one of those that come too early.
    fn is_absent(&mut self, path: &str) -> bool {
        let looks = self.looks.entry(path.to_owned()).or_default();
        *looks += 1;
        *looks <= self.absent
    }

    /// The answer, or one that was given before it.
    fn as_a_replica_shows_it(&mut self, kind: Kind, path: &str, answer: Answer) -> Answer {
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
        if shown.states.last().is_none_or(|(last, _)| *last != status) {
            shown.states.push((status, body));
            shown.reads = 0;
        }
        let earlier = shown.states.len() - 1;
        let reads = matches!(kind, Kind::Order | Kind::Authorization);
        shown.reads += usize::from(reads);
        if !reads || earlier == 0 || shown.reads > self.backwards || !self.happens(50) {
            return answer;
        }
        let place = usize::try_from(self.dice >> 33).unwrap() % earlier;
        let body = self.shown[&path].states[place].1.clone();
        let (parts, _) = answer.into_parts();
        let old = with_headers(parts.status, parts.headers, body);
        self.count(Fault::Backwards, old)
    }

    fn count<T>(&mut self, fault: Fault, value: T) -> T {
        self.faults.push((fault, self.now()));
        value
    }

    /// A new order whose answer is lost a third time is not asked for again within ten minutes, which is longer than a
    /// test that leaves it to chance waits.
    fn may_cut(&mut self, kind: Kind, jws: &Value) -> bool {
        if kind != Kind::NewOrder {
            return true;
        }
        let cuts = self.cut_orders.entry(payload(jws)).or_default();
        *cuts += 1;
        *cuts < 3
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
fn after(form: RetryAfter, pause: Duration, now: OffsetDateTime) -> (OffsetDateTime, String) {
    match form {
        RetryAfter::Seconds => (now + pause, pause.as_secs().to_string()),
        RetryAfter::Date => {
            // Dates have whole seconds: the next one.
            let date = (now + pause).replace_nanosecond(0).unwrap() + Duration::from_secs(1);
            (date, httpdate::fmt_http_date(SystemTime::from(date)))
        }
    }
}

pub fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
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
