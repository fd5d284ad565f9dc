//! The vocabulary of Starling: what a conversation, a message, a command and a refusal are.
//!
//! May use: serde, bytes, uuid, sha2. Deliberately absent: tokio, clocks, randomness, Redis, Postgres, sockets,
//! and everything that waits. Each type is plain data; whoever needs the present time passes it in.

mod change;
mod chat;
mod command;
mod connection;
mod conversation;
mod disconnect;
mod ephemeral;
mod event;
mod ids;
mod message;
mod partition;
mod refusal;
mod role;

pub use change::{Change, ChangeAction, EMOJI_BYTES_MAX, MessageState, Reaction, is_emoji};
pub use chat::{
    ChatCommand, ChatReply, ConversationSummary, LastMessage, ListCursor, Manage, Member, NewConversation,
    Receipt, SUMMARY_MEMBERS_MAX, SendChange, UNREAD_MAX,
};
pub use command::{
    Catchup, Command, Connect, Connected, Direction, HistoryPage, HistoryQuery, Position, Reply, Send,
    SendSignal, Sent, Subscribe, Subscribed, Token,
};
pub use connection::ConnectionRecord;
pub use conversation::{ConversationKind, Direct};
pub use disconnect::Disconnect;
pub use ephemeral::{Occupancy, Online, Signal, Typing, Unread};
pub use event::{ClientInfo, Event, Stored};
pub use ids::{
    CONVERSATION_ID_BYTES_MAX, ClientMessageId, ConnectionId, ConversationId, IdError, MessageId, NodeId,
    RoleName, SignalName, UserId,
};
pub use message::{BODY_BYTES_MAX, Body, Epoch, KIND_BYTES_MAX, Message, MessageKind, Seq};
pub use partition::{PARTITIONS_DEFAULT, PARTITIONS_MAX, Partition};
pub use refusal::Refusal;
pub use role::{
    KIND_CHANNEL, KIND_DIRECT, KIND_GROUP, Kind, Kinds, Permission, Permissions, ROLE_BYTES_MAX, Role,
};
