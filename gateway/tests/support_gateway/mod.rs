//! Whole gateways in the test's own process: real sockets, real clients, and ports that the test holds in its hand.

use std::{sync::Arc, time::Duration};

use gateway::{
    action::{AckMode, Limits, MembershipCache, Node},
    api_key::ApiKeys,
    connection::{
        Emulations, Lines,
        socketio::{Service, SocketIoSettings},
    },
    ephemeral::Ephemeral,
    feed::{Feed, FeedConfig},
    frame::FrameLimits,
    heartbeat::Heartbeat,
    http::{Origins, Routes, public_router},
    limits::{Limiter, Settings},
    metrics::Metrics,
    online::OnlineUsers,
    outbox::{OutboxContext, OutboxLimits, OutboxMetrics},
    peers::Peers,
    pending::Pending,
    revocation::Revocable,
    roster::Roster,
    socket::{self, AcceptLimits},
    typing::Typists,
    unread::UnreadCounts,
};
use shared::{
    auth::TokenVerifier,
    broker::{
        Broker,
        memory::{Memory, MemoryBroker},
        sequence,
    },
    connections::memory::MemoryConnections,
    domain::NodeId,
    presence::memory::MemoryPresence,
    publisher::Publisher,
    rate::memory::MemoryRateLimits,
    recovery::memory::MemoryRecovery,
    revocations::Revocations,
    store::{Store, sqlite::SqliteStore},
};
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Longest wait for something that must happen; only a failure waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a revocation is in force here.
pub const LIFE: Duration = Duration::from_hours(1);
const PARTITIONS: u16 = 4;

/// What the nodes of one cluster share.
pub struct Shared {
    memory: Arc<Memory>,
    store: Arc<dyn Store>,
    _directory: tempfile::TempDir,
}

impl Shared {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("starling.db")).unwrap();
        let memory = Memory::new(PARTITIONS, sequence::Limits::default());
        Self { memory, store: Arc::new(store), _directory: directory }
    }
}

/// One gateway.
pub struct Gateway {
    pub node: Arc<Node>,
    pub url: String,
    _stop: DropGuard,
}

const LIMITS: Limits = Limits {
    subscriptions_per_connection: 100,
    catchup_messages: 100,
    catchup_bytes: 1 << 20,
    body_bytes: 1 << 10,
};

impl Gateway {
    /// Starts one that takes what `tokens` lets in and `revocations` does not keep out.
    pub async fn start(
        name: &str,
        shared: &Shared,
        tokens: TokenVerifier,
        revocations: Arc<dyn Revocations>,
        unread_max: Duration,
    ) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::new(Metrics::register());
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Arc::clone(&shared.memory)));
        let (store, presence) = (Arc::clone(&shared.store), Arc::new(MemoryPresence::default()));
        let config = FeedConfig { shards: 1, linger: LIFE, position_check: LIFE };
        let feed = Feed::start(&config, &broker, &store, &metrics, &tracker, &stop);
        let revocable = Arc::new(Revocable::new(revocations, LIFE, unread_max, Arc::clone(&metrics)));
        revocable.read_all().await.unwrap();
        let ephemeral = Arc::new(Ephemeral::new(Arc::clone(&broker), Arc::clone(&metrics)));
        let connections = Arc::new(MemoryConnections::default());
        let online =
            OnlineUsers::new(connections, Arc::clone(&store), Arc::clone(&ephemeral), tracker.clone());
        let node = Arc::new(Node {
            id: NodeId::parse(name).unwrap(),
            installation: store.installation().await.unwrap(),
            ack_mode: AckMode::Accepted,
            limits: LIMITS,
            limiter: Arc::new(Limiter::new(Settings::default(), Arc::new(MemoryRateLimits::default()))),
            tokens: Arc::new(tokens),
            revocable,
            publisher: Publisher::new(Arc::clone(&broker), Arc::clone(&store)),
            pending: Arc::new(Pending::new(PARTITIONS, Arc::clone(&metrics))),
            roster: Arc::new(Roster::new(presence.clone(), Arc::clone(&ephemeral), tracker.clone())),
            online: Arc::new(online),
            typists: Arc::new(Typists::new(Arc::clone(&ephemeral), tracker.clone())),
            unread: Arc::new(UnreadCounts::new(Arc::clone(&store), Arc::clone(&ephemeral))),
            ephemeral,
            kinds: Arc::default(),
            memberships: Arc::new(MembershipCache::default()),
            broker,
            store,
            presence,
            feed,
            metrics: Arc::clone(&metrics),
        });
        let heartbeat = Arc::new(Heartbeat::new(metrics));
        node.broker.start(&node.id, node.feed.sink(|_| {}));
        let (watching, beating) = (Arc::clone(&heartbeat), Arc::clone(&heartbeat));
        let (following, stopping) = (Arc::clone(&node.revocable), stop.clone());
        tracker.spawn(async move {
            let work = async { tokio::join!(following.follow(&watching), beating.run()) };
            stopping.run_until_cancelled(work).await
        });
        let outboxes =
            OutboxContext::new(OutboxLimits::default(), OutboxMetrics::register(), tracker.clone());
        let lines = Lines {
            node: Arc::clone(&node),
            heartbeat,
            outboxes,
            tracker: tracker.clone(),
            closing: stop.clone(),
        };
        let frames = FrameLimits::default();
        let socketio =
            Service::new(&lines, Arc::new(MemoryRecovery::default()), frames, SocketIoSettings::default());
        let (serving, running) = (Arc::clone(&socketio), tracker.clone());
        running.spawn(async move { serving.run().await });
        let peers = Peers::new(node.id.clone(), Arc::clone(&node.broker));
        let routes = Routes {
            lines,
            peers,
            socketio,
            emulations: Arc::new(Emulations::default()),
            frames,
            origins: Arc::new(Origins::default()),
            keys: Arc::new(ApiKeys::parse(&[]).unwrap()),
            hsts_seconds: 0,
            mint: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (router, accept) = (public_router(routes), AcceptLimits::default());
        tracker.spawn(socket::serve(listener, router, accept, stop.clone(), tracker.clone()));
        Self { node, url, _stop: stop.drop_guard() }
    }
}
