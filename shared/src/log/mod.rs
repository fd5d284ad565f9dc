//! The port to the durable log: what the persister drains.
//!
//! May use: domain, record, the positions of broker; Redis in `redis.rs` alone. Deliberately absent: the store.
//! Two implementations, [`memory`] and [`redis`]; `tests/log.rs` runs one suite against both.
//!
//! There is no consumer group. A partition has one reader at a time (who that is, the store decides), and what is
//! committed is trimmed, so the head of the stream is always what remains to be done.

pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    broker::{BrokerError, LogPosition},
    domain::{Message, Partition},
};

/// How many dead letters of one partition are kept; older ones go first.
pub const DEAD_LETTERS_MAX: usize = 100_000;

/// One entry of a partition's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it is.
    pub position: LogPosition,
    /// What it says; the reason when it cannot be read (it then goes to the dead letters).
    pub content: Result<Message, UnreadableEntry>,
}

/// An entry that no version of this program could have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable log entry: {reason}")]
pub struct UnreadableEntry {
    /// What is wrong with it.
    pub reason: String,
    /// The entry as it stands in the log, field by field.
    pub fields: Vec<(String, bytes::Bytes)>,
}

/// The entries of one partition that one read returned, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// The partition.
    pub partition: Partition,
    /// At least one entry.
    pub entries: Vec<LogEntry>,
}

/// How much of a partition's log is not stored yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The partition.
    pub partition: Partition,
    /// Entries in the log.
    pub entries: u64,
    /// When the oldest of them was appended, in milliseconds since 1970; `None` when there is none.
    pub oldest_ms: Option<u64>,
}

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimmed {
    /// The entries are gone, and their memory is given back.
    Done,
    /// The log is not the one that the reader has read (its epoch has changed since): nothing was trimmed. The reader
    /// has forgotten where it was, and reads the partition from its head again.
    Changed,
}

/// The durable log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// How many partitions there are.
    fn partitions(&self) -> u16;

    /// A reader with a connection of its own.
    async fn reader(&self) -> Result<Box<dyn LogReader>, BrokerError>;

    /// Tells every node that the partition is committed to the store up to `position`.
    async fn notify_stored(&self, notices: &[(Partition, LogPosition)]) -> Result<(), BrokerError>;

    /// Puts an entry that can never be stored aside, in the partition's dead-letter stream.
    async fn dead_letter(
        &self,
        partition: Partition,
        entry: &LogEntry,
        reason: &str,
    ) -> Result<(), BrokerError>;

    /// How full each partition is.
    async fn backlog(&self) -> Result<Vec<Backlog>, BrokerError>;
}

/// Reads partitions from their head on, and trims what is committed.
#[async_trait]
pub trait LogReader: Send {
    /// Which partitions to read from now on. A partition that is new here is read from its head.
    fn assign(&mut self, partitions: &[Partition]);

    /// The next entries of the assigned partitions: at most `limit` for each, after those that were read before.
    /// Waits up to `wait` when there are none, and then returns nothing.
    ///
    /// # Errors
    /// After an error the reader reads every partition from its head again.
    async fn read(&mut self, limit: usize, wait: Duration) -> Result<Vec<LogBatch>, BrokerError>;

    /// Forgets what was read: every partition is read from its head again.
    fn rewind(&mut self);

    /// Removes the entries of each partition up to and with its position, if the partition's epoch is still what it was
    /// before the reader first read it. Tells what became of each, in the order given.
    ///
    /// # Errors
    /// After an error some may be trimmed, and the reader reads every partition from its head again.
    async fn trim(&mut self, upto: &[(Partition, LogPosition)]) -> Result<Vec<Trimmed>, BrokerError>;
}
