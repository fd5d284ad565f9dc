//! What the suites of the ports share: both implementations, and something to say.
#![expect(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;

use deploy::{PATIENCE, RedisCluster, RedisClusterOptions, RedisOptions, RedisServer};
use shared::{
    broker::{
        Accepted, Broker, Inbound, Publication, Publish,
        memory::{Memory, MemoryBroker},
        redis::{RedisBroker, RedisConfig},
        sequence::Limits,
    },
    domain::{
        Body, ClientMessageId, ConversationId, Epoch, MessageId, MessageKind, NodeId, Partition, Seq, UserId,
    },
    log::{Log, memory::MemoryLog, redis::RedisLog},
    record::Payload,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Few, so that a partition is met by more than one conversation.
pub const PARTITIONS: u16 = 4;

/// One implementation of the ports, with its own empty state.
pub trait Environment: Sized {
    async fn new(limits: Limits) -> Self;
    /// One more node.
    async fn broker(&self) -> Arc<dyn Broker>;
    fn log(&self) -> Arc<dyn Log>;
    /// How many dead letters the partition has.
    async fn dead_letters(&self, partition: Partition) -> u64;
}

pub struct InMemory(pub Arc<Memory>);

impl Environment for InMemory {
    async fn new(limits: Limits) -> Self {
        Self(Memory::new(PARTITIONS, limits))
    }
    async fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(MemoryBroker::new(Arc::clone(&self.0)))
    }
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(MemoryLog::new(Arc::clone(&self.0)))
    }
    async fn dead_letters(&self, partition: Partition) -> u64 {
        MemoryLog::new(Arc::clone(&self.0)).dead_letters(partition).len() as u64
    }
}

pub struct OnRedis {
    pub server: RedisServer,
    pub config: RedisConfig,
}

impl OnRedis {
    /// With more lines for the server's configuration.
    pub async fn with_lines(limits: Limits, lines: &[&str]) -> Self {
        let extra = lines.iter().map(|line| (*line).to_owned()).collect();
        let options = RedisOptions { extra, ..RedisOptions::without_disk() };
        let server = RedisServer::start(options).await.unwrap();
        let config = RedisConfig { partitions: PARTITIONS, limits, ..RedisConfig::new(server.url()) };
        Self { server, config }
    }

    /// A connection for what only a test does.
    pub async fn raw(&self) -> redis::aio::MultiplexedConnection {
        connect(&self.server.url()).await
    }
}

impl Environment for OnRedis {
    async fn new(limits: Limits) -> Self {
        Self::with_lines(limits, &[]).await
    }
    async fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(RedisBroker::connect(self.config.clone()).await.unwrap())
    }
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(RedisLog::new(self.config.clone()).unwrap())
    }
    async fn dead_letters(&self, partition: Partition) -> u64 {
        let tag = shared::broker::redis::tag(PARTITIONS, partition);
        redis::cmd("XLEN").arg(format!("{{{tag}}}dlq")).query_async(&mut self.raw().await).await.unwrap()
    }
}

tokio::task_local! {
    /// The servers of the cluster that all cases of a suite share, one after the other.
    static SERVERS: Vec<String>;
}

/// A Redis Cluster of three primaries.
pub struct OnCluster {
    pub config: RedisConfig,
}

impl OnCluster {
    /// Runs all cases of a suite on one cluster; each finds it empty.
    pub async fn run(cases: impl Future<Output = ()>) {
        let server = RedisOptions::without_disk();
        let cluster = RedisClusterOptions { server, ..RedisClusterOptions::default() };
        let cluster = RedisCluster::start(cluster).await.unwrap();
        SERVERS.scope(cluster.servers().iter().map(RedisServer::url).collect(), cases).await;
    }

    /// Loses all data.
    pub async fn flush(&self) {
        for server in SERVERS.get() {
            let () = redis::cmd("FLUSHALL").query_async(&mut connect(&server).await).await.unwrap();
        }
    }
}

