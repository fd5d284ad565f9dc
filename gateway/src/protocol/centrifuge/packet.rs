//! The shape of what clients send, field by field, and the tag by which a reply finds its request.

use std::{borrow::Cow, collections::BTreeMap, fmt, num::NonZeroU32};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What a reply needs in order to find its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The client's number for the request; `None` when it wants no reply.
    pub(super) id: Option<NonZeroU32>,
    /// Whether the request came wrapped in `rpc`, so that the result goes into its `data`.
    pub(super) is_rpc: bool,
}

/// One command as it stands on the wire.
pub(super) struct Packet<'a> {
    /// 0 when absent.
    pub id: u32,
    /// `None` for `{}` alone.
    pub request: Option<Request<'a>>,
}

/// The one request of a command.
pub(super) enum Request<'a> {
    Connect(Connect<'a>),
    Refresh(Refresh<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Channel<'a>),
    Publish(Publish<'a>),
    History(History<'a>),
    Presence(Channel<'a>),
    PresenceStats(Channel<'a>),
    SubRefresh(IgnoredAny),
    Rpc(Call<'a>),
    Send(Async<'a>),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Connect,
    Refresh,
    Subscribe,
    Unsubscribe,
    Publish,
    History,
    Presence,
    PresenceStats,
    SubRefresh,
    Rpc,
    Send,
    #[serde(other)]
    Unknown,
}

impl<'de: 'a, 'a> Deserialize<'de> for Packet<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PacketVisitor)
    }
}

struct PacketVisitor;

impl<'de> Visitor<'de> for PacketVisitor {
    type Value = Packet<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Packet<'de>, A::Error> {
        let mut packet = Packet { id: 0, request: None };
        let mut is_empty = true;
        while let Some(key) = map.next_key()? {
            is_empty = false;
            let request = match key {
                Key::Id => {
                    packet.id = map.next_value()?;
                    continue;
                }
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Connect => Request::Connect(map.next_value()?),
                Key::Refresh => Request::Refresh(map.next_value()?),
                Key::Subscribe => Request::Subscribe(map.next_value()?),
                Key::Unsubscribe => Request::Unsubscribe(map.next_value()?),
                Key::Publish => Request::Publish(map.next_value()?),
                Key::History => Request::History(map.next_value()?),
                Key::Presence => Request::Presence(map.next_value()?),
                Key::PresenceStats => Request::PresenceStats(map.next_value()?),
                Key::SubRefresh => Request::SubRefresh(map.next_value()?),
                Key::Rpc => Request::Rpc(map.next_value()?),
                Key::Send => Request::Send(map.next_value()?),
            };
            if packet.request.replace(request).is_some() {
                return Err(A::Error::custom("more than one request"));
            }
        }
        if packet.request.is_none() && !is_empty {
            return Err(A::Error::custom("no known request"));
        }
        Ok(packet)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Connect<'a> {
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    pub subs: BTreeMap<String, Resume>,
}

/// A server-side subscription that the client had.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Resume {
    pub recover: bool,
    pub offset: u64,
    pub epoch: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh<'a> {
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    pub recover: bool,
    pub offset: u64,
    pub epoch: String,
    pub join_leave: bool,
    pub flag: i64,
    /// 0 is a stream; the others are maps and polls.
    #[serde(rename = "type")]
    pub kind: i64,
    /// A filter by tags.
    pub tf: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Channel<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "even_null")]
    pub data: Option<&'a RawValue>,
    /// 0 is a stream; 1 is a map.
    #[serde(rename = "type")]
    pub kind: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct History<'a> {
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    pub since: Option<SinceOffset>,
    pub limit: i64,
    pub reverse: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SinceOffset {
    pub offset: u64,
    pub epoch: String,
}

/// An operation by name: the content of `rpc`, and of an asynchronous `send` that means one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Async<'a> {
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

/// The `data` of the operation `send`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SendData<'a> {
    #[serde(borrow)]
    pub conversation: Cow<'a, str>,
    #[serde(borrow)]
    pub client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "even_null")]
    pub body: Option<&'a RawValue>,
    /// The seq of the message that it answers.
    pub reply_to: Option<u64>,
    pub retry: bool,
}

/// The `data` of the operation `history`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryData<'a> {
    #[serde(borrow)]
    pub conversation: Cow<'a, str>,
    pub after: Option<u64>,
    pub before: Option<u64>,
    pub limit: Option<u32>,
    pub reverse: bool,
}

/// The `data` of the operations `typing` and `stop_typing`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ConversationData<'a> {
    #[serde(borrow)]
    pub conversation: Cow<'a, str>,
}

/// The `data` of the operation `signal`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SignalData<'a> {
    #[serde(borrow)]
    pub conversation: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub to: Option<Cow<'a, str>>,
}

/// The `data` of the operation `user_presence`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UsersData {
    pub users: Vec<String>,
}

/// A body that is `null` is a body; only an absent one is none.
pub(super) fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
