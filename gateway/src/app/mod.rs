//! Puts the parts together, runs them, and takes them apart again.
//!
//! May use: everything. Deliberately absent: logic.

mod keys;
mod ports;
mod salvage;
mod shutdown;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shared::{
    broker::Inbound,
    publisher::Publisher,
    telemetry::{self, MetricsHandle},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{keys::Keys, ports::Ports};
use crate::{
    action::{self, Limits, MembershipCache, Node},
    announcement::Announcement,
    config::{Config, LogFormat, Mode},
    connection::{Emulations, Lines},
    feed::{Feed, FeedConfig},
    frame::FrameLimits,
    heartbeat::Heartbeat,
    http::{Health, Origins, Routes, health_router, public_router},
    limits::{self, Limiter},
    metrics::Metrics,
    outbox::{OutboxContext, OutboxLimits, OutboxMetrics},
    pending::Pending,
    revocation::{Revocable, UNREAD_MAX},
    roster::Roster,
    socket::{self, AcceptLimits},
};

/// How much longer than a token a revocation lives, in seconds: clocks differ, and an expired token has its grace.
const REVOCATION_MARGIN_SECONDS: u64 = 600;

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// When it cannot start: a port is taken, Redis or Postgres do not answer, or a file cannot be opened.
pub async fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init_tracing(config.log_format == LogFormat::Json);
    let numbers = telemetry::install_metrics().context("cannot count")?;
    let public = listen(config.listen).await?;
    let health = listen(config.health_listen).await?;
    let app = App::build(config, numbers).await?;
    app.greet(&public, &health)?;
    app.serve(public, health).await;
    app.stop().await;
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// A gateway in one piece.
struct App {
    config: Config,
    numbers: MetricsHandle,
    ports: Ports,
    keys: Keys,
    routes: Routes,
    health: Arc<Health>,
    node: Arc<Node>,
    heartbeat: Arc<Heartbeat>,
    /// Tasks of connections and requests, which end by themselves once their clients are gone.
    connections: TaskTracker,
    /// Tasks that run as long as the process.
    background: TaskTracker,
    /// Stops accepting.
    closing: CancellationToken,
    /// Stops everything in the background.
    stopping: CancellationToken,
}

impl App {
    async fn build(config: Config, numbers: MetricsHandle) -> anyhow::Result<Self> {
        let (connections, background) = (TaskTracker::new(), TaskTracker::new());
        let (closing, stopping) = (CancellationToken::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::register());
        limits::describe();
        let keys = Keys::load(&config)?;
        let ports = Ports::open(&config, revocation_life(&config)).await?;
        let installation = ports.store.installation().await.context("the store does not answer")?;
        let feed =
            Feed::start(&feed_config(&config), &ports.broker, &ports.store, &metrics, &background, &stopping);
        let pending = Arc::new(Pending::new(ports.broker.partitions(), Arc::clone(&metrics)));
        let roster = Arc::new(Roster::new(
            Arc::clone(&ports.presence),
            Arc::clone(&ports.broker),
            connections.clone(),
        ));
        let node = Arc::new(Node {
            id: config.node.clone(),
            installation,
            ack_mode: config.ack_mode,
            limits: asks(&config),
            limiter: Arc::new(Limiter::new(config.limits.clone(), Arc::clone(&ports.rates))),
            tokens: keys.verifier(),
            revocable: revocable(&config, &ports, &metrics).await?,
            broker: Arc::clone(&ports.broker),
            store: Arc::clone(&ports.store),
            presence: Arc::clone(&ports.presence),
            publisher: Publisher::new(Arc::clone(&ports.broker), Arc::clone(&ports.store)),
            feed: Arc::clone(&feed),
            pending,
            roster,
            kinds: Arc::new(config.kinds.clone()),
            memberships: Arc::new(MembershipCache::default()),
            metrics: Arc::clone(&metrics),
        });
        let heartbeat = Arc::new(Heartbeat::new(metrics));
        let outbox_limits = OutboxLimits { bytes_max: config.outbox_bytes_max, ..OutboxLimits::default() };
        let outboxes = OutboxContext::new(outbox_limits, OutboxMetrics::register(), connections.clone());
        let lines = Lines {
            node: Arc::clone(&node),
            heartbeat: Arc::clone(&heartbeat),
            outboxes,
            tracker: connections.clone(),
            closing: closing.clone(),
        };
        let routes = Routes {
            lines,
            emulations: Arc::new(Emulations::default()),
            frames: FrameLimits::default(),
            origins: Arc::new(Origins::new(&config.allowed_origins).context("allowed_origins")?),
            keys: Arc::new(config.api_keys.clone()),
            hsts_seconds: config.hsts_seconds,
            mint: keys.mint(),
        };
        let health = Health::new(feed);
        Ok(Self {
            config,
            numbers,
            ports,
            keys,
            routes,
            health,
            node,
            heartbeat,
            connections,
            background,
            closing,
            stopping,
        })
    }

    /// Runs until a signal to stop comes.
    async fn serve(&self, public: TcpListener, health: TcpListener) {
        self.start_background();
        let (numbers, accept) = (self.numbers.clone(), AcceptLimits::default());
        let health_routes = health_router(Arc::clone(&self.health), move || numbers.render());
        // Health is served until the very end, so that whoever asks sees the node drain.
        let watched =
            socket::serve(health, health_routes, accept, self.stopping.clone(), self.background.clone());
        self.background.spawn(watched);
        // Behind a proxy that is trusted, all connections have the proxy's address.
        let connections_per_address_max = if self.node.limiter.trusted_proxies() == 0 {
            accept.connections_per_address_max
        } else {
            usize::MAX
        };
        let accept = AcceptLimits { connections_per_address_max, ..accept };
        let router = public_router(self.routes.clone());
        let served = socket::serve(public, router, accept, self.closing.clone(), self.connections.clone());
        self.connections.spawn(served);
        shutdown::signal().await;
    }

