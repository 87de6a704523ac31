//! Logs: to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Libraries that say more than anybody wants to read.
const QUIET: &str = "hickory_proto=warn,hickory_net=warn,hickory_resolver=warn,sqlx=warn,hyper=warn,h2=warn,rustls=warn,reqwest=warn";

/// Starts logging as configured.
///
/// # Errors
/// When `log.level` is not a filter; the message says what is wrong with it.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log_level))
        .map_err(|error| format!("log.level = {:?}: {error}", config.log_level))?;
    let text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as tests may do, keeps the first one's.
    if text {
        logs.try_init().ok()
    } else {
        // The list of spans would say the same once more: there is one at a time.
        logs.json().flatten_event(true).with_span_list(false).try_init().ok()
    };
    Ok(())
}
