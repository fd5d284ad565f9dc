//! Carries what Redis publishes to the rooms of this node, without a hole, a repeat or a change of order.
//!
//! May use: domain, record, the ports broker and store, hub, metrics. Deliberately absent: sessions, protocols, and who
//! may join.
//!
//! The broker's reading task hands everything to a [`Shard`](shard) by conversation; a shard is one task that owns its
//! conversations' rooms, so nothing here needs a lock. See "Delivery" and "Catch-up" in ARCHITECTURE.md.

mod catchup;
mod shard;
mod subscriptions;
mod topic;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shared::{
    broker::{Broker, Inbound, Sink},
    domain::{ClientInfo, ConnectionId, ConversationId, Seq, UserId},
    store::Store,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use catchup::{CatchUp, CatchUpLimits, catch_up, page_after};
use shard::{Command, Shard};

use crate::{
    hub::{Client, Subscription},
    metrics::Metrics,
};

/// How long a join waits for Redis to confirm the subscription.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(4);
/// Most bytes of records that wait for one shard; above it records are dropped and found again by their gap.
pub const SHARD_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How the feed behaves; the defaults are for production.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// How many shards, and so tasks, the conversations are spread over.
    pub shards: usize,
    /// How long an empty conversation stays subscribed.
    pub linger: Duration,
    /// How often positions are compared with the broker's.
    pub position_check: Duration,
}

/// A conversation could not be joined now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the conversation cannot be subscribed at the moment")]
pub struct JoinError;

/// What became of a member that has read up to somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It gets live events from now on.
    Open,
    /// Too much has happened meanwhile: it must read again.
    Behind,
    /// It is no member any more.
    Gone,
}

/// Joins clients to conversations, and delivers to them.
pub struct Feed {
    shards: Vec<ShardHandle>,
    hasher: BuildHasherDefault<DefaultHasher>,
    connected: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

struct ShardHandle {
    commands: mpsc::UnboundedSender<Command>,
    /// Bytes of the records that wait in `commands`.
    waiting: Arc<AtomicUsize>,
}

impl Feed {
    /// Starts the shards; [`Feed::sink`] must be given to the broker.
    pub fn start(
        config: &FeedConfig,
        broker: &Arc<dyn Broker>,
        store: &Arc<dyn Store>,
        metrics: &Arc<Metrics>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let shards = (0..config.shards.max(1))
            .map(|_| {
                let (commands, inbox) = mpsc::unbounded_channel();
                let waiting = Arc::new(AtomicUsize::new(0));
                let shard = Shard::new(
                    config,
                    broker,
                    store,
                    metrics,
                    tracker,
                    commands.clone(),
                    Arc::clone(&waiting),
                );
                let stop = shutdown.clone();
                tracker.spawn(async move { stop.run_until_cancelled(shard.run(inbox)).await });
                ShardHandle { commands, waiting }
            })
            .collect();
        let connected = Arc::new(AtomicBool::new(false));
        Arc::new(Self {
            shards,
            hasher: BuildHasherDefault::default(),
            connected,
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether this node receives what is published.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Takes records and confirmations from the broker. Everything else that arrives goes to `other`.
    pub fn sink(self: &Arc<Self>, other: impl Fn(Inbound) + Send + Sync + 'static) -> Sink {
        let feed = Arc::clone(self);
        Arc::new(move |inbound| match inbound {
            Inbound::Record(conversation, record) => feed.record(conversation, record),
            Inbound::Subscribed(conversation) => feed.tell(Command::Subscribed(conversation)),
            Inbound::Unsubscribed(conversation) => feed.tell(Command::Unsubscribed(conversation)),
            Inbound::Connected => {
                feed.connected.store(true, Ordering::Release);
                feed.tell_all(|| Command::Connected);
                other(Inbound::Connected);
            }
            Inbound::Disconnected => {
                feed.connected.store(false, Ordering::Release);
                feed.tell_all(|| Command::Disconnected);
            }
            inbound => other(inbound),
        })
    }

    /// Makes the client a member, and waits until Redis has confirmed that what is published from now on arrives here.
    /// The member gets nothing before [`Feed::open`].
    ///
    /// # Errors
    /// When Redis does not confirm within [`JOIN_TIMEOUT`]; the client is then no member.
    pub async fn join(
        &self,
        conversation: &ConversationId,
        client: &Arc<Client>,
        subscription: &Arc<Subscription>,
    ) -> Result<(), JoinError> {
        let (confirmed, wait) = oneshot::channel();
        self.tell(Command::Join {
            conversation: conversation.clone(),
            client: Arc::clone(client),
            subscription: Arc::clone(subscription),
            confirmed,
        });
        if let Ok(Ok(())) = tokio::time::timeout(JOIN_TIMEOUT, wait).await {
            return Ok(());
        }
        self.leave(conversation, client.info.client);
        Err(JoinError)
    }

    /// Sends `frame` to the member, then everything above `up_to` that has arrived since it joined, then live events.
    pub async fn open(
        &self,
        conversation: &ConversationId,
        client: ConnectionId,
        up_to: Seq,
        frame: Bytes,
    ) -> Opened {
        let (opened, wait) = oneshot::channel();
        self.tell(Command::Open { conversation: conversation.clone(), client, up_to, frame, opened });
        wait.await.unwrap_or(Opened::Gone)
    }

    /// Ends the membership; nothing more is delivered for it once this shard gets to it.
    pub fn leave(&self, conversation: &ConversationId, client: ConnectionId) {
        self.tell(Command::Leave { conversation: conversation.clone(), client });
    }

    /// The conversations in which somebody is on this node.
    pub async fn conversations(&self) -> Vec<ConversationId> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let (found, wait) = oneshot::channel();
            let _ = shard.commands.send(Command::Conversations(found));
            all.extend(wait.await.unwrap_or_default());
        }
        all
    }

    /// The users who are in the conversation on this node.
    pub async fn users(&self, conversation: &ConversationId) -> Vec<UserId> {
        let (found, wait) = oneshot::channel();
        self.tell(Command::Users { conversation: conversation.clone(), found });
        wait.await.unwrap_or_default()
    }

    /// Ends the subscriptions of users who may no longer be in the conversation, and tells them. Returns whose they were.
    pub async fn expel(&self, conversation: &ConversationId, users: Vec<UserId>) -> Vec<ClientInfo> {
        let (expelled, wait) = oneshot::channel();
        self.tell(Command::Expel { conversation: conversation.clone(), users, expelled });
        wait.await.unwrap_or_default()
    }

    fn shard(&self, conversation: &ConversationId) -> &ShardHandle {
        let hash = self.hasher.hash_one(conversation);
        let at = hash % self.shards.len() as u64;
        &self.shards[usize::try_from(at).expect("a remainder of a length fits a usize")]
    }

    fn record(&self, conversation: ConversationId, record: Bytes) {
        let shard = self.shard(&conversation);
        let bytes = record.len();
        if shard.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > SHARD_QUEUE_BYTES_MAX {
            shard.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.records_dropped.increment(1);
            return;
        }
        // A closed channel means that the node is going down.
        let _ = shard.commands.send(Command::Record(conversation, record));
    }

    fn tell(&self, command: Command) {
        if let Some(conversation) = command.conversation() {
            let _ = self.shard(conversation).commands.send(command);
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for shard in &self.shards {
            let _ = shard.commands.send(command());
        }
    }
}
