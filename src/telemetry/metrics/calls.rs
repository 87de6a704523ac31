//! Calls: ours to CAs, providers and name servers, and those of clients to us.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Gauge, HistogramVec, IntCounterVec};

use super::bounded::Bounded;
use super::{CALL, counters, float_gauge, histograms, seconds};

/// HTTP statuses with series of their own; a CA may answer anything.
const STATUSES: usize = 60;

/// One kind of call: how many ended how, and how long they took.
struct Calls {
    statuses: Bounded,
    ended: IntCounterVec,
    took: HistogramVec,
}

impl Calls {
    fn new(subject: &str, plural: &str, about: &str, labels: &[&str]) -> Self {
        let ended = [labels, &["status"]].concat();
        Self {
            statuses: Bounded::new(STATUSES),
            ended: counters(&format!("certwright_{plural}_total"), &format!("{about}."), &ended),
            took: histograms(
                &format!("certwright_{subject}_duration_seconds"),
                &format!("Time for the answer: {about}."),
                CALL,
                labels,
            ),
        }
    }

    fn count<const N: usize>(&self, labels: [&str; N], status: &str, took: Duration) {
        let ended = [&labels[..], &[self.statuses.value(status)]].concat();
        self.ended.with_label_values(&ended).inc();
        self.took.with_label_values(&labels).observe(seconds(took));
    }
}

static ACME: LazyLock<Calls> = LazyLock::new(|| {
    Calls::new(
        "acme_request",
        "acme_requests",
        "Requests to CAs, by what they are for",
        &["action"],
    )
});
static PROVIDERS: LazyLock<Calls> = LazyLock::new(|| {
    Calls::new(
        "dns_provider_request",
        "dns_provider_requests",
        "Requests to DNS providers' APIs",
        &["provider", "method"],
    )
});
static DNS: LazyLock<Calls> = LazyLock::new(|| {
    Calls::new("dns_query", "dns_queries", "Questions to name servers", &["type"])
});
static HTTP: LazyLock<Calls> = LazyLock::new(|| {
    Calls::new("http_request", "http_requests", "Requests of clients", &["method", "route"])
});

static CLOCK_AHEAD: LazyLock<Gauge> = LazyLock::new(|| {
    float_gauge(
        "certwright_clock_ahead_seconds",
        "How far our clock is ahead of the CA's whose differs most, by the dates of the answers; behind where negative.",
    )
});

pub(super) fn declare() {
    LazyLock::force(&CLOCK_AHEAD);
    for calls in [&ACME, &PROVIDERS, &DNS, &HTTP] {
        LazyLock::force(calls);
    }
}

/// A request to a CA has ended, with an HTTP status or with what came instead.
pub fn acme(action: &str, status: &str, took: Duration) {
    ACME.count([action], status, took);
}

/// A request to a DNS provider's API has ended.
pub fn dns_provider(provider: &str, method: &str, status: &str, took: Duration) {
    PROVIDERS.count([provider, method], status, took);
}

/// A CA's answer had a date: so far is our clock ahead of it.
pub fn clock_ahead(by: time::Duration) {
    CLOCK_AHEAD.set(by.as_seconds_f64());
}

/// A question to a name server has ended: `found`, `nothing` or `failed`.
pub fn dns(record: &str, end: &str, took: Duration) {
    DNS.count([record], end, took);
}

/// A client's request was answered. The route is one of ours.
pub fn http(method: &str, route: &str, status: &str, took: Duration) {
    HTTP.count([method, route], status, took);
}
