//! The composition root: puts the service together, and runs it until it is told to stop.

mod auditing;

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{
    self, App, AppState, CallerLimits, LastUses, Metrics, MetricsSettings, NamespaceLimits,
    Refusals,
};
use crate::ca::{Authorities, Ca};
use crate::clock::{Clock, FollowingClock};
use crate::config::Config;
use crate::domain::access_rule::Rule;
use crate::domain::id::WorkerId;
use crate::hangup::Reread;
use crate::health::{Health, Subjects};
use crate::heavy::Pool;
use crate::oidc::Issuers;
use crate::outbound::{Allow, Guard, Sender, SenderSettings};
use crate::secret::{Sealer, Secret};
use crate::server::{self, Limits, RefusedCertificate, Server};
use crate::server_certificate::ServerCertificate;
use crate::solver::{SolverSettings, Solvers};
use crate::storage::{Db, SoleUse};
use crate::telemetry::trace::{self, Exporter};
use crate::worker::{self, Worker};
use crate::{bootstrap, hangup, shutdown, systemd};

/// Time for the last writes when the time for a stop is over.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// One part in so many of the descriptors is for connections to the API, over TLS and without it each.
const API_SHARE: usize = 4;

/// One in so many for those to the HTTP-01 responder. What is left is the database's and the workers'.
const RESPONDER_SHARE: usize = 8;

/// Connections to the metrics' own listener.
const SCRAPES: usize = 16;

/// A client that takes nothing of its answer for so long has gone, or wants to hold us.
const ANSWER_TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A service that is up.
pub struct Running {
    pub api: SocketAddr,
    /// The API over TLS.
    pub https: Option<SocketAddr>,
    pub responder: SocketAddr,
    /// Where the metrics are, if they have a listener of their own.
    pub metrics: Option<SocketAddr>,
    /// The admin API key, if this was the very first start and none was given.
    pub first_api_key: Option<Secret<String>>,
    db: Db,
    worker: Arc<Worker>,
    exporter: Exporter,
    /// Given up last, when nothing is under way any more.
    _sole_use: Option<SoleUse>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// Serves until SIGTERM or SIGINT, then finishes what is under way within `shutdown_timeout`.
///
/// Prints one line with the API's address to standard output when it is ready, and before it that of the API over TLS, and
/// on the very first start the admin API key. With SIGHUP the level of the log is taken from `reread`.
pub async fn run(config: Config, reread: Reread) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("signals cannot be handled")?;
    hangup::on_signal(reread).context("signals cannot be handled")?;
    let running = start(&config, stop.clone()).await?;
    if let Some(key) = &running.first_api_key {
        say(format_args!("admin API key, shown this once: {}", key.expose()));
    }
    if let Some(https) = running.https {
        say(format_args!("listening on https://{https}"));
    }
    say(format_args!("listening on http://{}", running.api));
    let (version, database) = (env!("CARGO_PKG_VERSION"), running.db.dialect());
    tracing::info!(version, database, api = %running.api, http01 = %running.responder, metrics = running.metrics.map(tracing::field::display), "ready");
    systemd::ready();
    stop.cancelled().await;
    let worker = Arc::clone(&running.worker);
    // Nothing is lost when it takes too long: the rows are given back, and taken up again.
    if let Ok(result) = tokio::time::timeout(config.shutdown_timeout, running.stopped()).await {
        result?;
    } else {
        tracing::warn!("some work did not finish in time; the next start takes it up");
        tokio::time::timeout(LEAVE_WITHIN, worker.leave()).await.ok();
    }
    tracing::info!("stopped");
    Ok(())
}

/// One line to standard output. Nobody there to read it is no reason to stop serving.
fn say(what: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "certwright: {what}") {
        tracing::warn!(%error, "standard output cannot be written to; if the first admin API key is lost, `bootstrap.api_key` sets another");
    }
}

