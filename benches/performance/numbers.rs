//! Medians and percentiles.

use std::time::Duration;

/// The middle one; of an even number, the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The smallest value that so many percent do not exceed; 0 where there is none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil();
    let below = sorted.iter().enumerate().take_while(|(index, _)| (*index as f64) < rank);
    below.last().map_or(0.0, |(_, value)| *value)
}

/// In milliseconds.
pub fn millis(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}
