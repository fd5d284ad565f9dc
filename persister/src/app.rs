//! The binary: connects, serves health and metrics, and persists until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use shared::{
    broker::redis::{RedisBroker, RedisConfig},
    log::{Log, redis::RedisLog},
    publisher::Publisher,
    store::{Store, StoreError, postgres::PostgresStore},
    telemetry::{self, MetricsHandle},
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    config::Config,
    consumer::{self, Parts},
    metrics,
};

/// Longest wait of /readyz for Redis and Postgres together, in seconds.
const READY_SECONDS_MAX: u64 = 2;
/// The exit code after a second signal, as a shell gives it to a program that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// What /readyz asks; empty until both were reached for the first time.
type Ports = Option<(Arc<dyn Log>, Arc<dyn Store>)>;

/// Runs the persister until SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// When the address cannot be listened on, or the database is none that this program can use.
pub async fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init_tracing(config.log_format);
    let prometheus = telemetry::install_metrics().context("metrics")?;
    metrics::describe();
    shared::broker::redis::metric::describe();
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(shutdown.clone()));
    let listener = TcpListener::bind(config.health_listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.health_listen))?;
    tracing::info!(name = config.persister.name, health = %listener.local_addr()?, "persister starts");
    let (ports, asked) = watch::channel(None);
    let health = tokio::spawn(serve_health(listener, prometheus.clone(), asked));
    let upkeep = tokio::spawn(async move { prometheus.upkeep().await });

    let connected = tokio::select! {
        parts = connect(&config) => Some(parts?),
        () = shutdown.cancelled() => None,
    };
    if let Some(parts) = connected {
        ports.send_replace(Some((Arc::clone(&parts.log), Arc::clone(&parts.store))));
        consumer::run(parts, shutdown).await;
    }
    tracing::info!("persister stops");
    for task in [signals, health, upkeep] {
        task.abort();
    }
    Ok(())
}

/// Tries until Postgres and Redis are there: at the start of a whole cluster they may come later.
async fn connect(config: &Config) -> anyhow::Result<Parts> {
    let mut backoff = Backoff::default();
    loop {
        match try_connect(config).await {
            Ok(parts) => return Ok(parts),
            // No later try can turn out otherwise.
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Rejected(_))) => return Err(error),
            Err(error) => tracing::warn!("cannot start yet: {error:#}"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn try_connect(config: &Config) -> anyhow::Result<Parts> {
    let store: Arc<dyn Store> =
        Arc::new(PostgresStore::connect(&config.database_url).await.context("DATABASE_URL")?);
    let partitions = store.fix_partitions(config.partitions).await?;
    if partitions != config.partitions {
        tracing::warn!(
            wanted = config.partitions,
            partitions,
            "this installation was made with another number of partitions, and keeps it"
        );
    }
    let redis = RedisConfig { partitions, ..RedisConfig::new(&config.redis_url) };
    let log = Arc::new(RedisLog::new(redis.clone()).context("REDIS_URL")?);
    let broker = Arc::new(RedisBroker::connect(redis).await.context("REDIS_URL")?);
    let publisher = Arc::new(Publisher::new(broker, Arc::clone(&store)));
    Ok(Parts { log, store, publisher, config: config.persister.clone() })
}

/// Watches for signals from the call on, and not only once it is awaited: whoever sees this process answer may tell it to stop.
fn stop_on_signal(shutdown: CancellationToken) -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(terminate), Ok(interrupt)) = signals else {
            return tracing::error!("cannot listen for signals: only a kill stops this process");
        };
        stop_when_told(terminate, interrupt, shutdown).await;
    }
}

async fn stop_when_told(mut terminate: Signal, mut interrupt: Signal, shutdown: CancellationToken) {
    for is_second in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_second {
            tracing::warn!("a second signal: ends at once");
            std::process::exit(EXIT_INTERRUPTED);
        }
        tracing::info!("a signal: finishes its batch and stops");
        shutdown.cancel();
    }
}

async fn serve_health(listener: TcpListener, prometheus: MetricsHandle, ports: watch::Receiver<Ports>) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness).with_state(ports))
        .route("/metrics", get(async move || prometheus.render()));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn readiness(State(ports): State<watch::Receiver<Ports>>) -> (StatusCode, &'static str) {
    let ports = ports.borrow().clone();
    let Some((log, store)) = ports else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n");
    };
    let asked = async { (store.ping().await.is_ok(), log.backlog().await.is_ok()) };
    match tokio::time::timeout(Duration::from_secs(READY_SECONDS_MAX), asked).await {
        Ok((true, true)) => (StatusCode::OK, "ready\n"),
        Ok((false, _)) => (StatusCode::SERVICE_UNAVAILABLE, "no answer from Postgres\n"),
        Ok((true, false)) => (StatusCode::SERVICE_UNAVAILABLE, "no answer from Redis\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n"),
    }
}
