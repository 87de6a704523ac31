//! Logs: to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::json::JsonLines;
use crate::config::{Config, LogFormat};

/// Filter for libraries whose logs are too verbose.
const QUIET: &str = "hickory_proto=warn,hickory_net=warn,hickory_resolver=warn,sqlx=warn,hyper=warn,h2=warn,rustls=warn,reqwest=warn";

/// Starts logging; the error says what is wrong with `log.level`.
pub(super) fn start(config: &Config) -> Result<(), String> {
    let filter: Targets = format!("{QUIET},{}", config.log_level)
        .parse()
        .map_err(|error| format!("log.level = {:?}: {error}", config.log_level))?;
    let text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    // When standard error is closed, reporting that there would panic.
    let lines = fmt::layer::<Registry>().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if text { lines.boxed() } else { lines.json().event_format(JsonLines).boxed() };
    // A second start, as tests may make it, keeps the first subscriber.
    tracing_subscriber::registry().with(lines).with(filter).try_init().ok();
    Ok(())
}
