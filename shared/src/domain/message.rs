//! Messages and their place in a conversation.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ids::{ClientMessageId, ConversationId, MessageId, UserId};

/// Largest message body, in bytes.
pub const BODY_BYTES_MAX: usize = 32 * 1024;
/// Longest message kind, in bytes.
pub const KIND_BYTES_MAX: usize = 32;

/// The place of a message in its conversation. It only grows and is never used twice; 0 is before the first message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The largest number that a store can hold; no message has it.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts how often a partition's sequence was started over; issued by the store, never twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Epoch(pub u32);

impl Epoch {
    /// How many numbers one epoch has. 2^21 epochs of 2^32 numbers stay below 2^53, which every client counts exactly.
    pub const SEQS: u64 = 1 << 32;

    /// The number below all those of the epoch.
    pub fn base(self) -> Seq {
        Seq(u64::from(self.0) * Self::SEQS)
    }
}

/// What a message is for: `text`, `image`, `file`, `system`, or a name of the application's own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MessageKind(std::borrow::Cow<'static, str>);

impl MessageKind {
    /// An ordinary message.
    pub const TEXT: Self = Self(std::borrow::Cow::Borrowed("text"));
    /// A number that was given out to a duplicate: it holds the chain together and says nothing.
    pub const VOID: Self = Self(std::borrow::Cow::Borrowed("void"));
    /// Says what another message says from now on.
    pub const EDIT: Self = Self(std::borrow::Cow::Borrowed("edit"));
    /// Takes another message back.
    pub const DELETE: Self = Self(std::borrow::Cow::Borrowed("delete"));
    /// Reacts to another message, or takes that back.
    pub const REACTION: Self = Self(std::borrow::Cow::Borrowed("reaction"));
    /// Says who has become what in the conversation.
    pub const MEMBERS: Self = Self(std::borrow::Cow::Borrowed("members"));
    /// Tells a user, in the personal room, of a conversation.
    pub const CONVERSATION: Self = Self(std::borrow::Cow::Borrowed("conversation"));
    /// Tells a user something of the application's.
    pub const NOTIFICATION: Self = Self(std::borrow::Cow::Borrowed("notification"));
    /// Says something in the name of the house.
    pub const SYSTEM: Self = Self(std::borrow::Cow::Borrowed("system"));

    /// Those that only Starling itself makes; who sends one is refused.
    const RESERVED: [Self; 6] =
        [Self::VOID, Self::EDIT, Self::DELETE, Self::REACTION, Self::MEMBERS, Self::CONVERSATION];
    /// Those that no list shows as a conversation's last message, and that nobody has to read.
    pub const UNCOUNTED: [Self; 5] = [Self::VOID, Self::EDIT, Self::DELETE, Self::REACTION, Self::MEMBERS];

    /// Parses a kind: 1 to [`KIND_BYTES_MAX`] of `a-z`, `0-9`, `_`, `-`, `.`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        let is_kind = !text.is_empty() && text.len() <= KIND_BYTES_MAX && text.bytes().all(is_allowed);
        match text {
            "text" => Some(Self::TEXT),
            _ if is_kind => Some(Self(text.to_owned().into())),
            _ => None,
        }
    }

    /// The kind as text; it needs no escaping in JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only Starling itself makes such messages.
    pub fn is_reserved(&self) -> bool {
        Self::RESERVED.contains(self)
    }

    /// Whether such a message is one to be read, and not an entry that only changes something.
    pub fn is_counted(&self) -> bool {
        !Self::UNCOUNTED.contains(self)
    }

    /// Whether such a message changes another one.
    pub fn is_change(&self) -> bool {
        [Self::EDIT, Self::DELETE, Self::REACTION].contains(self)
    }
}

/// An opaque JSON text, carried byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Takes bytes that are known to be one JSON text, since they were parsed as such at the rim.
    pub fn from_json(json: impl Into<Bytes>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The JSON text, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Body {
    /// Only the length: bodies never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} B)", self.0.len())
    }
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Names the message for ever.
    pub id: MessageId,
    /// Where it was said.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// The place of the message before it; 0 for the first.
    pub prev: Seq,
    /// When Redis accepted it: milliseconds since 1970, never falling within a conversation.
    pub time: u64,
    /// Who said it.
    pub sender: UserId,
    /// The sender's own name for it.
    pub client_id: Option<ClientMessageId>,
    /// The message that it answers, or changes.
    pub reply_to: Option<Seq>,
    /// What it is for.
    pub kind: MessageKind,
    /// What was said.
    pub body: Body,
}
