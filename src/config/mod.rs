//! Settings: defaults, then a TOML file, then the environment, then flags.
//!
//! [`SETTINGS`] describes every one; parsing, `certwright config` and `docs/configuration.md` all
//! follow from it. A key that nobody knows, or a value that makes no sense, stops the start with a
//! message that names it and where it came from.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::domain::forwarded::{NotedIn, TrustedProxies};
use crate::domain::token_issuer::TokenIssuer;
use crate::secret::Secret;

mod access_rules;
mod https;
mod oidc;
mod otlp;
mod settings;
mod show;
mod sources;
mod transit;

pub use https::{CertificateSource, ClientAuth, Https};
pub use otlp::Otlp;
pub use settings::{SETTINGS, Setting};
pub use show::{markdown, toml};
pub use sources::{Origin, Values, read};
pub use transit::{Transit, TransitLogin};

/// Everything that can be set, parsed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Default folder of the database and the master key.
    pub data_dir: PathBuf,
    /// `sqlite://…` or `postgres://…`; may hold a password.
    pub database_url: Secret<String>,
    pub http_listen: SocketAddr,
    /// The API over TLS, where it is wanted.
    pub https: Option<Https>,
    pub http01_listen: SocketAddr,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    /// Connections to the API at once, if the descriptors allow for them.
    pub http_connections: usize,
    pub http01_connections: usize,
    /// The port that the HTTP-01 self-check asks.
    pub self_check_port: u16,
    /// Resolvers; the system's where empty.
    pub nameservers: Vec<SocketAddr>,
    pub authority_port: u16,
    pub bootstrap_api_key: Option<Secret<String>>,
    /// Whether a configured key that was deleted is to be there again.
    pub bootstrap_restore: bool,
    /// Proxies whose word for a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// Origins whose web pages may ask the API, as browsers write them.
    pub cors_origins: Vec<String>,
    pub oidc_issuers: Vec<TokenIssuer>,
    pub master_key: Option<Secret<String>>,
    pub master_key_file: Option<PathBuf>,
    /// Wraps the master key.
    pub transit: Option<Transit>,
    /// Private hosts and networks that may be reached all the same.
    pub outbound_allow: Vec<String>,
    pub acme_timeout: Duration,
    /// Whether webhooks may use `http`.
    pub outbound_allow_http: bool,
    pub outbound_ports: BTreeSet<u16>,
    pub event_retention: Duration,
    /// Orders that are over, with what belongs to them.
    pub order_retention: Duration,
    pub approval_timeout: Duration,
    /// Rows that are worked on at the same time.
    pub worker_concurrency: usize,
    /// Orders of one issuer among them, at most.
    pub worker_per_issuer: usize,
    /// Rows of one namespace among them, at most.
    pub worker_per_namespace: usize,
    /// New orders of an account that are under way at once, before anything is known of the CA.
    pub worker_new_orders_start: usize,
    /// The same, at most.
    pub worker_new_orders_ceiling: usize,
    /// A replica that has been silent for so long is taken for dead.
    pub worker_lease: Duration,
    /// Time from one look for forgotten DNS records to the next.
    pub sweep_interval: Duration,
    /// Namespace of the secrets of `ClusterIssuer`s.
    pub cluster_namespace: String,
    /// Webhooks that are delivered to at the same time.
    pub webhooks_concurrency: usize,
    pub webhooks_retention: Duration,
    /// Deliveries that failed for good.
    pub webhooks_dead_retention: Duration,
    /// Of one address in a minute; 0 is no limit.
    pub failed_authentications: u32,
    /// Of one API key or subject of tokens; 0 is no limit.
    pub requests_per_second: u32,
    /// Of one address; 0 is no limit.
    pub requests_per_second_of_address: u32,
    /// Requests that may come at once all the same.
    pub requests_burst: u32,
    /// 0 is no limit, here and below.
    pub certificates_per_namespace: u32,
    /// Certificates of one namespace that are being issued.
    pub open_orders_per_namespace: u32,
    /// Of one API key or subject of tokens.
    pub event_streams: u32,
    /// Requests of such a one that wait.
    pub waits: u32,
    pub metrics: Metrics,
    /// Traces are sent there, if anywhere.
    pub otlp: Option<Otlp>,
    /// A `tracing` filter.
    pub log_level: String,
    pub log_format: LogFormat,
    pub shutdown_timeout: Duration,
}

