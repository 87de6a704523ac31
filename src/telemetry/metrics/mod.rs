//! Metrics of this process, in Prometheus' text format.
//!
//! Like the log, they are the process's and not handed around: what happens is counted where it happens, by one call
//! into the module of its subject. Counting is an atomic behind a label lookup. Labels are few, and those whose values
//! others choose are bounded; no name of a certificate or a domain is one of them.
//!
//! What the database or the memory of a part knows is read at the scrape, by whoever answers it, into [`Gauges`].

mod bounded;
pub mod calls;
pub mod database;
pub mod issuance;
mod process;
pub mod webhook;
pub mod worker;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};

/// The content type of [`page`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds. From an issuance at a CA next door to one that waits for DNS and an overloaded CA.
const WORK: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Seconds, for a single request or question.
const CALL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Everything that was counted, the process's own figures, and `gauges`.
pub fn page(gauges: &Gauges) -> String {
    calls::declare();
    database::declare();
    issuance::declare();
    webhook::declare();
    worker::declare();
    let own = Gauges::default();
    process::measure(&own);
    let families = [REGISTRY.gather(), own.families(), gauges.families()].concat();
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

/// Values that are read at the scrape.
#[derive(Default)]
pub struct Gauges(Registry);

impl Gauges {
    /// Adds a metric with one value for each set of labels. A name that is there already keeps its values.
    pub fn set<'v>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (Vec<&'v str>, f64)>,
    ) {
        let Ok(gauges) = GaugeVec::new(Opts::new(name, help), labels) else { return };
        for (labels, value) in values {
            if let Ok(gauge) = gauges.get_metric_with_label_values(&labels) {
                gauge.set(value);
            }
        }
        self.0.register(Box::new(gauges)).ok();
    }

    /// Adds a count that somebody else keeps.
    pub fn set_total(&self, name: &str, help: &str, value: f64) {
        if let Ok(total) = Counter::new(name, help) {
            total.inc_by(value.max(0.0));
            self.0.register(Box::new(total)).ok();
        }
    }

    /// Adds a metric without labels.
    pub fn set_one(&self, name: &str, help: &str, value: f64) {
        if let Ok(gauge) = Gauge::new(name, help) {
            gauge.set(value);
            self.0.register(Box::new(gauge)).ok();
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

fn float_gauge(name: &str, help: &str) -> Gauge {
    registered(Gauge::new(name, help))
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn histograms(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(HistogramVec::new(options, labels))
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are constants, and a test writes them all"
)]
fn registered<C: Collector + Clone + 'static>(made: prometheus::Result<C>) -> C {
    let collector = made.expect("a metric's name and labels are well-formed");
    REGISTRY.register(Box::new(collector.clone())).expect("a metric has one name");
    collector
}

/// The time that something took; a clock that was set back makes it none.
fn seconds(took: Duration) -> f64 {
    took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_well_formed_and_one_that_is_read_at_the_scrape_is_there() {
        let gauges = Gauges::default();
        gauges.set("certwright_things", "Things.", &["kind"], [(vec!["a"], 2.0), (vec!["b"], 3.0)]);
        gauges.set_one("certwright_answer", "The answer.", 42.0);

        let page = page(&gauges);

        for line in [
            "# TYPE certwright_things gauge",
            "certwright_things{kind=\"b\"} 3",
            "certwright_answer 42",
            "certwright_leases_lost_total 0",
        ] {
            assert!(page.lines().any(|known| known == line), "{line}: {page}");
        }
        assert!(page.contains("process_resident_memory_bytes "), "{page}");
    }
}
