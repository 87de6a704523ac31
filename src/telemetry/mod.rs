//! Telemetry of the process: one module for each kind, the log, the metrics and the traces.

mod json;
mod log_limit;
mod logs;
pub mod metrics;
mod text;
pub mod trace;

pub use self::log_limit::LogLimit;
use crate::config::Config;

/// Starts everything as configured.
///
/// # Errors
/// When `log.level` is not a filter; the message says what is wrong with it.
pub fn start(config: &Config) -> Result<(), String> {
    logs::start(config)
}

/// Logs by another level from now on.
///
/// # Errors
/// When it is not a filter; the message says what is wrong with it.
pub fn set_log_level(level: &str) -> Result<(), String> {
    logs::set_level(level)
}