/// A retry may be this far away, and somebody want to see what it follows.
const SHORTEST_RETENTION: Duration = Duration::from_hours(1);
const LONGEST_RETENTION: Duration = Duration::from_hours(24 * 36_500);

/// With clients that say nothing.
const PATIENCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `text` on a terminal, else `json`.
    Auto,
    Text,
    Json,
}

/// The metrics, and where they are.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub enabled: bool,
    /// Their own listener; without it they are on the API's.
    pub listen: Option<SocketAddr>,
    /// Certificates that are listed by name.
    pub certificates: u32,
}

impl Metrics {
    fn parse(values: &Values) -> Result<Self, ConfigError> {
        let listen = values.given("metrics.listen").map(|_| values.address("metrics.listen"));
        Ok(Self {
            enabled: values.switch("metrics.enabled")?,
            listen: listen.transpose()?,
            certificates: values.number("metrics.certificates", 0..=1_000)?,
        })
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("the configuration file {file} cannot be used: {problem}")]
    File { file: String, problem: String },
    #[error("{origin}: there is no setting \"{key}\"; {}", hint(.nearest.as_deref()))]
    Unknown { key: String, origin: Origin, nearest: Option<String> },
    #[error("{origin}: {key} = {value}: {problem}")]
    Bad { key: &'static str, value: String, origin: Origin, problem: String },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => "`certwright config` lists them".to_owned(),
    }
}

impl Config {
    /// Parses what was read.
    pub fn parse(values: &Values) -> Result<Self, ConfigError> {
        let data_dir = PathBuf::from(values.text("data_dir"));
        let database_url = database_url(values, &data_dir)?;
        if values.given("master_key").is_some() && values.given("master_key_file").is_some() {
            return Err(
                values.bad("master_key", "`master_key_file` is given too; which one counts?")
            );
        }
        let log_format = match values.text("log.format").as_str() {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(values.bad("log.format", "expected auto, text or json")),
        };
        let acme_timeout = values.duration("acme.timeout")?;
        if acme_timeout.is_zero() || acme_timeout > Duration::from_secs(30) {
            return Err(values.bad("acme.timeout", "expected more than nothing and at most 30s"));
        }
        Ok(Self {
            data_dir,
            database_url: Secret::new(database_url),
            http_listen: https::plain_address(values)?,
            https: Https::parse(values)?,
            http01_listen: values.address("http01.listen")?,
            trusted_proxies: trusted_proxies(values)?,
            cors_origins: values.origins("http.cors_origins")?,
            header_timeout: values.duration_within("http.header_timeout", PATIENCE)?,
            idle_timeout: values.duration_within("http.idle_timeout", PATIENCE)?,
            http_connections: values.number("http.max_connections", 1..=100_000)?,
            http01_connections: values.number("http01.max_connections", 1..=100_000)?,
            self_check_port: values.number("http01.self_check_port", 1..=65_535)?,
            nameservers: values.nameservers("dns.nameservers")?,
            authority_port: values.number("dns.authority_port", 1..=65_535)?,
            bootstrap_api_key: values.given("bootstrap.api_key").map(Secret::new),
            bootstrap_restore: values.switch("bootstrap.restore")?,
            oidc_issuers: oidc::issuers(values)?,
            master_key: values.given("master_key").map(Secret::new),
            master_key_file: values.given("master_key_file").map(PathBuf::from),
            transit: Transit::parse(values)?,
            outbound_allow: values.list("outbound.allow"),
            acme_timeout,
            outbound_allow_http: values.switch("outbound.allow_http")?,
            outbound_ports: values.ports("outbound.ports")?,
            event_retention: retention(values, "events.retention", "30d")?,
            order_retention: retention(values, "orders.retention", "90d")?,
            approval_timeout: retention(values, "approval.timeout", "7d")?,
            worker_concurrency: values.number("worker.concurrency", 1..=10_000)?,
            worker_per_issuer: values.number("worker.per_issuer", 1..=10_000)?,
            worker_per_namespace: values.number("worker.per_namespace", 1..=10_000)?,
            worker_new_orders_start: values.number("worker.new_orders_start", 1..=1_000)?,
            worker_new_orders_ceiling: values.number("worker.new_orders_ceiling", 1..=1_000)?,
            worker_lease: values
                .duration_within("worker.lease", Duration::from_secs(1)..=Duration::from_mins(2))?,
            sweep_interval: values.duration_within(
                "dns.sweep_interval",
                Duration::from_secs(1)..=Duration::from_hours(24 * 7),
            )?,
            cluster_namespace: cluster_namespace(values)?,
            webhooks_concurrency: values.number("webhooks.concurrency", 1..=10_000)?,
            webhooks_retention: values.duration("webhooks.retention")?,
            webhooks_dead_retention: retention(values, "webhooks.dead_retention", "180d")?,
            failed_authentications: values
                .number("limits.failed_authentications", 0..=1_000_000)?,
            requests_per_second: values.number("limits.requests_per_second", 0..=1_000_000)?,
            requests_per_second_of_address: values
                .number("limits.requests_per_second_of_address", 0..=1_000_000)?,
            requests_burst: values.number("limits.requests_burst", 1..=1_000_000)?,
            certificates_per_namespace: values
                .number("limits.certificates_per_namespace", 0..=100_000_000)?,
            open_orders_per_namespace: values
                .number("limits.open_orders_per_namespace", 0..=1_000_000)?,
            event_streams: values.number("limits.event_streams", 0..=1_000_000)?,
            waits: values.number("limits.waits", 0..=1_000_000)?,
            metrics: Metrics::parse(values)?,
            otlp: Otlp::parse(values)?,
            log_level: values.text("log.level"),
            log_format,
            shutdown_timeout: values.duration("shutdown_timeout")?,
        })
    }
}

