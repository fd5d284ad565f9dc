//! Puts the parts together, runs them, and takes them apart again.
//!
//! May use: everything. Deliberately absent: logic.

mod ground;
mod keys;
mod ports;
mod salvage;
mod shutdown;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context;
use shared::{
    broker::Inbound,
    publisher::Publisher,
    telemetry::{self, MetricsHandle},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{ground::Ground, keys::Keys, ports::Ports};
use crate::{
    action::{self, Limits, MembershipCache, Node},
    announcement::Announcement,
    config::{Config, Mode},
    connection::{Emulations, Lines, socketio::Service},
    ephemeral::Ephemeral,
    feed::{Feed, FeedConfig},
    frame::FrameLimits,
    heartbeat::Heartbeat,
    http::{Health, Origins, Routes, health_router, public_router},
    limits::{self, Limiter, Turns},
    metrics::Metrics,
    online::OnlineUsers,
    outbox::{OutboxContext, OutboxLimits, OutboxMetrics},
    peers::{Peers, reachable},
    pending::Pending,
    roster::Roster,
    socket::{self, AcceptLimits},
    typing::Typists,
    unread::UnreadCounts,
};

/// Runs a gateway until it is told to stop. In a cluster it waits for Redis and Postgres, not ready, for as long as it takes.
///
/// # Errors
/// When it cannot start: a port is taken, a setting makes no sense, or a file cannot be opened.
pub async fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init_tracing(config.log_format);
    let mut told_to_stop = pin!(shutdown::signal());
    let numbers = telemetry::install_metrics().context("cannot count")?;
    let keys = Keys::load(&config)?;
    let metrics = Arc::new(Metrics::register());
    limits::describe();
    let tasks = Tasks::default();
    let health = Arc::new(Health::default());
    let health_address = tasks.watch(listen(config.health_listen)?, &health, numbers.clone())?;
    let ground = tokio::select! {
        ground = Ground::reach(&config, &metrics) => ground?,
        () = &mut told_to_stop => return Ok(()),
    };
    let public = listen(config.listen)?;
    let app = App::build(config, keys, metrics, ground, health, tasks)?;
    let advertised = app.config.advertise.unwrap_or(reachable(public.local_addr()?));
    app.routes.peers.listen_at(advertised);
    app.greet(public.local_addr()?, health_address);
    app.start(public, &numbers);
    told_to_stop.await;
    app.stop().await;
    Ok(())
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    socket::listen(address).with_context(|| format!("cannot listen on {address}"))
}

/// Who runs, and how it is stopped.
#[derive(Default)]
struct Tasks {
    /// Tasks of connections and requests, which end by themselves once their clients are gone.
    connections: TaskTracker,
    /// Tasks that run as long as the process.
    background: TaskTracker,
    /// Stops accepting.
    closing: CancellationToken,
    /// Stops everything in the background.
    stopping: CancellationToken,
}

impl Tasks {
    /// Runs a task until the process stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.background.spawn(async move { stopping.run_until_cancelled(task).await });
    }

    /// Serves health and metrics from now until the very end, so that whoever asks sees the node come and go.
    fn watch(
        &self,
        listener: TcpListener,
        health: &Arc<Health>,
        numbers: MetricsHandle,
    ) -> anyhow::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let routes = health_router(Arc::clone(health), move || numbers.render());
        let (stopping, background) = (self.stopping.clone(), self.background.clone());
        let (allowed, turns) = (AcceptLimits::default(), Turns::default());
        let served = socket::serve(listener, routes, allowed, turns, stopping, background);
        self.background.spawn(served);
        Ok(address)
    }
}

/// A gateway in one piece.
struct App {
    config: Config,
    ports: Ports,
    keys: Keys,
    routes: Routes,
    health: Arc<Health>,
    node: Arc<Node>,
    heartbeat: Arc<Heartbeat>,
    tasks: Tasks,
}

