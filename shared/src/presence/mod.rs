//! The port to presence: which connections are in a conversation now, on all nodes.
//!
//! May use: domain; Redis and gather in `redis.rs` alone. Deliberately absent: telling members about it, which the caller does.
//! Every entry expires unless its node refreshes it, so a dead node's connections vanish by themselves.
//! Two implementations, [`memory`] and [`redis`]; `tests/presence.rs` runs one suite against both.

pub mod memory;
pub mod redis;

use async_trait::async_trait;

use crate::{
    broker::BrokerError,
    domain::{ClientInfo, ConnectionId, ConversationId},
};

/// How long an entry lives after it was last refreshed, in seconds.
pub const PRESENCE_TTL_SECONDS: u64 = 60;

/// How many are in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Different users among them.
    pub users: u32,
}

/// One connection in one conversation.
pub type PresenceEntry = (ConversationId, ClientInfo);

/// Who is where.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// A connection has joined, or is still there: one call for all entries of a node's tick. Returns how many
    /// connections each conversation has afterwards, in the order of the entries.
    async fn enter(&self, entries: &[PresenceEntry]) -> Result<Vec<u32>, BrokerError>;

    /// A connection has left. Returns how many connections the conversation has afterwards.
    async fn leave(&self, conversation: &ConversationId, client: ConnectionId) -> Result<u32, BrokerError>;

    /// Who is there, at most `limit` connections.
    async fn list(&self, conversation: &ConversationId, limit: usize)
    -> Result<Vec<ClientInfo>, BrokerError>;

    /// How many are there.
    async fn stats(&self, conversation: &ConversationId) -> Result<PresenceStats, BrokerError>;
}
