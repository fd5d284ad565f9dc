//! The port to Redis on the way of a message: give it a place, log it, and tell every node that has a member.
//!
//! May use: domain, record, gather (its error); Redis in `redis/` alone. Deliberately absent: the store, members, and sockets.
//! Two implementations, [`memory`] and [`redis`]; `tests/broker.rs` runs one suite against both.

mod expiring;
pub mod memory;
pub mod redis;

pub mod sequence;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    domain::{ConversationId, Epoch, Message, NodeId, Partition, Seq},
    gather::Unanswered,
    record::Payload,
};

/// The place of an entry in a partition's log. Ordered by epoch first: a log that was lost starts its ids over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The partition's epoch when the entry was appended.
    pub epoch: Epoch,
    /// The entry.
    pub entry: EntryId,
}

/// The id of an entry of a Redis stream: milliseconds, and a counter within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds by the clock of the Redis server.
    pub ms: u64,
    /// Counts the entries of one millisecond.
    pub n: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl EntryId {
    /// Parses `ms-n`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, n) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, n: n.parse().ok()? })
    }
}

/// One message on its way in.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub conversation: ConversationId,
    /// What its sender says.
    pub payload: Payload,
    /// The last seq that the store knows of the conversation; given when the broker asked with [`Publication::NeedsSeed`].
    pub seed: Option<Seq>,
    /// An earlier try may have succeeded longer ago than the broker remembers: unless it does, the store is to be asked.
    pub retry: bool,
    /// The store was asked and knows no message of this id; given when the broker asked with [`Publication::NeedsCheck`].
    pub checked: bool,
}

/// What became of a [`Publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// It is in the log.
    Accepted(Accepted),
    /// The partition has no epoch that was issued for the server run that this connection is attached to: nothing
    /// happened. Someone must [`Broker::seed`] it with a new epoch from the store. Also when numbers of a later epoch are
    /// known; then the partition was closed.
    NeedsEpoch,
    /// The conversation was not published to in this epoch: nothing happened. Try again with `seed`.
    NeedsSeed,
    /// The epoch is so young that the dedupe keys of earlier publishes may be lost, or it is a retry: nothing happened. Ask the store
    /// whether it has the message, and try again with `checked`.
    NeedsCheck,
    /// The partition's log holds as many entries as it may: nothing happened.
    BacklogFull,
}

/// The place that a message was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its seq.
    pub seq: Seq,
    /// The seq before it.
    pub prev: Seq,
    /// When, in milliseconds since 1970 by the clock of the Redis server, never falling within a conversation.
    pub time: u64,
    /// Where it is in the log of its partition.
    pub position: LogPosition,
    /// It was accepted before: this is the answer of the first time, and nothing was published.
    pub duplicate: bool,
}

/// The newest messages of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// Messages after the position asked for, oldest first, without a hole among them.
    pub messages: Vec<Message>,
    /// Whether nothing is missing between the position asked for and the first of `messages` (or, where there are
    /// none, the present end).
    pub complete: bool,
    /// The present end as far as the broker knows it; `None` when it knows nothing of the conversation.
    pub top: Option<Seq>,
}

/// What arrives at a node. Handed to the [`Sink`] by the task that reads the subscriber connection.
#[derive(Debug, Clone)]
pub enum Inbound {
    /// A record on a conversation's channel.
    Record(ConversationId, Bytes),
    /// Redis has confirmed the subscription: what is published from now on arrives.
    Subscribed(ConversationId),
    /// The subscription has ended, whether asked for or not.
    Unsubscribed(ConversationId),
    /// Everything of the partition up to here is committed to the store.
    Stored(Partition, LogPosition),
    /// Redis may have lost its data: whatever this node knows to be accepted and not stored is to be handed in again, by
    /// [`Broker::hand_in`].
    Salvage,
    /// A message from a node to this one or to all: see [`Broker::announce`].
    Announcement(Bytes),
    /// The subscriber connection is up and carries no subscription yet.
    Connected,
    /// The subscriber connection is lost or proved dead; every subscription is gone with it.
    Disconnected,
}