/// Puts the service together and starts it; it runs until `stop` is cancelled.
pub async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Running> {
    let clock: Arc<dyn Clock> = Arc::new(FollowingClock::default());
    let db = bootstrap::database(config).await?;
    let sole_use = db.sole_use()?;
    if let Some(now) = db.clock().await? {
        clock.follow(now);
    }
    let sealer = Arc::new(bootstrap::master_key(config, &db).await?);
    bootstrap::authenticate_grants(&db, &sealer, clock.now()).await?;
    let outbound = sender(config)?.timed_by(Arc::clone(&clock));
    let solvers = solvers(config, &db, &clock, outbound.guard().clone()).await?;
    let authorities = Authorities::new(&clock, outbound.guard().clone());
    let listeners = listeners(config).await?;
    let https = https(config, &db, &sealer).await?;
    let first_api_key = bootstrap::first_api_key(&db, config, &*clock).await?;
    let settings = worker_settings(config, sole_use.as_ref(), &*clock)?;
    let exporter = trace::start(config, &settings.name, &clock).map_err(anyhow::Error::msg)?;
    let context = worker::Context {
        db: db.clone(),
        clock: Arc::clone(&clock),
        sealer: Arc::clone(&sealer),
        ca: Arc::new(authorities.with_timeout(config.acme_timeout)),
        solvers: Arc::new(solvers),
        outbound: outbound.clone(),
        settings,
        limits: worker_limits(config, &db, &clock),
        heavy: Pool::default(),
        pulse: Arc::default(),
        stop: stop.clone(),
    };
    let health = Health::new(subjects(&context));
    let preflight = preflight(&context);
    let worker = Worker::new(context);
    let state = AppState::from(App {
        db: db.clone(),
        clock,
        sealer,
        outbound,
        cluster_namespace: config.cluster_namespace.as_str().into(),
        tokens: Issuers::new(config.oidc_issuers.clone()).context("oidc.issuers")?,
        client_rules: client_rules(config),
        limits: caller_limits(config),
        trusted_proxies: config.trusted_proxies.clone(),
        cors_origins: config.cors_origins.as_slice().into(),
        refusals: Refusals::default(),
        last_uses: LastUses::default(),
        heavy: Pool::default(),
        metrics: metrics(config),
        health: health.clone(),
        account_key: Arc::new(account_key),
        preflight,
        shutdown: stop.clone(),
    });
    let (refused, refusals) = mpsc::channel(1);
    let servers = Servers::new(listeners, https, state.clone(), config, refused);
    let (api, responder) = (servers.api.address()?, servers.responder.address()?);
    let https = servers.https.as_ref().map(|(server, _)| server.address()).transpose()?;
    let metrics = servers.metrics.as_ref().map(Server::address).transpose()?;
    health.watch_listeners(servers.all().map(Server::accepting).collect());
    let mut tasks = servers.start(&stop);
    tasks.push(look_after(health, &stop));
    tasks.extend(Box::pin(auditing::start(state, refusals, &stop)).await?);
    tasks.push(spawn(&stop, work(Arc::clone(&worker))));
    Ok(Running {
        api,
        https,
        responder,
        metrics,
        first_api_key,
        db,
        worker,
        exporter,
        _sole_use: sole_use,
        tasks,
    })
}

fn account_key() -> Result<Secret<Vec<u8>>, api::AccountKeyError> {
    Ca::generate_account_key().map_err(|failure| failure.to_string().into())
}

/// Works, once nothing is paused.
async fn work(worker: Arc<Worker>) -> anyhow::Result<()> {
    worker.until_resumed().await;
    tokio::join!(Arc::clone(&worker).run(), worker.run_deliveries());
    Ok(())
}

/// Everything that is listened on, with what answers there.
struct Servers {
    api: Server,
    https: Option<(Server, ServerCertificate)>,
    responder: Server,
    metrics: Option<Server>,
}

impl Servers {
    fn new(
        listeners: Listeners,
        https: Option<(TcpListener, ServerCertificate)>,
        state: AppState,
        config: &Config,
        refused: mpsc::Sender<RefusedCertificate>,
    ) -> Self {
        let responder = api::responder(state.db.clone());
        let metrics = listeners.metrics.map(|it| metrics_server(it, state.clone(), config));
        let most = limits(config, server::share(config.http_connections, API_SHARE));
        let router = api::router(state);
        let https = https.map(|(listener, certificate)| {
            let server = Server::new("https.listen", listener, router.clone(), most);
            (server.over(certificate.tls()).telling(refused), certificate)
        });
        let api = Server::new("http.listen", listeners.api, router, most);
        let most = limits(config, server::share(config.http01_connections, RESPONDER_SHARE));
        let responder = Server::new("http01.listen", listeners.responder, responder, most);
        Self { api, https, responder, metrics }
    }

