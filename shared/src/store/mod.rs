//! The port to the store: what is kept for ever, and who may read it.
//!
//! May use: domain, log entries; tokio-postgres and gather in `postgres/` alone, rusqlite in `sqlite/` alone. Deliberately absent: Redis.
//! Two implementations, [`postgres`] and [`sqlite`]; `tests/store.rs` runs one suite against both.

mod commit;
mod conversations;
mod effects;
mod migration;
pub mod postgres;
mod row;
pub mod sqlite;
mod users;

use async_trait::async_trait;

pub use conversations::{
    Changed, Conversation, Conversations, Marked, MembersChange, Membership, REACTION_USERS_MAX,
    RECEIPTS_MAX, Standing, UNREAD_MEMBERS_MAX,
};
pub use users::Users;

use crate::{
    broker::LogPosition,
    domain::{ConversationId, Direction, Epoch, Message, MessageId, Partition, Seq},
};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, is overloaded, or is shutting down: nothing is wrong with the request, so try again.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// It refuses this very data, now and whenever it is tried again.
    #[error("store refuses the data: {0}")]
    Rejected(String),
}

/// Which part of a conversation's history to read. Both bounds are exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRange {
    /// The conversation.
    pub conversation: ConversationId,
    /// Only messages above it.
    pub after: Seq,
    /// Only messages below it.
    pub before: Option<Seq>,
    /// At most so many.
    pub limit: u32,
    /// Oldest first, from `after` on, or newest first, from `before` down.
    pub direction: Direction,
}

/// The right to seed one partition, held until it is dropped. A process that hangs loses it after some seconds: then
/// another claim may get the next epoch, and the seeding of this one comes too late to do anything.
pub struct EpochClaim {
    /// The epoch that was issued: no other claim has it or ever gets it, except after a clean stop (see [`Store::claim_epoch`]).
    pub epoch: Epoch,
    /// Keeps others out until it is dropped.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

/// What a commit did beside storing the rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows that were not there before.
    pub inserted: u64,
    /// Entries that were stored before, word for word: a batch that was committed but not trimmed.
    pub replayed: u64,
    /// Entries whose message has a row under another seq: a `void` row holds their place.
    pub voided: Vec<Message>,
    /// Entries whose seq belongs to another message. They are not stored, and must be published again under a new seq.
    pub collided: Vec<Message>,
}

/// What is kept for ever.
#[async_trait]
pub trait Store: Conversations + Users {
    /// Names this installation: 8 characters, made once. Positions of another installation mean nothing here.
    async fn installation(&self) -> Result<String, StoreError>;

    /// The number of partitions that this installation was made with; the first process to start decides.
    async fn fix_partitions(&self, wanted: u16) -> Result<u16, StoreError>;

    /// The last seq stored of the conversation; 0 when there is none.
    async fn last_seq(&self, conversation: &ConversationId) -> Result<Seq, StoreError>;

    /// A message by its id.
    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// Reads history.
    async fn messages(&self, range: &HistoryRange) -> Result<Vec<Message>, StoreError>;

    /// Issues the next epoch of a partition and keeps other claims of the same partition out until the claim is dropped.
    ///
    /// The first claim of a partition gets epoch 0. A claim after [`Store::mark_clean`] gets the epoch that was marked,
    /// once: everything published in it is stored, so its numbers go on.
    async fn claim_epoch(&self, partition: Partition) -> Result<EpochClaim, StoreError>;

    /// Notes that everything ever published in the partition's present epoch is stored, and that nothing will be
    /// published in it before the next claim. Only a process that is itself the broker can know this.
    async fn mark_clean(&self, partitions: &[Partition]) -> Result<(), StoreError>;

    /// A session that can own partitions and write their messages. `name` names the persister among others.
    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, StoreError>;

    /// Up to where each partition is committed; for whoever may have missed a notice. A partition of which nothing was
    /// ever committed is not in it.
    async fn cursors(&self) -> Result<Vec<(Partition, LogPosition)>, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// One session with the store. What it locks is held by this session and lost with it, so that whoever has lost a
/// partition has lost the ability to write it.
///
/// After any [`StoreError::Unavailable`] the session must be thrown away: its locks may be gone.
#[async_trait]
pub trait Writer: Send {
    /// Says that this writer is alive, and returns how many are (itself counted). Must be called at least every
    /// [`WRITER_BEAT_SECONDS`]; a session that is silent for [`WRITER_SILENCE_SECONDS_MAX`] is ended by the store.
    async fn beat(&mut self) -> Result<u32, StoreError>;

    /// Tries to own the partition; false when another writer owns it.
    async fn lock(&mut self, partition: Partition) -> Result<bool, StoreError>;

    /// Gives the partition up.
    async fn unlock(&mut self, partition: Partition) -> Result<(), StoreError>;

    /// Stores the messages and the cursors in one transaction. Idempotent: storing a message again does nothing.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when some message can never be stored: then nothing of the batch is.
    async fn commit(
        &mut self,
        messages: &[Message],
        cursors: &[(Partition, LogPosition)],
    ) -> Result<Committed, StoreError>;

    /// Fills the place of a message that can never be stored, so that the chain has no hole.
    async fn void(&mut self, message: &Message) -> Result<(), StoreError>;
}

/// How often a writer says that it is alive, in seconds.
pub const WRITER_BEAT_SECONDS: u64 = 2;
/// How long the store waits for a writer that says nothing, in seconds, before its partitions are free.
pub const WRITER_SILENCE_SECONDS_MAX: u64 = 8;
