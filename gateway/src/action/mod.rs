//! What a client can do: one verb a file, the same for every protocol and for HTTP.
//!
//! May use: domain, the ports, and what a node does by itself (feed, pending, roster, online, typing, unread, ephemeral). Deliberately
//! absent: axum, frames, the JSON of clients, and sessions.
//! Every verb asks [`authorize`] first.

mod authenticate;
mod authorize;
mod change;
mod converse;
mod history;
mod manage;
mod members;
mod membership;
mod personal;
mod presence;
mod receipts;
mod revoke;
mod send;
mod signal;
mod subscribe;
mod typing;
mod users;

use std::sync::Arc;

use shared::{
    auth::TokenVerifier,
    broker::Broker,
    domain::{Kinds, NodeId},
    presence::Presence,
    publisher::Publisher,
    store::Store,
};

pub use authenticate::{Denial, authenticate};
pub use authorize::{Actor, authorize, authorize_to};
pub use change::{EMOJIS_MAX, change};
pub use converse::{
    LIST_CONVERSATIONS_MAX, MEMBERS_MAX, NAME_BYTES_MAX, conversation, conversations, create_conversation,
};
pub use history::{HISTORY_MESSAGES_MAX, history, read_history};
pub use manage::{manage, members};
pub use members::{members_changed, watch_members};
pub use membership::{MembersChanged, MembershipCache};
pub use personal::{ConversationNews, tell, tell_role};
pub use presence::{presence, presence_stats};
pub use receipts::{mark, receipts};
pub use revoke::{Revoke, revoke};
pub use send::{Acknowledgement, publish, send};
pub use signal::signal;
pub use subscribe::{ServerRoom, begin, subscribe, unsubscribe};
pub use typing::typing;
pub use users::{PRESENCE_USERS_MAX, SendAway, connections, disconnect, send_away, user_presence};

use crate::{
    ephemeral::Ephemeral, feed::Feed, limits::Limiter, metrics::Metrics, online::OnlineUsers,
    pending::Pending, revocation::Revocable, roster::Roster, typing::Typists, unread::UnreadCounts,
};

/// Which commit a publish waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AckMode {
    /// The log has it.
    #[default]
    Accepted,
    /// The store has it.
    Stored,
}

/// How much one client may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Conversations that one connection may be in.
    pub subscriptions_per_connection: usize,
    /// Messages that one resume may return; above it the client pages.
    pub catchup_messages: usize,
    /// Bytes of bodies that one resume may return.
    pub catchup_bytes: usize,
    /// Bytes of one message's body.
    pub body_bytes: usize,
}

/// This process: its handles to everything that an action needs.
pub struct Node {
    /// Names this run of this process.
    pub id: NodeId,
    /// Names the installation; positions of another one mean nothing here.
    pub installation: String,
    /// Which commit a publish waits for.
    pub ack_mode: AckMode,
    /// How much one client may ask for.
    pub limits: Limits,
    /// How much everybody together may ask for.
    pub limiter: Arc<Limiter>,
    /// Checks tokens.
    pub tokens: Arc<TokenVerifier>,
    /// What is revoked.
    pub revocable: Arc<Revocable>,
    /// The port to Redis.
    pub broker: Arc<dyn Broker>,
    /// The port to the store.
    pub store: Arc<dyn Store>,
    /// Who is where.
    pub presence: Arc<dyn Presence>,
    /// Gives messages their place.
    pub publisher: Publisher,
    /// Delivers to this node's members.
    pub feed: Arc<Feed>,
    /// What this node published and the store does not have yet.
    pub pending: Arc<Pending>,
    /// This node's part of the presence.
    pub roster: Arc<Roster>,
    /// What each kind of conversation is like.
    pub kinds: Arc<Kinds>,
    /// This node's connections, and who is online.
    pub online: Arc<OnlineUsers>,
    /// Who types on this node.
    pub typists: Arc<Typists>,
    /// Whose unread counts are to be told.
    pub unread: Arc<UnreadCounts>,
    /// The way out for what is kept nowhere.
    pub ephemeral: Arc<Ephemeral>,
    /// Who may be where, for a while.
    pub memberships: Arc<MembershipCache>,
    /// What this node tells of itself.
    pub metrics: Arc<Metrics>,
}
