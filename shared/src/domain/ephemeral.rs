//! What happens in a conversation and is kept nowhere: each event is an object that every protocol shows under its name.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    event::{Event, raw_json},
    ids::{ConversationId, SignalName, UserId},
    message::{Body, Seq},
};

/// Somebody has begun to type, goes on, or has stopped. Without news for some seconds it has stopped, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// Who.
    pub user: UserId,
    /// Whether it goes on.
    pub typing: bool,
}

/// Whether a user is connected, on any device and node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Online {
    /// Who.
    pub user: UserId,
    /// Whether there is any connection.
    pub online: bool,
    /// When the last connection ended, in milliseconds since 1970; absent while there is one, and where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
}

/// Something that members tell each other and Starling does not understand: a call offer and the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Where it was said, if that is another room than the one in which it arrives: it was for one user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<ConversationId>,
    /// Who said it.
    #[serde(deserialize_with = "sender")]
    pub user: UserId,
    /// What it is for.
    pub name: SignalName,
    /// What is said: opaque JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "raw_json")]
    pub data: Option<Body>,
}

/// How many are in a conversation that is too large for single joins and leaves to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    /// Connections.
    pub clients: u32,
    /// Different users among them.
    pub users: u32,
}

/// How much of a conversation a user has not read; told in the user's personal room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The conversation.
    pub conversation: ConversationId,
    /// How many messages, exactly up to 99; 100 means more.
    pub unread: u32,
    /// Up to where they were counted.
    pub seq: Seq,
}

fn sender<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
    let text = String::deserialize(deserializer)?;
    UserId::parse_sender(&text).map_err(serde::de::Error::custom)
}

/// Declares the events that have a name and an object.
macro_rules! named {
    ($($event:ident = $name:literal,)*) => {
        impl Event {
            /// The name of the event and its object as JSON; `None` for messages, joins and leaves, for which each
            /// protocol has words of its own.
            pub fn data(&self) -> Option<(&'static str, Vec<u8>)> {
                match self {
                    $(Self::$event(data) => {
                        Some(($name, serde_json::to_vec(data).expect("an event is plain data")))
                    })*
                    Self::Message(_) | Self::Join(_) | Self::Leave(_) => None,
                }
            }

            /// Reads [`Event::data`] back; `None` for a name that is not known and for what is no such object.
            pub fn parse_data(name: &str, data: &[u8]) -> Option<Self> {
                match name {
                    $($name => serde_json::from_slice(data).ok().map(Self::$event),)*
                    _ => None,
                }
            }
        }
    };
}

named! {
    Typing = "typing",
    Online = "online",
    Signal = "signal",
    Occupancy = "occupancy",
    Unread = "unread",
    Receipt = "receipt",
}