    fn all(&self) -> impl Iterator<Item = &Server> {
        let https = self.https.iter().map(|(server, _)| server);
        [&self.api, &self.responder].into_iter().chain(https).chain(&self.metrics)
    }

    fn start(self, stop: &CancellationToken) -> Vec<JoinHandle<anyhow::Result<()>>> {
        let mut tasks = vec![serve(self.api, stop), serve(self.responder, stop)];
        tasks.extend(self.metrics.map(|server| serve(server, stop)));
        if let Some((server, certificate)) = self.https {
            tasks.push(serve(server, stop));
            let stopped = stop.clone();
            tasks.push(spawn(stop, async {
                certificate.follow(stopped).await;
                Ok(())
            }));
        }
        tasks
    }
}

impl Running {
    /// Waits until everything has come to its end.
    pub async fn stopped(self) -> anyhow::Result<()> {
        for task in self.tasks {
            task.await??;
        }
        self.worker.leave().await;
        self.exporter.flush().await;
        self.db.close().await;
        Ok(())
    }
}

/// The sender for webhooks.
pub fn sender(config: &Config) -> anyhow::Result<Sender> {
    let settings = SenderSettings {
        allow_http: config.outbound_allow_http,
        ports: config.outbound_ports.clone(),
    };
    let allow = Allow::parse(&config.outbound_allow).context("outbound.allow")?;
    Ok(Sender::new(Guard::asking(&config.nameservers, allow)?, settings)?)
}

/// The solvers, with the way that they share.
pub async fn solvers(
    config: &Config,
    db: &Db,
    clock: &Arc<dyn Clock>,
    guard: Guard,
) -> anyhow::Result<Solvers> {
    Ok(Solvers::new(SolverSettings {
        clock: Arc::clone(clock),
        installation: bootstrap::installation_id(db).await?,
        nameservers: config.nameservers.clone(),
        authority_port: config.authority_port,
        self_check_port: config.self_check_port,
        guard,
    })?)
}

/// The listener of the API over TLS and what it shows, where it is wanted.
async fn https(
    config: &Config,
    db: &Db,
    sealer: &Arc<Sealer>,
) -> anyhow::Result<Option<(TcpListener, ServerCertificate)>> {
    let Some(https) = &config.https else { return Ok(None) };
    let listener = listen(https.listen, "https.listen").await?;
    let certificate = ServerCertificate::open(https, db, sealer).await.context("https.listen")?;
    Ok(Some((listener, certificate)))
}

fn worker_limits(config: &Config, db: &Db, clock: &Arc<dyn Clock>) -> worker::Limits {
    let quota = worker::Quota::new(config.worker_per_issuer, config.worker_per_namespace);
    let new_orders = worker::NewOrders {
        start: config.worker_new_orders_start,
        ceiling: config.worker_new_orders_ceiling,
    };
    worker::Limits::new(db, clock, quota, new_orders)
}

/// Warnings for those who apply manifests.
fn preflight(worker: &worker::Context) -> api::Preflight {
    let (ca, solvers) = (Arc::clone(&worker.ca), Arc::clone(&worker.solvers));
    let preflight = worker::Preflight { ca, solvers, clock: Arc::clone(&worker.clock) };
    let preflight = Arc::new(preflight);
    Arc::new(move |subject| {
        let preflight = Arc::clone(&preflight);
        Box::pin(async move {
            let api::PreflightSubject { issuer, namespace, labels, names } = &subject;
            preflight.warnings(&worker::Subject { issuer, namespace, labels, names }).await
        })
    })
}

/// What this instance needs.
fn subjects(worker: &worker::Context) -> Subjects {
    Subjects {
        db: worker.db.clone(),
        clock: Arc::clone(&worker.clock),
        sealer: Arc::clone(&worker.sealer),
        pulse: Arc::clone(&worker.pulse),
        lease: worker.settings.lease,
        authorities: Arc::clone(&worker.ca),
    }
}

