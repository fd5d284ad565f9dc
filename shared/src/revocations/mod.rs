//! The port to revocations: tokens that are genuine, whose time is not over, and that are valid no more.
//!
//! May use: domain, broker's names; Redis in `redis.rs` alone. Deliberately absent: connections and tokens themselves. What
//! is revoked is read as a log, by position: who was cut off misses nothing. An entry lives as long as a token can.
//! Two implementations, [`memory`] and [`redis`]; `tests/revocations.rs` runs one suite against both.

pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    broker::{BrokerError, EntryId},
    domain::UserId,
};

/// Most revocations that are in force at once; more are refused.
pub const REVOCATIONS_MAX: usize = 1_000_000;
/// Most entries that one read returns.
pub const READ_ENTRIES_MAX: usize = 1_000;

/// Tokens that are valid no more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The one of this `jti`.
    Token(String),
    /// Those of a user that were issued before a second since 1970 (and those that do not say when they were issued).
    User(UserId, u64),
}

/// A revocation and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The place; its milliseconds say when it was revoked.
    pub id: EntryId,
    /// What; `None` for an entry of another version, which this one cannot read.
    pub what: Option<Revocation>,
}

/// Why something was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// There are [`REVOCATIONS_MAX`] already.
    #[error("{REVOCATIONS_MAX} revocations are in force already")]
    Full,
    /// The outcome is unknown; trying again is safe.
    #[error(transparent)]
    Unavailable(#[from] BrokerError),
}

/// What is revoked.
#[async_trait]
pub trait Revocations: Send + Sync + 'static {
    /// Revokes for every node. Entries older than a token's longest life are let go of.
    async fn revoke(&self, revocation: &Revocation) -> Result<(), RevokeError>;

    /// Reads what comes after a place, oldest first, at most [`READ_ENTRIES_MAX`] entries. While there is nothing it waits so
    /// long, and then returns nothing. For one reader at a time.
    ///
    /// # Errors
    /// When it cannot be read, or nothing proves in time that it can.
    async fn read(&self, after: EntryId, wait: Duration) -> Result<Vec<Revoked>, BrokerError>;

    /// Whether the entry is still there. If one that was read is not, and is not too old, the log was lost.
    async fn has(&self, id: EntryId) -> Result<bool, BrokerError>;
}
