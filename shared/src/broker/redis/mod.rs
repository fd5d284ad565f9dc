//! The broker of cluster mode.
//!
//! May use: Redis, and what the port names. Deliberately absent: every decision that is not the port's.
//! [`connection`] says why a reconnect cannot defeat the fence, `publish.lua` is the seq rule, [`keys`] names
//! everything, [`route`] finds the server of a Redis Cluster, [`subscriber`] is the way back to the node, [`tails`] is what
//! those read who come back.

pub(crate) mod connection;
pub(crate) mod keys;
pub(crate) mod line;
pub(crate) mod route;
mod salvage;
mod signals;
pub(crate) mod subscriber;
mod tails;
mod topology;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{ConnectionInfo, RedisResult, Script};

use self::{
    connection::Held,
    keys::{Keys, Slot},
    route::{Commands, Pool},
    signals::Signals,
    subscriber::Subscriber,
    tails::Tails,
};
use super::{
    Accepted, Audience, Broker, BrokerError, EntryId, LogPosition, Publication, Publish, Recent, Sink,
    sequence::{DEDUPE_MS, HOT_TAIL_MS, Limits},
};
use crate::{
    domain::{ConversationId, Epoch, Message, NodeId, PARTITIONS_DEFAULT, Partition, Seq},
    record::encode_payload,
};

/// How many positions are asked for at once.
const POSITIONS_PER_REQUEST_MAX: usize = 1_000;
/// How long a publish waits for its replicas, in milliseconds. Must be shorter than any response timeout.
const REPLICAS_WAIT_MS: u64 = 1_500;
/// How many connections to one server the cold commands share.
const POOL_CONNECTIONS_MAX: usize = 4;

/// How to reach Redis, and what bounds what is kept there.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port/`. Whether it is a Redis Cluster, the server says; then it may be several, separated
    /// by commas, of which one has to answer.
    pub url: String,
    /// How many partitions; the same on every process of a deployment.
    pub partitions: u16,
    /// What bounds a partition.
    pub limits: Limits,
    /// How many replicas must have a message before it counts as accepted.
    pub wait_replicas: u32,
    /// Longest wait for an answer; the connection is then given up.
    pub response_timeout: Duration,
    /// After this long without a sign of life on the subscriber connection it has to prove itself.
    pub probe_after: Duration,
    /// Longest wait for that proof.
    pub probe_timeout: Duration,
}

impl RedisConfig {
    /// The defaults, for the Redis at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            partitions: PARTITIONS_DEFAULT,
            limits: Limits::default(),
            wait_replicas: 0,
            response_timeout: Duration::from_secs(4),
            probe_after: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(5),
        }
    }

    /// A few connections to each server, for what is neither a publish nor a subscription nor a wait.
    pub(crate) fn pool(&self) -> Result<Pool, BrokerError> {
        Ok(Pool::new(self)?)
    }

    fn pool_of(&self, server: ConnectionInfo) -> RedisResult<deadpool_redis::Pool> {
        let info = connection::client(server)?.get_connection_info().clone();
        let manager =
            deadpool_redis::Manager::new_with_config(info, connection::timeouts(self.response_timeout))?;
        deadpool_redis::Pool::builder(manager)
            .max_size(POOL_CONNECTIONS_MAX)
            .runtime(deadpool_redis::Runtime::Tokio1)
            .wait_timeout(Some(self.response_timeout))
            .build()
            .map_err(|error| std::io::Error::other(error).into())
    }
}

/// The metrics of everything that talks to Redis.
pub mod metric {
    const RECONNECTS: &str = "starling_redis_reconnects_total";
    const PROBE_FAILURES: &str = "starling_probe_failures_total";

    /// Says what is counted.
    pub fn describe() {
        metrics::describe_counter!(RECONNECTS, "Connections to Redis that were lost, by their purpose");
        metrics::describe_counter!(
            PROBE_FAILURES,
            "Subscriber connections that were given up since they did not prove that they are alive"
        );
    }

    pub(super) fn reconnects(connection: &'static str) {
        metrics::counter!(RECONNECTS, "connection" => connection).increment(1);
    }

    pub(super) fn probe_failures() {
        metrics::counter!(PROBE_FAILURES).increment(1);
    }
}

/// A broker over one Redis server, or a Redis Cluster.
pub struct RedisBroker {
    config: RedisConfig,
    keys: Arc<Keys>,
    commands: Arc<Commands>,
    subscriber: Subscriber,
    signals: Signals,
    tails: Tails,
    publish: Script,
    seed: Script,
}

