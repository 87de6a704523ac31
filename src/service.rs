//! The composition root: puts the service together, and runs it until it is told to stop.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{self, AppState};
use crate::ca::Ca;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::outbound::Allow;
use crate::secret::Sealer;
use crate::solver::{SolverSettings, Solvers};
use crate::storage::Db;
use crate::worker::{self, Worker};
use crate::{bootstrap, shutdown};

/// Serves until SIGTERM or SIGINT, then finishes what is under way within `shutdown_timeout`.
///
/// Prints one line with the API's address to standard output when it is ready, and before it, on the
/// very first start, the admin API key.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stop = shutdown::on_signal().context("signals cannot be handled")?;
    let db = bootstrap::database(&config).await?;
    let sealer = Arc::new(bootstrap::sealer(&config, &db).await?);
    let solvers = solvers(&config, &db, &clock).await?;
    let api_listener = listen(config.http_listen, "http.listen").await?;
    let responder_listener = listen(config.http01_listen, "http01.listen").await?;
    if let Some(key) = bootstrap::first_api_key(&config, &db, &*clock).await? {
        println!("certwright: admin API key, shown this once: {}", key.expose());
    }

    let worker = Arc::new(Worker {
        db: db.clone(),
        clock: Arc::clone(&clock),
        sealer: Arc::clone(&sealer),
        ca: Arc::new(Ca::new(Arc::clone(&clock))),
        solvers: Arc::new(solvers),
        settings: worker::Settings {
            name: format!("pid {}", std::process::id()),
            concurrency: config.worker_concurrency,
            cluster_namespace: config.cluster_namespace.clone(),
        },
    });
    let state = app_state(&config, &db, &clock, &sealer, stop.clone());
    let address = api_listener.local_addr()?;
    let api = serve(api_listener, api::router(state), &stop);
    let responder = serve(responder_listener, api::responder(db.clone()), &stop);
    let work = tokio::spawn(worker.run(stop.clone()));

    println!("certwright: listening on http://{address}");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), database = db.dialect(), %address, "ready");

    stop.cancelled().await;
    let graceful = async { tokio::join!(api, responder, work) };
    match tokio::time::timeout(config.shutdown_timeout, graceful).await {
        Ok((api, responder, work)) => {
            api??;
            responder??;
            work?;
        }
        // Nothing is lost: leases run out, and the rows are taken up again.
        Err(_) => {
            tracing::warn!("some work did not finish in time; it is taken up at the next start")
        }
    }
    db.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn app_state(
    config: &Config,
    db: &Db,
    clock: &Arc<dyn Clock>,
    sealer: &Arc<Sealer>,
    shutdown: CancellationToken,
) -> AppState {
    AppState {
        db: db.clone(),
        clock: Arc::clone(clock),
        sealer: Arc::clone(sealer),
        cluster_namespace: config.cluster_namespace.as_str().into(),
        account_key: Arc::new(|| {
            Ca::generate_account_key().map_err(|failure| failure.to_string().into())
        }),
        shutdown,
    }
}

async fn solvers(config: &Config, db: &Db, clock: &Arc<dyn Clock>) -> anyhow::Result<Solvers> {
    Ok(Solvers::new(SolverSettings {
        clock: Arc::clone(clock),
        installation: bootstrap::installation(db).await?,
        nameservers: config.nameservers.clone(),
        authority_port: config.authority_port,
        self_check_port: config.self_check_port,
        outbound_allow: Allow::parse(&config.outbound_allow).context("outbound.allow")?,
    })?)
}

async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is it in use? `{setting}` chooses another address")
    })
}

fn serve(
    listener: TcpListener,
    router: axum::Router,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<std::io::Result<()>> {
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(stopped).into_future())
}