impl App {
    fn build(
        config: Config,
        keys: Keys,
        metrics: Arc<Metrics>,
        ground: Ground,
        health: Arc<Health>,
        tasks: Tasks,
    ) -> anyhow::Result<Self> {
        let Ground { ports, installation, revocable } = ground;
        let (background, stopping) = (&tasks.background, &tasks.stopping);
        let feed =
            Feed::start(&feed_config(&config), &ports.broker, &ports.store, &metrics, background, stopping);
        let pending = Arc::new(Pending::new(ports.broker.partitions(), Arc::clone(&metrics)));
        let ephemeral = Arc::new(Ephemeral::new(Arc::clone(&ports.broker), Arc::clone(&metrics)));
        let connections = &tasks.connections;
        let roster =
            Arc::new(Roster::new(Arc::clone(&ports.presence), Arc::clone(&ephemeral), connections.clone()));
        let online = Arc::new(OnlineUsers::new(
            Arc::clone(&ports.connections),
            Arc::clone(&ports.store),
            Arc::clone(&ephemeral),
            connections.clone(),
        ));
        let node = Arc::new(Node {
            id: config.node.clone(),
            installation,
            ack_mode: config.ack_mode,
            limits: asks(&config),
            limiter: Arc::new(Limiter::new(config.limits.clone(), Arc::clone(&ports.rates))),
            tokens: keys.verifier(),
            revocable,
            broker: Arc::clone(&ports.broker),
            store: Arc::clone(&ports.store),
            presence: Arc::clone(&ports.presence),
            publisher: Publisher::new(Arc::clone(&ports.broker), Arc::clone(&ports.store)),
            feed: Arc::clone(&feed),
            pending,
            roster,
            kinds: Arc::new(config.kinds.clone()),
            online,
            typists: Arc::new(Typists::new(Arc::clone(&ephemeral), connections.clone())),
            unread: Arc::new(UnreadCounts::new(Arc::clone(&ports.store), Arc::clone(&ephemeral))),
            ephemeral,
            memberships: Arc::new(MembershipCache::default()),
            metrics: Arc::clone(&metrics),
        });
        let heartbeat = Arc::new(Heartbeat::new(metrics));
        let outbox_limits = OutboxLimits { bytes_max: config.outbox_bytes_max, ..OutboxLimits::default() };
        let outboxes =
            OutboxContext::new(outbox_limits, OutboxMetrics::register(), tasks.connections.clone());
        let lines = Lines {
            node: Arc::clone(&node),
            heartbeat: Arc::clone(&heartbeat),
            outboxes,
            tracker: tasks.connections.clone(),
            closing: tasks.closing.clone(),
        };
        let frames = FrameLimits::default();
        let peers = Peers::new(config.node.clone(), Arc::clone(&node.broker));
        let routes = Routes {
            peers,
            socketio: Service::new(&lines, Arc::clone(&ports.recovery), frames, config.socketio.clone()),
            lines,
            emulations: Arc::new(Emulations::default()),
            frames,
            origins: Arc::new(Origins::new(&config.allowed_origins).context("allowed_origins")?),
            keys: Arc::new(config.api_keys.clone()),
            hsts_seconds: config.hsts_seconds,
            mint: keys.mint(),
        };
        Ok(Self { config, ports, keys, routes, health, node, heartbeat, tasks })
    }

    /// Serves clients.
    fn start(&self, public: TcpListener, numbers: &MetricsHandle) {
        self.start_background(numbers.clone());
        let accept = AcceptLimits::default();
        // Behind a proxy that is trusted, all connections have the proxy's address.
        let connections_per_address_max = if self.node.limiter.trusted_proxies() == 0 {
            accept.connections_per_address_max
        } else {
            usize::MAX
        };
        let accept = AcceptLimits { connections_per_address_max, ..accept };
        let router = public_router(self.routes.clone());
        let (closing, connections) = (self.tasks.closing.clone(), self.tasks.connections.clone());
        let turns = self.node.limiter.coming().clone();
        self.tasks.connections.spawn(socket::serve(public, router, accept, turns, closing, connections));
        self.health.serve(Arc::clone(&self.node.feed), Arc::clone(&self.node.revocable));
    }