impl RedisBroker {
    /// Connects for commands; the subscriber connection waits for [`Broker::start`].
    ///
    /// # Errors
    /// When the URL is none, or Redis does not answer now. Later it is tried for ever.
    pub async fn connect(config: RedisConfig) -> Result<Self, BrokerError> {
        let keys = Arc::new(Keys::new(config.partitions));
        let commands = Arc::new(Commands::connect(&config).await?);
        let aside = Arc::new(Commands::connect(&config).await?);
        let subscriber = Subscriber::new(&config, Arc::clone(&keys), Arc::clone(&commands));
        let signals = Signals::new(Arc::clone(&keys), Arc::clone(&aside));
        let tails = Tails::new(Arc::clone(&keys), aside);
        let publish = Script::new(include_str!("publish.lua"));
        let seed = Script::new(include_str!("seed.lua"));
        Ok(Self { config, keys, commands, subscriber, signals, tails, publish, seed })
    }

    async fn call_publish(&self, held: &mut Held, publish: &Publish) -> RedisResult<String> {
        let Publish { conversation, payload, seed, retry, checked } = publish;
        let (keys, limits) = (&self.keys, self.config.limits);
        let partition = keys.partition(conversation);
        let is_named = payload.client_id.is_some();
        let mut call = self.publish.prepare_invoke();
        call.key(keys.epoch(partition))
            .key(keys.position(conversation))
            .key(keys.accepted(partition, payload.id))
            .key(keys.log(partition))
            .key(keys.tail(conversation))
            .key(keys.channel(conversation))
            .arg(held.run())
            .arg(conversation.as_str())
            .arg(&encode_payload(payload)[..])
            .arg(flag(is_named))
            .arg(seed.map(|seed| seed.to_string()).unwrap_or_default())
            .arg(match (checked, retry) {
                (true, _) => "1",
                (false, true) => "?",
                (false, false) => "",
            })
            .arg(limits.backlog_entries_max)
            .arg(limits.hot_messages)
            .arg(DEDUPE_MS)
            .arg(HOT_TAIL_MS);
        call.invoke_async(&mut held.connection).await
    }
}

impl RedisBroker {
    async fn send<T: redis::FromRedisValue>(
        &self,
        slot: Slot,
        command: &redis::Cmd,
    ) -> Result<T, BrokerError> {
        self.commands
            .run(slot, |mut held| async move { command.query_async(&mut held.connection).await })
            .await
    }

    /// One whose server is connected, for announcements: every node listens in all partitions.
    async fn some_partition(&self) -> Partition {
        let mut all = Partition::all(self.config.partitions);
        let slots = all.clone().map(|partition| self.keys.slot(partition));
        let reachable = self.commands.reachable(slots).await;
        reachable.and_then(|index| all.nth(index)).unwrap_or(Partition(0))
    }
}

/// The hash tag of a partition among `partitions` of them, for operators and tests that look into Redis themselves.
pub fn tag(partitions: u16, partition: Partition) -> String {
    Keys::new(partitions).tag(partition).to_owned()
}

fn flag(is_set: bool) -> &'static str {
    if is_set { "1" } else { "" }
}

/// Reads what `publish.lua` returned.
fn parse_publication(text: &str) -> Option<Publication> {
    let (tag, place) = text.split_once(' ').unwrap_or((text, ""));
    let duplicate = match tag {
        "accepted" => false,
        "duplicate" => true,
        "epoch" => return Some(Publication::NeedsEpoch),
        "seed" => return Some(Publication::NeedsSeed),
        "check" => return Some(Publication::NeedsCheck),
        "full" => return Some(Publication::BacklogFull),
        _ => return None,
    };
    let mut fields = place.split(' ');
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (seq, prev, time) = (Seq(number()?), Seq(number()?), number()?);
    let epoch = Epoch(u32::try_from(number()?).ok()?);
    let position = LogPosition { epoch, entry: EntryId::parse(fields.next()?)? };
    Some(Publication::Accepted(Accepted { seq, prev, time, position, duplicate }))
}

#[async_trait]
impl Broker for RedisBroker {
    fn partitions(&self) -> u16 {
        self.config.partitions
    }

