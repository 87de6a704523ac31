//! What becomes of orders.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec};

use super::bounded::Bounded;
use super::{WORK, counters, histograms, seconds};

/// Issuers with series of their own.
const ISSUERS: usize = 100;

struct Metrics {
    issuers: Bounded,
    orders: IntCounterVec,
    took: HistogramVec,
    stages: HistogramVec,
    failures: IntCounterVec,
    chains: IntCounterVec,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    issuers: Bounded::new(ISSUERS),
    orders: counters(
        "certwright_orders_total",
        "Orders that have ended, by issuer, outcome (issued, failed, blocked, lost) and class of the failure.",
        &["kind", "issuer", "outcome", "class"],
    ),
    took: histograms(
        "certwright_issuance_duration_seconds",
        "Time from the placing of an order to its certificate.",
        WORK,
        &["kind", "issuer"],
    ),
    stages: histograms(
        "certwright_order_stage_duration_seconds",
        "Time that orders spent in a stage.",
        WORK,
        &["stage"],
    ),
    failures: counters(
        "certwright_step_failures_total",
        "Steps of orders and challenges that did not work, by class and code; most are tried again.",
        &["class", "code"],
    ),
    chains: counters(
        "certwright_chain_changes_total",
        "Certificates that were issued with a chain to another topmost issuer than the one before.",
        &["kind", "issuer"],
    ),
});

pub(super) fn declare() {
    LazyLock::force(&METRICS);
}

/// The issuer of an order; the namespace of a `ClusterIssuer` is empty.
#[derive(Debug, Clone, Copy)]
pub struct Issuer<'a> {
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Issuer<'_> {
    /// `NAME`, or `NAMESPACE/NAME`.
    pub fn label(&self) -> String {
        match self.namespace {
            "" => self.name.to_owned(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }
}

/// How most orders end, and the class of what failed.
const USUAL: [(&str, &str); 5] = [
    ("issued", ""),
    ("failed", "validation"),
    ("failed", "transient"),
    ("blocked", "blocked"),
    ("lost", "gone"),
];

/// Shows the counters of an issuer, by its label, before its first order ends: Prometheus takes the first value of a
/// series for where it began, and so an increase would miss what happened first.
pub fn expect(kind: &str, label: &str) {
    let label = METRICS.issuers.value(label);
    for (outcome, class) in USUAL {
        METRICS.orders.with_label_values(&[kind, label, outcome, class]);
    }
}

/// An order has ended with a certificate.
pub fn issued(issuer: Issuer<'_>, took: Duration) {
    let label = issuer.label();
    let label = METRICS.issuers.value(&label);
    METRICS.orders.with_label_values(&[issuer.kind, label, "issued", ""]).inc();
    METRICS.took.with_label_values(&[issuer.kind, label]).observe(seconds(took));
}

/// A certificate's chain leads elsewhere than the one before.
pub fn chain_changed(issuer: Issuer<'_>) {
    let label = issuer.label();
    let label = METRICS.issuers.value(&label);
    METRICS.chains.with_label_values(&[issuer.kind, label]).inc();
}

/// An order has ended without one.
pub fn ended(issuer: Issuer<'_>, outcome: &str, class: &str) {
    let label = issuer.label();
    let label = METRICS.issuers.value(&label);
    METRICS.orders.with_label_values(&[issuer.kind, label, outcome, class]).inc();
}

/// An order has left a stage.
pub fn stage_left(stage: &str, took: Duration) {
    METRICS.stages.with_label_values(&[stage]).observe(seconds(took));
}

/// A step did not work. The code is one of the table of failures.
pub fn step_failed(class: &str, code: &str) {
    METRICS.failures.with_label_values(&[class, code]).inc();
}