    fn start_background(&self) {
        self.ports.broker.start(&self.node.id, self.node.feed.sink(self.inbound()));
        let (roster, heartbeat, numbers) =
            (Arc::clone(&self.node.roster), Arc::clone(&self.heartbeat), self.numbers.clone());
        self.spawn(async move { roster.run().await });
        self.spawn(async move { heartbeat.run().await });
        let (revocable, heartbeat) = (Arc::clone(&self.node.revocable), Arc::clone(&self.heartbeat));
        self.spawn(async move { revocable.follow(&heartbeat).await });
        let tokens = Arc::clone(&self.node.tokens);
        self.spawn(async move { tokens.keep_fresh().await });
        self.spawn(async move { numbers.upkeep().await });
        self.spawn(salvage::check_stored(Arc::clone(&self.node)));
        let node = Arc::clone(&self.node);
        self.spawn(async move { action::watch_members(&node).await });
        self.ports.start_persister(&self.background);
    }

    /// Runs a task until the process stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.background.spawn(async move { stopping.run_until_cancelled(task).await });
    }

    /// What is done with everything that arrives and is no conversation's.
    fn inbound(&self) -> impl Fn(Inbound) + Send + Sync + 'static {
        let (node, emulations) = (Arc::clone(&self.node), Arc::clone(&self.routes.emulations));
        let tasks = self.background.clone();
        move |inbound| match inbound {
            Inbound::Stored(partition, upto) => node.pending.stored(partition, upto),
            Inbound::Salvage => {
                tasks.spawn(salvage::hand_in(Arc::clone(&node)));
            }
            Inbound::Announcement(bytes) => match Announcement::decode(&bytes) {
                Some(Announcement::MembersChanged(change)) => {
                    let node = Arc::clone(&node);
                    tasks.spawn(async move { action::members_changed(&node, &change).await });
                }
                Some(Announcement::Emulation { session, data }) => {
                    emulations.hand_over(&session, data.into());
                }
                None => tracing::warn!("an announcement of another version was ignored"),
            },
            // Announcements and calls may have been missed while the connection was down.
            Inbound::Connected => {
                node.memberships.clear();
                tasks.spawn(salvage::hand_in(Arc::clone(&node)));
            }
            _ => {}
        }
    }

    /// Says where it listens and how to begin.
    #[expect(clippy::print_stdout, reason = "this is what the person who starts it is waiting for")]
    fn greet(&self, public: &TcpListener, health: &TcpListener) -> anyhow::Result<()> {
        let (public, health) = (public.local_addr()?, health.local_addr()?);
        let mode = match &self.config.mode {
            Mode::Standalone => {
                format!("standalone, messages in {}", ports::database_file(&self.config).display())
            }
            Mode::Cluster { .. } => format!("cluster node {}", self.node.id),
        };
        println!("Starling {} ({mode})", env!("CARGO_PKG_VERSION"));
        println!("  clients   ws://{public}/connection/websocket");
        println!("  chat page http://{public}/chat");
        println!("  health    http://{health}/readyz  /healthz  /metrics");
        if self.keys.is_development() {
            println!("  token     curl 'http://{public}/dev/token?user=alice'");
            println!(
                "            (development key: anyone who reaches this port gets a token; set STARLING_TOKEN_HMAC_SECRET)"
            );
        } else {
            println!("  token     signed with one of the keys that are configured (claims: sub, exp)");
            tracing::warn!("a signing key is configured: /dev/token is off");
        }
        Ok(())
    }

    async fn stop(self) {
        self.health.drain();
        // Until balancers have noticed, new clients still come, and are served.
        tokio::time::sleep(Duration::from_secs(self.config.drain_delay_seconds)).await;
        self.node.limiter.drain();
        shutdown::send_away(&self.heartbeat, Duration::from_secs(self.config.drain_seconds)).await;
        self.closing.cancel();
        shutdown::wait_for_connections(&self.connections, &self.heartbeat).await;
        self.ports.stop_persister().await;
        self.stopping.cancel();
        self.ports.broker.close().await;
        shutdown::wait(&self.background, "background tasks").await;
        tracing::info!("stopped");
    }
}

fn feed_config(config: &Config) -> FeedConfig {
    FeedConfig {
        shards: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        linger: Duration::from_secs(config.linger_seconds),
        position_check: Duration::from_secs(config.position_check_seconds),
    }
}

/// Knows already what is revoked.
async fn revocable(config: &Config, ports: &Ports, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<Revocable>> {
    let (port, life) = (Arc::clone(&ports.revocations), revocation_life(config));
    let revocable = Revocable::new(port, life, UNREAD_MAX, Arc::clone(metrics));
    revocable.read_all().await.context("revocations cannot be read")?;
    Ok(Arc::new(revocable))
}

/// How long a revocation is in force: as long as any token that it could be about.
fn revocation_life(config: &Config) -> Duration {
    Duration::from_secs(config.token_rules.lifetime_seconds_max.saturating_add(REVOCATION_MARGIN_SECONDS))
}

/// How much one client may ask for.
fn asks(config: &Config) -> Limits {
    Limits {
        subscriptions_per_connection: config.subscriptions_max,
        catchup_messages: config.catchup_messages_max,
        catchup_bytes: config.catchup_bytes_max,
        body_bytes: config.body_bytes_max,
    }
}
