//! The subscriber connection: everything that reaches a node comes in here.
//!
//! What arrives is handed to the sink by the very task that reads the socket; there is no queue in between. The
//! connection is not trusted: after a while without traffic it has to prove that what is published reaches it, by a
//! message to the node's own probe channel that goes out over the command connection. Silence means a new connection,
//! so a link that is half open, or a subscriber that Redis has forgotten, is noticed.
//!
//! redis-rs keeps no subscriptions alive, and nothing here relies on its bookkeeping: only confirmations that Redis
//! sends count, asked for or not, and after a reconnect the caller asks for everything anew.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::{Mutex, RwLock};
use redis::{
    PushInfo, PushKind, RedisResult, Value,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    RedisConfig,
    connection::{self, Backoff, Commands},
    keys::{self, Channel, Keys},
    metric,
};
use crate::{
    broker::{BrokerError, EntryId, Inbound, LogPosition, Sink},
    domain::{ConversationId, Epoch, NodeId, Partition},
};

/// How many channels one command names; all of them in one slot, as Redis Cluster asks.
const CHANNELS_PER_COMMAND_MAX: usize = 256;

/// Keeps one subscriber connection from [`Subscriber::start`] on.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Shared {
    client: redis::Client,
    config: RedisConfig,
    keys: Arc<Keys>,
    commands: Arc<Commands>,
    present: RwLock<Option<MultiplexedConnection>>,
}

impl Subscriber {
    pub fn new(config: &RedisConfig, keys: Arc<Keys>, commands: Arc<Commands>) -> RedisResult<Self> {
        let client = connection::client(&config.url)?;
        let shared = Shared { client, config: config.clone(), keys, commands, present: RwLock::default() };
        Ok(Self { shared: Arc::new(shared), task: Mutex::default() })
    }

    /// Starts the connection on the runtime of the caller. Starting again replaces the one before.
    pub fn start(&self, node: &NodeId, sink: Sink) {
        let task = tokio::spawn(Arc::clone(&self.shared).keep(node.clone(), sink));
        *self.task.lock() = Some(AbortOnDropHandle::new(task));
    }

    pub async fn close(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // It ends by being aborted, which is no news.
            let _ = task.await;
        }
        *self.shared.present.write() = None;
    }

    /// Sends `command` for the channels of these conversations. Their confirmations go to the sink.
    pub async fn send(&self, command: &str, conversations: &[ConversationId]) -> Result<(), BrokerError> {
        let connection = self.shared.present.read().clone();
        let connection =
            connection.ok_or_else(|| BrokerError::Unavailable("no subscriber connection".to_owned()))?;
        let mut by_partition: BTreeMap<Partition, Vec<String>> = BTreeMap::new();
        for conversation in conversations {
            let channels = by_partition.entry(self.shared.keys.partition(conversation)).or_default();
            channels.push(self.shared.keys.channel(conversation));
        }
        let chunks = by_partition.values().flat_map(|channels| channels.chunks(CHANNELS_PER_COMMAND_MAX));
        try_join_all(chunks.map(|channels| ask(connection.clone(), command, channels))).await?;
        Ok(())
    }
}

/// Sends one command and waits for its first confirmation, or its refusal.
async fn ask(
    mut connection: MultiplexedConnection,
    command: &str,
    channels: &[String],
) -> RedisResult<Value> {
    redis::cmd(command).arg(channels).query_async(&mut connection).await
}

impl Shared {
    async fn keep(self: Arc<Self>, node: NodeId, sink: Sink) {
        let mut backoff = Backoff::default();
        loop {
            match self.connect(&node, &sink).await {
                Ok(line) => {
                    backoff.reset();
                    self.watch(&line, &keys::probe_channel(&node)).await;
                    *self.present.write() = None;
                    line.close();
                    tracing::warn!("the subscriber connection is lost");
                    metric::reconnects("subscriber");
                }
                Err(error) => tracing::warn!(%error, "no subscriber connection"),
            }
            backoff.pause().await;
        }
    }

    /// Connects, and subscribes to what every node listens to.
    async fn connect(&self, node: &NodeId, sink: &Sink) -> RedisResult<Arc<Line>> {
        let line = Arc::new(Line {
            keys: Arc::clone(&self.keys),
            sink: Mutex::new(None),
            probe: keys::probe_channel(node),
            heard: AtomicBool::new(false),
            lost: Notify::new(),
        });
        let settings =
            connection::timeouts(self.config.response_timeout).set_push_sender(Ear(Arc::clone(&line)));
        let connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        // What arrives before all of these are confirmed is dropped: to its receiver, this connection is not up yet.
        let own = [keys::ALL_NODES.to_owned(), keys::node_channel(node), keys::probe_channel(node)];
        let own = own.map(|channel| ("SUBSCRIBE", [channel]));
        let stored = Partition::all(self.keys.partitions())
            .map(|partition| ("SSUBSCRIBE", [self.keys.stored(partition)]));
        let channels: Vec<_> = own.into_iter().chain(stored).collect();
        try_join_all(channels.iter().map(|(command, channel)| ask(connection.clone(), command, channel)))
            .await?;
        line.open(sink, || *self.present.write() = Some(connection));
        Ok(line)
    }