/// One's own proxies, and the header that they write.
fn trusted_proxies(values: &Values) -> Result<TrustedProxies, ConfigError> {
    let (key, given) = ("http.forwarded_header", values.text("http.forwarded_header"));
    let mut known = NotedIn::ALL.iter().filter(|one| one.as_str().eq_ignore_ascii_case(&given));
    let noted_in = known.next().copied();
    let noted_in =
        noted_in.ok_or_else(|| values.bad(key, "expected X-Forwarded-For or Forwarded"))?;
    Ok(TrustedProxies::new(values.networks("http.trusted_proxies")?, noted_in))
}

/// The namespace of the secrets of `ClusterIssuer`s.
fn cluster_namespace(values: &Values) -> Result<String, ConfigError> {
    let name = values.text("cluster_resource_namespace");
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name);
    }
    let expected = "expected 1 to 63 lower-case letters, digits and hyphens";
    Err(values.bad("cluster_resource_namespace", expected))
}

/// For how long something is kept.
fn retention(values: &Values, key: &'static str, example: &str) -> Result<Duration, ConfigError> {
    let duration = values.duration(key)?;
    if (SHORTEST_RETENTION..=LONGEST_RETENTION).contains(&duration) {
        return Ok(duration);
    }
    Err(values.bad(key, format!("expected 1h to 36500d, such as {example}")))
}

/// The configured database, or the one in `data_dir`.
fn database_url(values: &Values, data_dir: &Path) -> Result<String, ConfigError> {
    let url = values
        .given("database.url")
        .unwrap_or_else(|| format!("sqlite://{}", data_dir.join("certwright.db").display()));
    let kinds = ["sqlite:", "postgres:", "postgresql:"];
    if !kinds.iter().any(|kind| url.starts_with(kind)) {
        let expected = "expected sqlite://PATH or postgres://USER@HOST/NAME";
        return Err(values.bad("database.url", expected));
    }
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(values.bad("database.url", "expected a file: what is in memory is forgotten"));
    }
    Ok(url)
}
