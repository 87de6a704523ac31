//! What the running service has counted since it was started, by its metrics.

use super::report::Report;
use crate::cli::remote::Remote;
use crate::client::{Ask, Client, ClientError};
use crate::config::Config;

/// Counts that are no trouble as long as they are nought, with what they are called here and what to do.
const TROUBLES: [(&str, &str, &str); 3] = [
    (
        "certwright_internal_failures_total",
        "steps",
        "have failed by a fault of certwright's since it was started: `journalctl -u certwright | grep 'failed inside'` has the causes, which are worth a report",
    ),
    (
        "certwright_circuit_breakers_open",
        "circuit breakers",
        "are open, since a CA or a DNS provider does not answer: `journalctl -u certwright | grep 'not answering'` names it",
    ),
    (
        "certwright_webhook_deliveries_total{outcome=\"dead\"}",
        "messages to webhooks",
        "were given up since the service was started: `certwright webhooks list -A` shows whose, `certwright webhooks redeliver WEBHOOK --since TIME` sends them again",
    ),
];

/// Reads the metrics of the service, if they can be had.
pub(super) async fn examine(
    config: &Config,
    remote: &Remote,
    report: &mut Report,
) -> anyhow::Result<()> {
    if !config.metrics.enabled {
        return Ok(());
    }
    let client = match config.metrics.listen {
        Some(address) => Client::of_this_machine(&format!("http://{address}"))?,
        None => remote.session()?.client,
    };
    match client.bytes(Ask::get("/metrics")).await {
        Ok(page) => judge(&String::from_utf8_lossy(&page), report),
        // That the service is away was said already.
        Err(error) if error.is_away() => Ok(()),
        Err(ClientError::Refused(problem)) => report.warn("metrics", &format!("they cannot be read: {}; a key with `metrics:read`, or of the role `operator`, may (`--api-key-file`)", problem.detail)),
        Err(error) => report.warn("metrics", &format!("they cannot be read: {error}")),
    }
}

fn judge(page: &str, report: &mut Report) -> anyhow::Result<()> {
    let mut is_well = true;
    for (series, what, words) in TROUBLES {
        let count = value(page, series);
        if count > 0.0 {
            is_well = false;
            report.warn(what, &format!("{count} {words}"))?;
        }
    }
    if is_well {
        report.ok("since the start", "no step has failed inside, no message was given up")?;
    }
    Ok(())
}

fn value(page: &str, series: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.and_then(|value| value.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_inside_is_a_warning_of_its_own() {
        let failures = "certwright_internal_failures_total";
        for (count, warned) in [(0, 0), (2, 2)] {
            let mut report = Report::default();
            judge(
                &format!("{failures} {count}\ncertwright_circuit_breakers_open {count}\n"),
                &mut report,
            )
            .unwrap();
            assert_eq!((report.warned, report.failed), (warned, 0), "{count}");
        }
    }

    #[test]
    fn a_series_is_found_by_all_of_its_name() {
        let page = "# HELP a …\na_total 3\na 1.5\nb{x=\"y\"} 2\n";

        let found = ["a", "a_total", "b{x=\"y\"}", "b"].map(|series| value(page, series));

        assert_eq!(found.map(|value| value.to_string()), ["1.5", "3", "2", "0"]);
    }
}
