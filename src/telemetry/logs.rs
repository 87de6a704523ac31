//! Logs: to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use super::json::JsonLines;
use super::text::TextLines;
use crate::config::{Config, LogFormat};

/// Filter for libraries whose logs are too verbose. sqlx warns of each connection that the database has ended; who needed
/// it says so.
const QUIET: &str = "hickory_proto=warn,hickory_net=warn,hickory_resolver=warn,sqlx=warn,sqlx_core::pool::connection=error,hyper=warn,h2=warn,rustls=warn,reqwest=warn";

/// What the filter stands upon.
type Lines = Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// The filter in use, which can be changed.
static FILTER: OnceLock<reload::Handle<Targets, Lines>> = OnceLock::new();

/// Starts logging; the error says what is wrong with `log.level`.
pub(super) fn start(config: &Config) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(parse(&config.log_level)?);
    let is_terminal = std::io::stderr().is_terminal();
    let text = match config.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => is_terminal,
    };
    // A file, or the journal, has no use for colours (no-color.org: nor have some people).
    let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let lines = fmt::layer::<Registry>().with_writer(std::io::stderr).with_ansi(is_coloured);
    // When standard error is closed, reporting that there would panic.
    let lines = lines.log_internal_errors(false);
    let lines = if text {
        lines.map_event_format(TextLines).boxed()
    } else {
        lines.json().event_format(JsonLines).boxed()
    };
    // A second start, as tests may make it, keeps the first subscriber.
    if tracing_subscriber::registry().with(lines).with(filter).try_init().is_ok() {
        FILTER.set(handle).ok();
    }
    Ok(())
}

/// Logs by another level from now on; the error says what is wrong with it.
pub(super) fn set_level(level: &str) -> Result<(), String> {
    let filter = parse(level)?;
    let Some(handle) = FILTER.get() else { return Ok(()) };
    handle.reload(filter).map_err(|error| error.to_string())
}

fn parse(level: &str) -> Result<Targets, String> {
    format!("{QUIET},{level}").parse().map_err(|error| format!("log.level = {level:?}: {error}"))
}
