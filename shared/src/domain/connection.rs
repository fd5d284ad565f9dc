//! One connection, as its user and operators see it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ids::{ConnectionId, NodeId, UserId};

/// Who is connected, from where, since when, and to which node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// The connection.
    pub client: ConnectionId,
    /// Whose it is.
    pub user: UserId,
    /// The node that holds it.
    pub node: NodeId,
    /// The address it comes from, as far as the proxies that are trusted tell.
    pub address: String,
    /// What the client calls itself; empty when it does not say.
    pub user_agent: String,
    /// Which protocol it speaks, and over what.
    pub protocol: Cow<'static, str>,
    /// When it began, in milliseconds since 1970.
    pub since: u64,
}