    async fn publish(&self, publish: &Publish) -> Result<Publication, BrokerError> {
        let replicas = self.config.wait_replicas;
        let slot = self.keys.slot_of(&publish.conversation);
        let (text, confirmed) = self
            .commands
            .run(slot, |mut held| async move {
                let text = self.call_publish(&mut held, publish).await?;
                let confirmed = if replicas > 0 && text.contains(' ') {
                    // It covers every earlier write of this connection, so others in between do no harm.
                    let mut wait = redis::cmd("WAIT");
                    wait.arg(replicas).arg(REPLICAS_WAIT_MS).query_async(&mut held.connection).await?
                } else {
                    replicas
                };
                Ok((text, confirmed))
            })
            .await?;
        if confirmed < replicas {
            let reason = format!("{confirmed} of {replicas} replicas have confirmed");
            return Err(BrokerError::Unavailable(reason));
        }
        parse_publication(&text).ok_or_else(|| BrokerError::Unavailable(format!("publish.lua said {text:?}")))
    }

    async fn epoch(&self, partition: Partition) -> Result<Option<Epoch>, BrokerError> {
        let key = &self.keys.epoch(partition);
        self.commands
            .run(self.keys.slot(partition), |mut held| async move {
                let mut get = redis::cmd("HMGET");
                get.arg(key).arg("e").arg("run");
                let (epoch, opened_for): (Option<u32>, Option<String>) =
                    get.query_async(&mut held.connection).await?;
                let epoch = epoch.filter(|_| opened_for.as_deref() == Some(held.run())).map(Epoch);
                if epoch.is_none() {
                    // Whoever hears that it is closed will open it, and must not do so in the name of a past run.
                    held.confirm().await?;
                }
                Ok(epoch)
            })
            .await
    }

    async fn seed(&self, partition: Partition, epoch: Epoch) -> Result<bool, BrokerError> {
        self.commands
            .run(self.keys.slot(partition), |mut held| async move {
                held.confirm().await?;
                let mut call = self.seed.prepare_invoke();
                call.key(self.keys.epoch(partition)).arg(epoch.0).arg(held.run());
                call.invoke_async(&mut held.connection).await
            })
            .await
    }

    async fn call_for_salvage(&self) -> Result<bool, BrokerError> {
        self.call_on_nodes().await?;
        Ok(true)
    }

    async fn hand_in(&self, partition: Partition, messages: &[Message]) -> Result<(), BrokerError> {
        self.take_in(partition, messages).await
    }

    async fn restore(&self, partition: Partition, epoch: Epoch) -> Result<u64, BrokerError> {
        self.put_back(partition, epoch).await
    }

    async fn signal(&self, conversation: &ConversationId, record: Bytes) -> Result<(), BrokerError> {
        self.signals.publish(conversation, record).await
    }

    async fn recent(
        &self,
        conversation: &ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Recent, BrokerError> {
        self.tails.recent(conversation, after, limit).await
    }

    async fn positions(&self, conversations: &[ConversationId]) -> Result<Vec<Option<Seq>>, BrokerError> {
        if let [conversation] = conversations {
            return Ok(vec![self.tails.end(conversation).await?]);
        }
        let mut positions = Vec::with_capacity(conversations.len());
        for some in conversations.chunks(POSITIONS_PER_REQUEST_MAX) {
            let asked = self.commands.spread(
                some,
                |conversation| self.keys.slot_of(conversation),
                |mut held, some| async move {
                    let mut request = redis::pipe();
                    for conversation in some {
                        request.cmd("HGET").arg(self.keys.position(conversation)).arg("s");
                    }
                    request.query_async::<Vec<Option<u64>>>(&mut held.connection).await
                },
            );
            positions.extend(asked.await.some()?.into_iter().map(|top| top.flatten().map(Seq)));
        }
        Ok(positions)
    }

    fn start(&self, node: &NodeId, sink: Sink) {
        self.subscriber.start(node, sink);
    }

    async fn subscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        self.subscriber.send("SSUBSCRIBE", conversations).await
    }

    async fn unsubscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        self.subscriber.send("SUNSUBSCRIBE", conversations).await
    }

    async fn announce(&self, audience: &Audience, announcement: Bytes) -> Result<u64, BrokerError> {
        let partition = self.some_partition().await;
        let channel = match audience {
            Audience::Everyone => self.keys.everyone(partition),
            Audience::Node(node) => self.keys.node(partition, node),
        };
        let mut command = redis::cmd("SPUBLISH");
        command.arg(channel).arg(&announcement[..]);
        self.send(self.keys.slot(partition), &command).await
    }

    async fn close(&self) {
        self.subscriber.close().await;
    }
}
