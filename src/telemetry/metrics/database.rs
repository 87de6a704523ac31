//! Commits.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::{counter, counters, histogram, seconds};

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

pub(super) fn declare() {
    LazyLock::force(&TOOK);
    LazyLock::force(&FAILED);
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
