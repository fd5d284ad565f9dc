//! The port to sessions that can be taken up again: who a client was and what it was in, kept for a while after it is gone.
//!
//! May use: domain; Redis in `redis.rs` alone. Deliberately absent: messages, which the log and the store keep, and who may
//! take a session up. Two implementations, [`memory`] and [`redis`]; `tests/recovery.rs` runs one suite against both.

pub mod memory;
pub mod redis;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    broker::BrokerError,
    domain::{ConversationId, Seq, UserId},
};

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose connection has it now: another one each time that it is taken up.
    pub holder: Uuid,
    /// What the client is called.
    pub name: String,
    /// When this was written, in milliseconds since 1970: the client has missed nothing from before.
    pub time: u64,
    /// What it is in, and where each began for it.
    pub rooms: BTreeMap<ConversationId, Seq>,
}

/// Sessions by their secret, each of one user.
#[async_trait]
pub trait Recovery: Send + Sync + 'static {
    /// Keeps a session for so long, in place of what was kept before.
    async fn keep(
        &self,
        user: &UserId,
        secret: &str,
        session: &Kept,
        life: Duration,
    ) -> Result<(), BrokerError>;

    /// Finds a session; `None` when the user has none under this secret, or no longer.
    async fn find(&self, user: &UserId, secret: &str) -> Result<Option<Kept>, BrokerError>;

    /// Keeps a session no longer.
    async fn forget(&self, user: &UserId, secret: &str) -> Result<(), BrokerError>;
}
