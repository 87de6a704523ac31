//! Commits, and what somebody else has written.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::{counter, counters, gauge, histogram, seconds};

/// Seconds: a commit waits for a disk, or for PostgreSQL's.
const COMMIT: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static TOOK: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "certwright_database_commit_duration_seconds",
        "Time for a commit, the wait for the database included.",
        COMMIT,
    )
});
static FAILED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "certwright_database_commit_failures_total",
        "Commits that the database refused or did not answer; lost leases are not among them.",
    )
});
static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "certwright_refused_rows_total",
        "API keys and policies that were read, and refused because somebody has changed them in the database.",
        &["table"],
    )
});
static AUDIT_LOG: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge(
        "certwright_audit_log_broken",
        "1 if the audit log was not whole when it was last verified.",
    )
});

pub(super) fn declare() {
    LazyLock::force(&TOOK);
    LazyLock::force(&FAILED);
    LazyLock::force(&AUDIT_LOG);
    for table in ["api_keys", "policies"] {
        REFUSED.with_label_values(&[table]);
    }
}

/// A transaction was committed.
pub fn committed(took: Duration) {
    TOOK.observe(seconds(took));
}

/// A transaction could not be committed.
pub fn commit_failed() {
    FAILED.inc();
}

/// A row that grants something was refused: the service has not written it.
pub fn row_refused(table: &str) {
    REFUSED.with_label_values(&[table]).inc();
}

/// Whether the audit log is broken was found out.
pub fn audit_log_broken(is_broken: bool) {
    AUDIT_LOG.set(i64::from(is_broken));
}
