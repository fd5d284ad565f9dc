//! The port to connections: who is connected, from where, and so which users are online, on all nodes.
//!
//! May use: domain; Redis and gather in `redis.rs` alone. Deliberately absent: telling anybody about it, and when a user who is gone
//! was seen last, once that was taken. Two implementations, [`memory`] and [`redis`]; `tests/connections.rs` runs one suite against both.
//!
//! Every connection expires unless its node refreshes it, so a dead node's vanish by themselves. A user whose last
//! connection has ended stays *known* for a while, so that a quick return is no news. Then some node takes the user
//! ([`Connections::take_gone`]), tells the others, and confirms; a node that dies in between is followed by another.

pub mod memory;
pub mod redis;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    broker::BrokerError,
    domain::{ConnectionId, ConnectionRecord, UserId},
};

/// How long a connection lives after it was last refreshed, in seconds, unless the deployment says otherwise.
pub const CONNECTION_TTL_SECONDS: u64 = 60;
/// How long after a user's last connection has ended nobody is told, in milliseconds: most come back.
pub const RETURN_MS: u64 = 5_000;
/// How long who has taken a user may need to tell the others, in milliseconds, before another node does it.
pub const TAKEN_MS: u64 = 10_000;

/// What is known of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserState {
    /// Whether there is a connection at this moment.
    pub connected: bool,
    /// Whether the others were last told that the user is online: true for some seconds longer than `connected`.
    pub known: bool,
    /// When the user was last seen, in milliseconds since 1970, as long as that was not taken.
    pub last_seen: Option<u64>,
}

/// A user whose last connection ended a while ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Who.
    pub user: UserId,
    /// When the last connection ended, or was last heard of, in milliseconds since 1970.
    pub last_seen: u64,
}

/// Who is connected.
#[async_trait]
pub trait Connections: Send + Sync + 'static {
    /// These connections have begun, or are still there: one call for all of a node's tick. Returns the users who were
    /// not known: they have come online.
    async fn enter(&self, connections: &[Arc<ConnectionRecord>]) -> Result<Vec<UserId>, BrokerError>;

    /// A connection has ended.
    async fn leave(&self, user: &UserId, client: ConnectionId) -> Result<(), BrokerError>;

    /// The connections of a user, at most `limit`.
    async fn list(&self, user: &UserId, limit: usize) -> Result<Vec<ConnectionRecord>, BrokerError>;

    /// The state of each user, in the order of the request.
    async fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, BrokerError>;

    /// Takes users whose last connection ended a while ago, so that for [`TAKEN_MS`] nobody else does. `early_ms`
    /// milliseconds before their time, too.
    async fn take_gone(&self, early_ms: u64) -> Result<Vec<Gone>, BrokerError>;

    /// The others were told that these users are gone: they are known no longer. Returns those who have come back
    /// meanwhile, whom the others must be told of again.
    async fn confirm_gone(&self, users: &[UserId]) -> Result<Vec<UserId>, BrokerError>;
}
