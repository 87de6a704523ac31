//! Deliveries to webhooks.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, IntCounterVec};

use super::{CALL, counters, histogram, seconds};

struct Metrics {
    deliveries: IntCounterVec,
    took: Histogram,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let deliveries = counters(
        "certwright_webhook_deliveries_total",
        "Tries at deliveries, by what became of the delivery: delivered, retried, dead or held.",
        &["outcome"],
    );
    // A series that begins with its first dead letter would hide it from `increase`.
    for outcome in ["delivered", "retried", "dead", "held"] {
        deliveries.with_label_values(&[outcome]);
    }
    let took = histogram(
        "certwright_webhook_attempt_duration_seconds",
        "Time for a receiver's answer.",
        CALL,
    );
    Metrics { deliveries, took }
});

pub(super) fn declare() {
    LazyLock::force(&METRICS);
}

/// A delivery was tried, or its time was up.
pub fn tried(outcome: &str) {
    METRICS.deliveries.with_label_values(&[outcome]).inc();
}

/// A receiver has answered, or not.
pub fn attempted(took: Duration) {
    METRICS.took.observe(seconds(took));
}
