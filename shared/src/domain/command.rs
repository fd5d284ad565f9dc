//! What a client asks, and what it is answered; the same for every protocol.

use std::fmt;

use super::{
    change::MessageState,
    chat::{ChatCommand, ChatReply},
    connection::ConnectionRecord,
    ephemeral::Online,
    event::ClientInfo,
    ids::{ClientMessageId, ConnectionId, ConversationId, MessageId, SignalName, UserId},
    message::{Body, Message, MessageKind, Seq},
};

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Says who the client is; must come first.
    Connect(Connect),
    /// Shows a new token of the same user before the old one's time is over.
    Refresh {
        /// The new token.
        token: Token,
    },
    /// Joins a conversation and, where asked, catches up on what was missed.
    Subscribe(Subscribe),
    /// Leaves a conversation; leaving one that was not joined is no error.
    Unsubscribe(ConversationId),
    /// Sends a message of kind `text` without a name of its own: what protocols without a message id can say.
    Publish {
        /// Where to.
        conversation: ConversationId,
        /// What.
        body: Body,
    },
    /// Sends a message.
    Send(Send),
    /// Reads back.
    History(HistoryQuery),
    /// Who is in the conversation now, connection by connection.
    Presence(ConversationId),
    /// How many are in the conversation now.
    PresenceStats(ConversationId),
    /// Anything about conversations, members, or messages that were sent.
    Chat(ChatCommand),
    /// Types, or has stopped to.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Whether it goes on.
        typing: bool,
    },
    /// Tells members something past the log.
    Signal(SendSignal),
    /// Which of these users are online, and when the others were.
    UserPresence(Vec<UserId>),
    /// The user's own connections.
    Connections,
    /// Answers the server's ping.
    Pong,
    /// A request that names no operation of Starling's, or one that Starling does not offer.
    Unsupported(super::Refusal),
}

/// A JWT as it was shown. It never reaches a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} B)", self.0.len())
    }
}

/// The request to start a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// The JWT; empty when none was shown.
    pub token: Token,
    /// Server-side subscriptions that the client held before, and where it was in each.
    pub resume: Vec<(ConversationId, Position)>,
}

/// Where a reader is in a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Which installation's numbers these are; empty matches any.
    pub epoch: String,
    /// The last message seen; 0 for none.
    pub seq: Seq,
}

/// The request to join a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The conversation.
    pub conversation: ConversationId,
    /// Catch up from here; without it the client starts at the present end.
    pub recover: Option<Position>,
    /// Whether the client wants to see others join and leave.
    pub join_leave: bool,
    /// Answer an unrecoverable position with a refusal instead of a fresh start.
    pub refuse_unrecoverable: bool,
}

/// The request to send a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub conversation: ConversationId,
    /// The sender's name for the message, by which a retry is recognised.
    pub client_id: Option<ClientMessageId>,
    /// The message that it answers.
    pub reply_to: Option<Seq>,
    /// What it is for.
    pub kind: MessageKind,
    /// What is said.
    pub body: Body,
    /// The client does not know whether an earlier try succeeded, perhaps long ago.
    pub retry: bool,
}

/// The request to tell members something past the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSignal {
    /// Where to.
    pub conversation: ConversationId,
    /// What it is for.
    pub name: SignalName,
    /// What is said.
    pub data: Option<Body>,
    /// The one member who is told; `None` for all.
    pub to: Option<UserId>,
}

/// Which way history is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// The request to read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The conversation.
    pub conversation: ConversationId,
    /// Exclusive: above it when forward, below it when backward. None is the respective end.
    pub since: Option<Position>,
    /// At most so many messages; 0 asks for the position alone.
    pub limit: u32,
    /// Which way.
    pub direction: Direction,
}

/// The answer to one [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The session has started.
    Connected(Connected),
    /// The token was replaced; seconds until the new one expires, `None` for never.
    Refreshed {
        /// The connection.
        client: ConnectionId,
        /// Seconds until the token expires.
        ttl: Option<u32>,
    },
    /// Joined.
    Subscribed(Subscribed),
    /// Left.
    Unsubscribed,
    /// Accepted; protocols without a message id say no more.
    Published,
    /// Accepted or stored, as the acknowledgement mode says.
    Sent(Sent),
    /// What was read back.
    History(HistoryPage),
    /// Who is in the conversation.
    Presence(Vec<ClientInfo>),
    /// How many are in the conversation.
    PresenceStats {
        /// Connections.
        clients: u32,
        /// Different users among them.
        users: u32,
    },
    /// Who is online, of the users asked for and known to whoever asks.
    UserPresence(Vec<Online>),
    /// The user's connections.
    Connections(Vec<ConnectionRecord>),
    /// What was asked about conversations.
    Chat(ChatReply),
    /// Done; there is nothing more to say.
    Done,
    /// Refused; nothing happened, except where [`super::Refusal::Unavailable`] says that this is unknown.
    Refused(super::Refusal),
}

/// A session that has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The connection.
    pub client: ConnectionId,
    /// Seconds until the token expires; `None` for never.
    pub ttl: Option<u32>,
    /// The conversations that the server put the client into.
    pub subscriptions: Vec<(ConversationId, Subscribed)>,
}

/// A conversation that was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// Which installation's numbers these are.
    pub epoch: String,
    /// Where the client is once it has read `catchup`: the present end, or, with a complete catch-up, what it asked from.
    pub seq: Seq,
    /// What was missed.
    pub catchup: Catchup,
}

/// What a subscriber missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Catchup {
    /// It did not ask.
    NotAsked,
    /// Everything after the position asked for, oldest first, without a hole; live events follow.
    Complete(Vec<Message>),
    /// More than the limit, or a position that means nothing here: the client pages through the history by itself.
    Limited,
}

/// A message that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Names the message for ever.
    pub id: MessageId,
    /// Its place.
    pub seq: Seq,
    /// When it was accepted, in milliseconds since 1970.
    pub time: u64,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The messages, in the direction asked for.
    pub messages: Vec<Message>,
    /// What became of those of them that were changed or reacted to, by seq. Bodies are up to date already.
    pub states: Vec<MessageState>,
    /// Which installation's numbers these are.
    pub epoch: String,
    /// The present end of the conversation.
    pub top: Seq,
}