    /// Returns when the connection is lost, or has failed to prove itself.
    async fn watch(&self, line: &Line, probe: &str) {
        let RedisConfig { probe_after, probe_timeout, .. } = self.config;
        loop {
            if line.is_lost_within(probe_after).await {
                return;
            }
            if line.heard.swap(false, Ordering::Relaxed) {
                continue;
            }
            let mut command = redis::cmd("PUBLISH");
            command.arg(probe).arg("");
            let sent = self.commands.run(async |connection, _| command.query_async::<u64>(connection).await);
            // Whether or not it could be sent, what counts is whether anything comes back.
            let sent = async { matches!(timeout(probe_timeout, sent).await, Ok(Ok(_))) };
            let (sent, is_lost) = tokio::join!(sent, line.is_lost_within(probe_timeout));
            if is_lost {
                return;
            }
            if !line.heard.swap(false, Ordering::Relaxed) {
                metric::probe_failures();
                tracing::warn!(sent, "the subscriber connection does not prove that it is alive");
                return;
            }
        }
    }
}

/// One subscriber connection.
struct Line {
    keys: Arc<Keys>,
    /// Whom to tell; `None` before the connection is up and after it was given up. The lock keeps [`Inbound::Disconnected`]
    /// behind everything that the reading task is just handing over, and is otherwise only taken by that task.
    sink: Mutex<Option<Sink>>,
    probe: String,
    /// Whether anything has arrived since this was last asked.
    heard: AtomicBool,
    lost: Notify,
}

impl Line {
    /// Whoever hears of the connection can use it at once, so `publish` it first; what is confirmed meanwhile waits.
    fn open(&self, sink: &Sink, publish: impl FnOnce()) {
        let mut present = self.sink.lock();
        publish();
        sink(Inbound::Connected);
        *present = Some(Arc::clone(sink));
    }

    fn close(&self) {
        if let Some(sink) = self.sink.lock().take() {
            sink(Inbound::Disconnected);
        }
    }

    async fn is_lost_within(&self, time: Duration) -> bool {
        timeout(time, self.lost.notified()).await.is_ok()
    }

    fn hear(&self, kind: &PushKind, data: Vec<Value>) {
        let Some(inbound) = self.read(kind, data) else { return };
        if let Some(sink) = &*self.sink.lock() {
            sink(inbound);
        }
    }

    fn read(&self, kind: &PushKind, data: Vec<Value>) -> Option<Inbound> {
        let mut data = data.into_iter();
        let channel = data.next()?;
        let Value::BulkString(channel) = channel else { return None };
        let channel = std::str::from_utf8(&channel).ok()?;
        if *kind == PushKind::Message {
            let is_for_me = channel != self.probe;
            let payload = is_for_me.then(|| payload(data.next())).flatten()?;
            return Some(if payload == SALVAGE_CALL {
                Inbound::Salvage
            } else {
                Inbound::Announcement(payload)
            });
        }
        match (self.keys.parse_channel(channel)?, kind) {
            (Channel::Conversation(name), kind) => {
                let conversation = ConversationId::parse(name).ok()?;
                match kind {
                    PushKind::SMessage => Some(Inbound::Record(conversation, payload(data.next())?)),
                    PushKind::SSubscribe => Some(Inbound::Subscribed(conversation)),
                    PushKind::SUnsubscribe => Some(Inbound::Unsubscribed(conversation)),
                    _ => None,
                }
            }
            (Channel::Stored(partition), PushKind::SMessage) => {
                Some(Inbound::Stored(partition, parse_notice(&payload(data.next())?)?))
            }
            // Redis Cluster has moved the slot: only a new connection finds where it is.
            (Channel::Stored(_), PushKind::SUnsubscribe) => {
                self.lost.notify_one();
                None
            }
            (Channel::Stored(_), _) => None,
        }
    }
}

fn payload(value: Option<Value>) -> Option<Bytes> {
    match value {
        Some(Value::BulkString(bytes)) => Some(bytes.into()),
        _ => None,
    }
}

/// What calls on every node, on the channel for all, to hand in what may be lost. Announcements are JSON, so none is this.
pub(crate) const SALVAGE_CALL: &[u8] = b"salvage";

/// The text of a `stored` notice.
pub(crate) fn notice(position: LogPosition) -> String {
    format!("{} {}", position.epoch.0, position.entry)
}

fn parse_notice(text: &[u8]) -> Option<LogPosition> {
    let (epoch, entry) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(LogPosition { epoch: Epoch(epoch.parse().ok()?), entry: EntryId::parse(entry)? })
}

/// Is called by the task that reads the connection.
struct Ear(Arc<Line>);

impl AsyncPushSender for Ear {
    fn send(&self, PushInfo { kind, data }: PushInfo) -> Result<(), SendError> {
        if kind == PushKind::Disconnection {
            self.0.lost.notify_one();
        } else {
            self.0.heard.store(true, Ordering::Relaxed);
            self.0.hear(&kind, data);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_back() {
        let position = LogPosition { epoch: Epoch(3), entry: EntryId { ms: 1_790_000_000_000, n: 7 } };
        assert_eq!(parse_notice(notice(position).as_bytes()), Some(position));
        assert_eq!(parse_notice(b"3 x"), None);
    }
}