impl Environment for OnCluster {
    async fn new(limits: Limits) -> Self {
        let url = SERVERS.with(|servers| servers.join(","));
        let environment =
            Self { config: RedisConfig { partitions: PARTITIONS, limits, ..RedisConfig::new(url) } };
        environment.flush().await;
        environment
    }
    async fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(RedisBroker::connect(self.config.clone()).await.unwrap())
    }
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(RedisLog::new(self.config.clone()).unwrap())
    }
    async fn dead_letters(&self, partition: Partition) -> u64 {
        let key = format!("{{{}}}dlq", shared::broker::redis::tag(PARTITIONS, partition));
        let mut letters = 0;
        for server in SERVERS.get() {
            // Whoever does not have the slot refuses.
            let length = redis::cmd("XLEN").arg(&key).query_async::<u64>(&mut connect(&server).await).await;
            letters += length.unwrap_or(0);
        }
        letters
    }
}

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Makes one test of each suite function for each implementation; for the Redis Cluster, one of all of them together.
#[macro_export]
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::InMemory>().await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<super::OnRedis>().await;
            })*
        }
        #[tokio::test]
        async fn on_a_redis_cluster() {
            OnCluster::run(async {
                $(
                    eprintln!(stringify!($name));
                    $name::<OnCluster>().await;
                )*
            })
            .await;
        }
    };
}

pub fn conversation(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

pub fn partition(name: &str) -> Partition {
    Partition::of(&conversation(name), PARTITIONS)
}

/// A publish of a message that its sender named.
pub fn named(to: &str, client_id: &str) -> Publish {
    let (conversation, sender) = (conversation(to), UserId::parse("alice").unwrap());
    let client_id = ClientMessageId::parse(client_id).unwrap();
    let id = MessageId::derived(&conversation, &sender, &client_id);
    let payload = Payload {
        id,
        sender,
        client_id: Some(client_id),
        reply_to: None,
        kind: MessageKind::TEXT,
        body: Body::from_json(format!("{{\"to\":\"{to}\"}}")),
    };
    Publish { conversation, payload, seed: None, retry: false, checked: false }
}

/// A publish of a message without a name of its sender's.
pub fn unnamed(to: &str) -> Publish {
    let mut publish = named(to, "x");
    publish.payload.id = MessageId(Uuid::new_v4());
    publish.payload.client_id = None;
    publish
}

pub fn seeded(publish: Publish, seed: u64) -> Publish {
    Publish { seed: Some(Seq(seed)), ..publish }
}

pub async fn open(broker: &dyn Broker, epoch: u32) {
    for partition in Partition::all(PARTITIONS) {
        assert!(broker.seed(partition, Epoch(epoch)).await.unwrap());
    }
}

/// Publishes what must be accepted, with a seed of 0 for the first.
pub async fn accept(broker: &dyn Broker, publish: Publish) -> Accepted {
    match broker.publish(&Publish { checked: true, ..seeded(publish, 0) }).await.unwrap() {
        Publication::Accepted(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

pub struct Ear(mpsc::UnboundedReceiver<Inbound>);

impl Ear {
    /// Starts the broker's subscriber, and waits until it is up.
    pub async fn of(broker: &dyn Broker, node: &str) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let sink = Arc::new(move |inbound| {
            // The test may have ended.
            let _ = sender.send(inbound);
        });
        broker.start(&NodeId::parse(node).unwrap(), sink);
        let mut ear = Self(receiver);
        assert!(matches!(ear.next().await, Inbound::Connected));
        ear
    }

    pub async fn next(&mut self) -> Inbound {
        tokio::time::timeout(PATIENCE, self.0.recv())
            .await
            .expect("nothing arrives")
            .expect("the broker lives")
    }

    /// The next that `look` takes, and drops what comes before.
    pub async fn find<T>(&mut self, look: impl Fn(&Inbound) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(&self.next().await) {
                return found;
            }
        }
    }

    pub fn is_silent(&mut self) -> bool {
        self.0.is_empty()
    }
}