/// Takes what arrives. Called inline, in order, by the reading task: it must never block or wait.
pub type Sink = Arc<dyn Fn(Inbound) + Send + Sync>;

/// Whom an announcement is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every node, this one too.
    Everyone,
    /// One node.
    Node(NodeId),
}

/// The broker did not answer as it should. For a publish this means that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no connection at the moment, or it broke, or the answer did not come in time.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// The broker holds something that this version cannot read.
    #[error("broker record: {0}")]
    Record(#[from] crate::record::RecordError),
}

impl From<Unanswered> for BrokerError {
    fn from(Unanswered(reason): Unanswered) -> Self {
        Self::Unavailable(reason)
    }
}

impl From<BrokerError> for Unanswered {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable(reason) => Self(reason),
            error @ BrokerError::Record(_) => Self(error.to_string()),
        }
    }
}

/// Gives messages their place, and carries them to the nodes.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// How many partitions there are; the same on every process of a deployment.
    fn partitions(&self) -> u16;

    /// Publishes atomically: fence → dedupe → seed and check → backlog limit → time → seq → hot tail → log → channel.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the outcome is unknown.
    async fn publish(&self, publish: &Publish) -> Result<Publication, BrokerError>;

    /// The epoch of the partition, if it was issued for the server run that this connection is attached to.
    async fn epoch(&self, partition: Partition) -> Result<Option<Epoch>, BrokerError>;

    /// Opens the partition with a new epoch for the server run that this connection is attached to. An epoch is for one
    /// call only, whatever comes of it: tried again, it could open a server that knows nothing of the first time.
    ///
    /// False when the partition has this or a higher epoch already; then nothing is changed.
    async fn seed(&self, partition: Partition, epoch: Epoch) -> Result<bool, BrokerError>;

    /// Calls on every node to hand in what it knows to be accepted and not stored ([`Inbound::Salvage`]). A node that is
    /// not connected at the moment does so by itself as soon as it is. False where there is nothing to salvage, since the
    /// broker's data ends with this process.
    async fn call_for_salvage(&self) -> Result<bool, BrokerError>;

    /// Hands in messages of one partition that were accepted and may be lost. They keep their place.
    async fn hand_in(&self, partition: Partition, messages: &[Message]) -> Result<(), BrokerError>;

    /// Puts everything that was handed in for the partition back into its log and hot tails, as far as it is missing there.
    /// To be called by whoever holds the claim on `epoch`, before [`Broker::seed`]. Returns how many messages were put back.
    async fn restore(&self, partition: Partition, epoch: Epoch) -> Result<u64, BrokerError>;

    /// Publishes an ephemeral record to the conversation's channel: at most once, without a seq, never logged.
    async fn signal(&self, conversation: &ConversationId, record: Bytes) -> Result<(), BrokerError>;

    /// Reads the hot tail: messages after `after`, at most `limit` of them (the oldest of those that remain).
    async fn recent(
        &self,
        conversation: &ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Recent, BrokerError>;

    /// The present end of each conversation, in the order asked; `None` where the broker knows nothing.
    async fn positions(&self, conversations: &[ConversationId]) -> Result<Vec<Option<Seq>>, BrokerError>;

    /// Starts the subscriber connection, which keeps itself alive until the broker is dropped or [`Broker::close`]d.
    /// It is subscribed to every partition's `stored` notices, to announcements for everyone and for `node`.
    fn start(&self, node: &NodeId, sink: Sink);

    /// Asks for the channels of these conversations; each is confirmed by [`Inbound::Subscribed`]. Asking again for one
    /// that is subscribed confirms it again.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] while there is no subscriber connection; [`Inbound::Connected`] tells when to ask again.
    async fn subscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError>;

    /// Gives up the channels of these conversations; each is confirmed by [`Inbound::Unsubscribed`].
    async fn unsubscribe(&self, conversations: &[ConversationId]) -> Result<(), BrokerError>;

    /// Tells other nodes something, at most once. Returns how many were told.
    async fn announce(&self, audience: &Audience, announcement: Bytes) -> Result<u64, BrokerError>;

    /// Ends the connections and the tasks that the broker owns.
    async fn close(&self);
}
