//! What the Centrifuge JSON protocol and the HTTP endpoints say, as far as a test client reads it.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// One line that the server sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Incoming {
    pub id: u32,
    pub error: Option<ErrorBody>,
    pub push: Option<PushBody>,
    connect: Option<Box<RawValue>>,
    subscribe: Option<Box<RawValue>>,
    unsubscribe: Option<Box<RawValue>>,
    publish: Option<Box<RawValue>>,
    presence: Option<Box<RawValue>>,
    rpc: Option<Box<RawValue>>,
    refresh: Option<Box<RawValue>>,
}

impl Incoming {
    /// The result of a successful reply, whichever request it answers.
    pub fn into_result(self) -> Option<Box<RawValue>> {
        let Self { connect, subscribe, unsubscribe, publish, presence, rpc, refresh, .. } = self;
        connect.or(subscribe).or(unsubscribe).or(publish).or(presence).or(rpc).or(refresh)
    }
}

/// The `error` of a reply.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorBody {
    pub code: u32,
    pub message: String,
    pub temporary: bool,
}

/// The `push` of a line.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PushBody {
    pub channel: String,
    #[serde(rename = "pub")]
    pub publication: Option<Publication>,
    pub join: Option<InfoBody>,
    pub leave: Option<InfoBody>,
    pub unsubscribe: Option<CodeBody>,
    pub message: Option<MessageBody>,
}

/// The `info` of a join or leave push.
#[derive(Debug, Deserialize)]
pub(crate) struct InfoBody {
    pub info: ClientInfo,
}

/// The `unsubscribe` push.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CodeBody {
    pub code: u32,
}

/// The `message` push.
#[derive(Debug, Deserialize)]
pub(crate) struct MessageBody {
    pub data: Box<RawValue>,
}

impl MessageBody {
    /// The notice that it is; `None` for anything else that a server may say.
    pub fn stored_notice(&self) -> Result<Option<StoredNotice>, String> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        match serde_json::from_str::<Typed>(self.data.get()) {
            Ok(typed) if typed.kind == "stored" => {
                let notice = serde_json::from_str(self.data.get());
                notice.map(Some).map_err(|error| format!("stored notice: {error}"))
            }
            _ => Ok(None),
        }
    }
}

/// Who a connection is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The user.
    pub user: String,
    /// The connection.
    pub client: String,
}

/// A publication: the body of one message with what the protocol says about it.
#[derive(Debug, Clone, Deserialize)]
pub struct Publication {
    /// The body, as it was sent.
    pub data: Box<RawValue>,
    /// The message's seq.
    #[serde(default)]
    pub offset: u64,
    /// The sender.
    #[serde(default)]
    pub info: ClientInfo,
    /// `id`, `kind`, `prev` and perhaps `client_id`.
    #[serde(default)]
    pub tags: HashMap<String, String>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub time: u64,
}

/// The answer to `connect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Connected {
    /// The connection.
    pub client: String,
    /// Seconds between the server's pings; 0 for none.
    pub ping: u64,
    /// Whether the server waits for pongs.
    pub pong: bool,
    /// The subscriptions that the server made.
    pub subs: HashMap<String, Subscribed>,
}

/// The answer to `subscribe`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Subscribed {
    /// Names the stream whose offsets these are.
    pub epoch: String,
    /// Where the subscriber is: the end, or, when recovered, what it asked from.
    pub offset: u64,
    /// Recovery was asked for.
    pub was_recovering: bool,
    /// `publications` are complete.
    pub recovered: bool,
    /// What was missed, oldest first.
    pub publications: Vec<Publication>,
}

/// Where a subscriber was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Names the stream whose offsets these are; empty matches any.
    pub epoch: String,
    /// The last seq that it has.
    pub seq: u64,
}

/// The answer to the rpc `send`.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// Names the message for ever.
    pub id: String,
    /// Its place in the conversation.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// One message, as the history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Names the message for ever.
    pub id: String,
    /// Its place in the conversation.
    pub seq: u64,
    /// The place of the message before it; 0 for the first.
    #[serde(default)]
    pub prev: u64,
    /// Who said it.
    pub sender: String,
    /// The sender's own name for it.
    #[serde(default)]
    pub client_id: Option<String>,
    /// What it is for.
    pub kind: String,
    /// The body, byte for byte.
    #[serde(deserialize_with = "raw_text")]
    pub body: String,
}

impl Entry {
    /// The kind of a number that was given out to a duplicate: it holds the chain together and says nothing.
    pub const VOID: &str = "void";

    /// Whether this is a number without a message.
    pub fn is_void(&self) -> bool {
        self.kind == Self::VOID
    }
}

impl From<Publication> for Entry {
    /// A missing or misspelt tag becomes an empty id or a `prev` of 0, which the judge then complains about.
    fn from(publication: Publication) -> Self {
        let tag = |name: &str| publication.tags.get(name).cloned();
        Self {
            id: tag("id").unwrap_or_default(),
            seq: publication.offset,
            prev: tag("prev").and_then(|prev| prev.parse().ok()).unwrap_or_default(),
            client_id: tag("client_id"),
            kind: tag("kind").unwrap_or_default(),
            sender: publication.info.user,
            body: publication.data.get().to_owned(),
        }
    }
}

/// A page of history: the rpc `history` and `GET /v1/conversations/{id}/messages` answer the same.
#[derive(Debug, Clone, Deserialize)]
pub struct HistoryPage {
    /// The messages, oldest first.
    pub messages: Vec<Entry>,
    /// Names the stream whose numbers these are.
    #[serde(default)]
    pub epoch: String,
    /// The last seq of the conversation.
    #[serde(default)]
    pub top: u64,
}

/// The notice that what was accepted from this connection is stored.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredNotice {
    /// The conversation.
    pub conversation: String,
    /// Everything up to this seq is stored.
    pub upto: u64,
}

/// The data of the rpc `send`.
#[derive(Debug, Serialize)]
pub(crate) struct SendData<'a> {
    pub conversation: &'a str,
    pub client_id: &'a str,
    pub body: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

/// The data of the rpc `history`.
#[derive(Debug, Serialize)]
pub(crate) struct HistoryData<'a> {
    pub conversation: &'a str,
    pub after: u64,
    pub limit: u32,
}

fn raw_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Box::<RawValue>::deserialize(deserializer)?.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_becomes_the_entry_that_history_shows() {
        let line = r#"{"push":{"channel":"c","pub":{"data":{"n": 9007199254740993},"offset":7,"time":5,
            "info":{"user":"al","client":"x"},"tags":{"id":"i","kind":"text","prev":"6","client_id":"k"}}}}"#;
        let push = serde_json::from_str::<Incoming>(line).unwrap().push.unwrap();
        let history = r#"{"id":"i","seq":7,"prev":6,"time":5,"sender":"al","client_id":"k","kind":"text",
            "body":{"n": 9007199254740993}}"#;
        assert_eq!(Entry::from(push.publication.unwrap()), serde_json::from_str::<Entry>(history).unwrap());
    }
}