/// Looks whether this instance can work, also while nobody asks.
fn look_after(health: Health, stop: &CancellationToken) -> JoinHandle<anyhow::Result<()>> {
    let stopped = stop.clone();
    spawn(stop, async move {
        health.run(stopped).await;
        Ok(())
    })
}

/// The rules for client certificates; none where they are no way in.
fn client_rules(config: &Config) -> Arc<[Rule]> {
    let client_auth = config.https.as_ref().and_then(|https| https.client_auth.as_ref());
    client_auth.map(|it| it.rules.as_slice()).unwrap_or_default().into()
}

fn worker_settings(
    config: &Config,
    sole_use: Option<&SoleUse>,
    clock: &dyn Clock,
) -> anyhow::Result<worker::Settings> {
    Ok(worker::Settings {
        name: format!("pid {} {}", std::process::id(), WorkerId::generate(clock.now())),
        shared: sole_use.is_none(),
        alone: sole_use.is_some_and(SoleUse::is_certain),
        lease: config.worker_lease,
        sweep_interval: config.sweep_interval,
        concurrency: config.worker_concurrency,
        cluster_namespace: config.cluster_namespace.clone(),
        delivery_concurrency: config.webhooks_concurrency,
        delivery_retention: config.webhooks_retention.try_into()?,
        dead_delivery_retention: config.webhooks_dead_retention.try_into()?,
        approval_timeout: config.approval_timeout.try_into()?,
        event_retention: config.event_retention.try_into()?,
        order_retention: config.order_retention.try_into()?,
    })
}

/// The addresses that are listened on.
struct Listeners {
    api: TcpListener,
    responder: TcpListener,
    metrics: Option<TcpListener>,
}

async fn listeners(config: &Config) -> anyhow::Result<Listeners> {
    Ok(Listeners {
        api: listen(config.http_listen, "http.listen").await?,
        responder: listen(config.http01_listen, "http01.listen").await?,
        metrics: match config.metrics.listen.filter(|_| config.metrics.enabled) {
            Some(address) => Some(listen(address, "metrics.listen").await?),
            None => None,
        },
    })
}

fn metrics(config: &Config) -> Metrics {
    Metrics::new(MetricsSettings {
        on_api: config.metrics.enabled && config.metrics.listen.is_none(),
        certificates: config.metrics.certificates,
        ..MetricsSettings::default()
    })
}

fn metrics_server(listener: TcpListener, state: AppState, config: &Config) -> Server {
    let limits = limits(config, SCRAPES);
    Server::new("metrics.listen", listener, api::metrics_alone(state), limits)
}

fn caller_limits(config: &Config) -> CallerLimits {
    let burst = NonZeroU32::new(config.requests_burst);
    let rate = |quota| NonZeroU32::new(quota).zip(burst);
    let limits = CallerLimits::new(
        NonZeroU32::new(config.failed_authentications),
        rate(config.requests_per_second),
    );
    let limits = limits.from_address(rate(config.requests_per_second_of_address));
    let [streams, waits] = [config.event_streams, config.waits].map(NonZeroU32::new);
    limits.holding(streams, waits).within(NamespaceLimits {
        certificates: NonZeroU32::new(config.certificates_per_namespace),
        open_orders: NonZeroU32::new(config.open_orders_per_namespace),
    })
}

async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is it in use? `{setting}` chooses another address")
    })
}

fn limits(config: &Config, connections: usize) -> Limits {
    Limits {
        connections,
        head: config.header_timeout,
        idle: config.idle_timeout,
        untaken: ANSWER_TAKEN_WITHIN,
    }
}

fn serve(server: Server, stop: &CancellationToken) -> JoinHandle<anyhow::Result<()>> {
    let stopped = stop.clone();
    spawn(stop, async move {
        server.run(stopped).await;
        Ok(())
    })
}

/// A part without which the rest is of no use: when it ends, by itself or in a panic, all stop.
fn spawn(
    stop: &CancellationToken,
    part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> JoinHandle<anyhow::Result<()>> {
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        let ended = part.await;
        drop(guard);
        ended
    })
}