    fn start_background(&self, numbers: MetricsHandle) {
        self.ports.broker.start(&self.node.id, self.node.feed.sink(self.inbound()));
        let heartbeat = Arc::clone(&self.heartbeat);
        self.tasks.spawn(async move { heartbeat.run().await });
        let socketio = Arc::clone(&self.routes.socketio);
        self.tasks.spawn(async move { socketio.run().await });
        self.follow_clients();
        let (revocable, heartbeat) = (Arc::clone(&self.node.revocable), Arc::clone(&self.heartbeat));
        self.tasks.spawn(async move { revocable.follow(&heartbeat).await });
        let tokens = Arc::clone(&self.node.tokens);
        self.tasks.spawn(async move { tokens.keep_fresh().await });
        self.tasks.spawn(async move { numbers.upkeep().await });
        self.tasks.spawn(salvage::check_stored(Arc::clone(&self.node)));
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { action::watch_members(&node).await });
        self.ports.start_persister(&self.tasks.background);
    }

    /// Keeps what others know of this node's clients fresh, and tells of those who are gone.
    fn follow_clients(&self) {
        let life = Duration::from_secs(self.config.presence_seconds);
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.roster.run(life).await });
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.roster.count_crowds().await });
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.online.refresh(life).await });
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.online.sweep().await });
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.typists.run().await });
        let node = Arc::clone(&self.node);
        self.tasks.spawn(async move { node.unread.run().await });
    }

    /// What is done with everything that arrives and is no conversation's.
    fn inbound(&self) -> impl Fn(Inbound) + Send + Sync + 'static {
        let (node, emulations) = (Arc::clone(&self.node), Arc::clone(&self.routes.emulations));
        let (heartbeat, socketio) = (Arc::clone(&self.heartbeat), Arc::clone(&self.routes.socketio));
        let (peers, tasks) = (Arc::clone(&self.routes.peers), self.tasks.background.clone());
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
                Some(Announcement::WhereAreYou { asked_by }) => {
                    let peers = Arc::clone(&peers);
                    tasks.spawn(async move { peers.asked(asked_by).await });
                }
                Some(Announcement::Here { node, address }) => peers.here(node, address),
                Some(Announcement::TakenUp { secret, holder }) => socketio.taken_up(&secret, holder),
                Some(Announcement::SendAway(away)) => action::send_away(&node, &heartbeat, &away),
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
    fn greet(&self, public: SocketAddr, health: SocketAddr) {
        let mode = match &self.config.mode {
            Mode::Standalone => {
                format!("standalone, messages in {}", ports::database_file(&self.config).display())
            }
            Mode::Cluster { .. } => format!("cluster node {}", self.node.id),
        };
        println!("Starling {} ({mode})", env!("CARGO_PKG_VERSION"));
        println!("  clients   ws://{public}/connection/websocket");
        println!("            http://{public}/socket.io/");
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
    }

    async fn stop(self) {
        self.health.drain();
        // Until balancers have noticed, new clients still come, and are served.
        tokio::time::sleep(Duration::from_secs(self.config.drain_delay_seconds)).await;
        self.node.limiter.drain();
        shutdown::send_away(&self.heartbeat, Duration::from_secs(self.config.drain_seconds)).await;
        self.tasks.closing.cancel();
        shutdown::wait_for_connections(&self.tasks.connections, &self.heartbeat).await;
        if self.config.mode == Mode::Standalone {
            // Nobody is left to notice that everybody is gone.
            self.node.online.sweep_last().await;
        }
        self.ports.stop_persister().await;
        self.tasks.stopping.cancel();
        self.ports.broker.close().await;
        shutdown::wait(&self.tasks.background, "background tasks").await;
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

/// How much one client may ask for.
fn asks(config: &Config) -> Limits {
    Limits {
        subscriptions_per_connection: config.subscriptions_max,
        catchup_messages: config.catchup_messages_max,
        catchup_bytes: config.catchup_bytes_max,
        body_bytes: config.body_bytes_max,
    }
}
