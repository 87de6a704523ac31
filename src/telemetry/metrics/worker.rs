//! The workers.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntGauge};

use super::{counter, gauge};

struct Metrics {
    leases_lost: IntCounter,
    internal_failures: IntCounter,
    breakers_open: IntGauge,
    breakers_opened: IntCounter,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    leases_lost: counter(
        "certwright_leases_lost_total",
        "Steps whose result was void because somebody else had changed or taken the row.",
    ),
    internal_failures: counter(
        "certwright_internal_failures_total",
        "Steps that failed by a fault of ours; the log has the cause.",
    ),
    breakers_open: gauge(
        "certwright_circuit_breakers_open",
        "CAs and DNS credentials that do not answer, so that one request at a time goes out.",
    ),
    breakers_opened: counter(
        "certwright_circuit_breakers_opened_total",
        "How often a CA or a DNS credential was found not to answer.",
    ),
});

pub(super) fn declare() {
    LazyLock::force(&METRICS);
}

/// A step's result was void.
pub fn lease_lost() {
    METRICS.leases_lost.inc();
}

/// A step failed by a fault of ours.
pub fn failed_inside() {
    METRICS.internal_failures.inc();
}

/// A circuit breaker has opened.
pub fn breaker_opened() {
    METRICS.breakers_open.inc();
    METRICS.breakers_opened.inc();
}

/// Circuit breakers that are open now.
pub fn breakers_open() -> i64 {
    METRICS.breakers_open.get()
}

/// A circuit breaker has closed.
pub fn breaker_closed() {
    METRICS.breakers_open.dec();
}
