//! What happens in a conversation and reaches its members.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    chat::Receipt,
    ephemeral::{Occupancy, Online, Signal, Typing, Unread},
    ids::{ConnectionId, ConversationId, UserId},
    message::{Body, Message, Seq},
};

/// One thing that happened in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message: sequenced, logged, stored, and part of every catch-up.
    Message(Arc<Message>),
    /// A connection joined the conversation: ephemeral.
    Join(ClientInfo),
    /// A connection left the conversation: ephemeral.
    Leave(ClientInfo),
    /// A member types, or has stopped: ephemeral.
    Typing(Typing),
    /// A user has come online or gone: ephemeral.
    Online(Online),
    /// What members tell each other past the log: ephemeral.
    Signal(Signal),
    /// How many are in a large conversation: ephemeral.
    Occupancy(Occupancy),
    /// What a user has not read: ephemeral.
    Unread(Unread),
    /// How far a member has come; the state itself is kept in the store.
    Receipt(Receipt),
}

impl Event {
    /// Whether the event may be lost: it has no seq, is never logged, and is the first to go when a socket is slow.
    pub fn is_ephemeral(&self) -> bool {
        !matches!(self, Self::Message(_))
    }

    /// Whether the event tells who comes and goes, for those members alone who asked for that.
    pub fn is_presence(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Leave(_) | Self::Occupancy(_))
    }
}

/// Who a connection is, as the other members of a conversation see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// The user of the connection's token.
    pub user: UserId,
    /// The connection.
    pub client: ConnectionId,
    /// The `info` claim of the token: opaque JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "raw_json")]
    pub info: Option<Body>,
}

/// Tells a sender that what was accepted from it is committed to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The conversation.
    pub conversation: ConversationId,
    /// Every message of this connection in the conversation up to this seq is stored.
    pub upto: Seq,
}

pub(super) mod raw_json {
    //! Carries opaque JSON through serde as the text that it is.
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
    use serde_json::value::RawValue;

    use crate::domain::Body;

    #[expect(clippy::ref_option, reason = "serde asks for this signature")]
    pub fn serialize<S: Serializer>(body: &Option<Body>, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: Option<&RawValue> = body
            .as_ref()
            .map(|body| serde_json::from_slice(body.as_bytes()))
            .transpose()
            .map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Body>, D::Error> {
        let raw = Option::<Box<RawValue>>::deserialize(deserializer).map_err(D::Error::custom)?;
        Ok(raw.map(|raw| Body::from_json(String::from(Box::<str>::from(raw)))))
    }
}
